"""The line before the limits, against a plain model that looks at everybody each time."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from signalbox.actions.dependency import Rate, TokenBucket
from signalbox.actions.queue import ActionQueue, Waiting

TOTAL = 4
LIMITS = {("action", "a"): 1, ("action", "b"): 2, ("dependency", "d"): 2, ("agent", "x"): 3}


class Line(RuleBasedStateMachine):
    """Arrivals, departures, withdrawals, other limits and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.bucket = TokenBucket(Rate(per_s=1, burst=2), lambda: self.now_s)
        self.queue = ActionQueue(TOTAL)
        self.limits = dict(LIMITS)
        self.waiting: list[Waiting] = []
        self.running: list[Waiting] = []

    def admit(self) -> None:
        tokens = self.bucket.available
        admitted = list(self.queue.admitted())
        assert not any(one.withdrawn for one in admitted)
        for one in admitted:
            self.waiting.remove(one)
            self.running.append(one)
        assert sum(one.bucket is not None for one in admitted) <= tokens
        counts = Counter(key for one in self.running for key, _ in one.limits)
        assert all(counts[key] <= self.limits[key] for one in admitted for key, _ in one.limits)
        assert not admitted or sum(not one.is_step for one in self.running) <= TOTAL

    @rule(
        keys=st.sets(st.sampled_from(sorted(LIMITS)), max_size=3),
        rated=st.booleans(),
        priority=st.integers(-1, 1),
        is_step=st.booleans(),
    )
    def arrive(self, keys: set[tuple[str, str]], rated: bool, priority: int, is_step: bool) -> None:
        limits = tuple((key, LIMITS[key]) for key in sorted(keys))
        one = Waiting(limits, self.bucket if rated else None, priority, is_step=is_step)
        self.waiting.append(one)
        self.queue.push(one)
        self.admit()

    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        if self.running:
            one = data.draw(st.sampled_from(self.running))
            self.running.remove(one)
            self.queue.release(one)
            self.admit()

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if self.waiting:
            one = data.draw(st.sampled_from(self.waiting))
            self.waiting.remove(one)
            self.queue.withdraw(one)
            self.admit()

    @rule(key=st.sampled_from(sorted(LIMITS)), places=st.integers(1, 4))
    def limit(self, key: tuple[str, str], places: int) -> None:
        self.limits[key] = places
        self.queue.limit(key, places)
        self.admit()

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.admit()

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Who waits has a reason to: a limit is full, the total is, or there is no token."""
        counts = Counter(key for one in self.running for key, _ in one.limits)
        full = {key for key, limit in self.limits.items() if counts[key] >= limit}
        crowded = sum(not one.is_step for one in self.running) >= TOTAL
        for one in self.waiting:
            blocked = any(key in full for key, _ in one.limits) or (crowded and not one.is_step)
            assert blocked or (one.bucket is not None and not self.bucket.available)


TestLine = Line.TestCase


@given(st.lists(st.integers(-3, 3), max_size=40))
def test_the_more_urgent_and_then_the_older_go_first(priorities: list[int]) -> None:
    """Those that wait for one place get it in order."""
    queue, order = ActionQueue(1), []
    line = [Waiting(priority=priority) for priority in priorities]
    for one in line:
        queue.push(one)
    while (one := next(queue.admitted(), None)) is not None:
        order.append(one)
        queue.release(one)
    assert order == sorted(line, key=lambda one: (-one.priority, one.order))


def test_it_is_told_when_a_rate_lets_the_next_pass() -> None:
    """The wait is what the bucket needs for one token; without anybody in line for a rate there is none."""
    queue, bucket = ActionQueue(9), TokenBucket(Rate(per_s=4), lambda: 0.0)
    assert queue.wait_s() is None
    for _ in range(2):
        queue.push(Waiting(bucket=bucket))
    assert len(list(queue.admitted())) == 1
    assert queue.wait_s() == 0.25
