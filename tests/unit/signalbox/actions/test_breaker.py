"""The circuit breaker: against a plain model of its rules, and with threads that all want to probe at once."""

import contextlib
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from signalbox.actions.breaker import Breaker, BreakerOpen, CircuitBreaker, State


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end in any order, and time passes, against a model that keeps every call with its generation."""

    @initialize(
        window=st.integers(1, 6),
        min_calls=st.integers(1, 6),
        ratio=st.sampled_from([0.3, 0.5, 1]),
        probes=st.integers(1, 3),
    )
    def begin(self, window: int, min_calls: int, ratio: float, probes: int) -> None:
        self.policy = Breaker(window, min_calls, ratio, 5.0, probes)
        self.now = 0.0
        self.breaker = CircuitBreaker("bank", self.policy, lambda: self.now)
        self.state, self.generation, self.opened = State.CLOSED, 0, 0.0
        self.calls: list[tuple[int, int]] = []
        self.results: list[bool] = []
        self.probing = 0

    def _become(self, state: State) -> None:
        self.state, self.generation, self.opened = state, self.generation + 1, self.now
        self.results, self.probing = [], 0

    @rule(by=st.sampled_from([0.1, 1.0, 4.9, 5.0]))
    def wait(self, by: float) -> None:
        self.now += by

    @rule()
    def call(self) -> None:
        if self.state is State.OPEN and self.now >= self.opened + self.policy.open_s:
            self._become(State.HALF_OPEN)
        refused = self.state is State.OPEN or (
            self.state is State.HALF_OPEN and self.probing + len(self.results) >= self.policy.probes
        )
        if refused:
            with pytest.raises(BreakerOpen) as caught:
                self.breaker.admit()
            assert caught.value.retry_after_s > 0
            return
        permit = self.breaker.admit()
        self.probing += self.state is State.HALF_OPEN
        self.calls.append((permit, self.generation))

    @rule(which=st.integers(0, 20), ok=st.sampled_from([True, False, False, None]))
    def end(self, which: int, ok: bool | None) -> None:
        if not self.calls:
            return
        permit, generation = self.calls.pop(which % len(self.calls))
        self.breaker.record(permit, ok=ok)
        if generation != self.generation:
            return
        self.probing -= self.state is State.HALF_OPEN
        if ok is None:
            return
        self.results.append(ok)
        if self.state is State.HALF_OPEN:
            if not ok:
                self._become(State.OPEN)
            elif len(self.results) == self.policy.probes:
                self._become(State.CLOSED)
        else:
            seen = self.results[-self.policy.window :]
            too_many = seen.count(False) >= self.policy.failure_ratio * len(seen)
            if not ok and too_many and len(seen) >= self.policy.min_calls:
                self._become(State.OPEN)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state is self.state


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def _opened(probes: int = 3) -> tuple[CircuitBreaker, list[float]]:
    now = [0.0]
    breaker = CircuitBreaker("bank", Breaker(min_calls=2, probes=probes), lambda: now[0])
    for _ in range(2):
        breaker.record(breaker.admit(), ok=False)
    assert breaker.state is State.OPEN
    return breaker, now


def test_it_says_how_long_the_dependency_is_left_alone() -> None:
    """The refusal names the dependency and the time that is left."""
    breaker, now = _opened()
    now[0] = 2.0
    with pytest.raises(BreakerOpen, match=r"bank .* 3\.0 s") as caught:
        breaker.admit()
    assert caught.value.retry_after_s == 3.0


def _ask(breaker: CircuitBreaker, barrier: threading.Barrier, passed: list[int]) -> None:
    barrier.wait()
    with contextlib.suppress(BreakerOpen):
        passed.append(breaker.admit())


def test_exactly_so_many_probes_pass_however_many_threads_ask() -> None:
    """Of many threads that ask a half-open breaker at the same moment, exactly as many pass as there are probes."""
    for _ in range(50):
        breaker, now = _opened(probes=3)
        now[0] = 5.0
        barrier, passed = threading.Barrier(8), list[int]()
        threads = [threading.Thread(target=_ask, args=(breaker, barrier, passed)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(passed) == 3


def test_calls_do_not_wait_for_each_other() -> None:
    """No lock is held during a call: eight threads are inside at the same time."""
    breaker = CircuitBreaker("bank", Breaker(), lambda: 0.0)
    inside = threading.Barrier(8, timeout=5)

    def call() -> None:
        permit = breaker.admit()
        inside.wait()
        breaker.record(permit, ok=True)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside.broken
