"""A worker is killed at each point of an action's life, and the other side counts the calls that it got."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.signal import new_signal
from signalbox.durable import write_at_once
from tests.support.bad_server import BadServer
from tests.support.dying import ORDER_FILE, Point
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest
from tests.support.worker import PATIENCE_S, System

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

#: How often the other side is called. Twice only where nobody can know whether the first call was made.
EXPECTED = {
    Point.REQUEST_DECIDED: 1,
    Point.REQUEST_WRITTEN: 1,
    Point.EFFECT_BEGINS: 1,
    Point.EFFECT_DONE: 2,
    Point.OUTCOME_UNWRITTEN: 2,
    Point.OUTCOME_WRITTEN: 1,
    Point.ANSWER_UNWRITTEN: 1,
    Point.ANSWER_WRITTEN: 1,
}


class Shop:
    """One system, the shop that it calls, and a file that ends its worker at a point."""

    def __init__(self, system: System, server: BadServer, order: Path) -> None:
        self.system = system
        self.server = server
        self.order = order
        self.worker = system.start()
        self.count = 0

    def buy(self, action: str, point: Point, wait_s: float) -> str:
        """Have one task done whose worker is killed at `point`; gives the item it was about."""
        self.worker.await_caught_up()  # else it may die of repeating what came before
        time.sleep(wait_s)  # at any distance from a snapshot
        self.count += 1
        item = f"{point}-{self.count}"
        write_at_once(self.order, point.encode())
        params = {"item": item, "url": self.server.url}
        data = {"task_id": item, "action": action, "params": params}
        self.system.send([new_signal("task.submitted", data, source="test", subject=item, id=f"signal-{item}")])
        assert self.worker.await_exit() == -signal.SIGKILL
        assert not self.order.exists()
        self.worker = self.system.start()
        eventually(lambda: self.system.answers()[item] == 1, timeout_s=PATIENCE_S, every_s=0.1)
        return item

    def calls(self, item: str) -> list[tuple[str, str]]:
        """Path behind the item's, and idempotency key, of each call about it."""
        prefix = f"/{item}"
        return [
            (call.path.removeprefix(prefix).lstrip("/"), call.key or "")
            for call in self.server.calls
            if call.path == prefix or call.path.startswith(f"{prefix}/")
        ]


@pytest.fixture
def shop(kafka: BrokerUnderTest, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    order = tmp_path / "die-at"
    monkeypatch.setenv(ORDER_FILE, str(order))
    system = System(
        kafka.bootstrap,
        topic_prefix,
        tmp_path / "data",
        node={"app": "tests.support.dying:app"},
        flows={"epoch_ms": 200},
        actions={"http": {"allow_private": True}},
    )
    with BadServer() as server:
        try:
            yield Shop(system, server, order)
        finally:
            system.close()


def _times(rounds: int) -> int:
    """How often to kill at each point: once in the short form, twenty times in fifty rounds."""
    return max(1, (rounds - 5) * 20 // 45)


def test_each_point_has_its_only_outcome(
    shop: Shop, rounds: int, rng: random.Random, summarize: Callable[[str], None]
) -> None:
    """No call with a journaled outcome is made again, a repeat has the same key, and each task is answered once."""
    each = _times(rounds)
    points = [point for point in EXPECTED for _ in range(each)]
    rng.shuffle(points)
    bought = [(point, shop.buy("pay", point, rng.uniform(0, 0.3))) for point in points]
    seen: dict[Point, Counter[int]] = {point: Counter() for point in EXPECTED}
    results = {one.data["task_id"]: one.data for one in shop.system.signals("results")}
    for point, item in bought:
        calls = shop.calls(item)
        assert len({key for _, key in calls}) == 1
        assert results[item]["result"] == item
        assert results[item]["attempts"] >= len(calls)
        seen[point][len(calls)] += 1
    found = ", ".join(f"{point}: {dict(counts)}" for point, counts in seen.items())
    summarize(f"killed at each point {each} times; calls: tasks with so many: {found}")
    assert seen == {point: {calls: each} for point, calls in EXPECTED.items()}
    assert set(shop.system.answers().values()) == {1}


@pytest.mark.parametrize(("point", "repeats"), [(Point.UNDO_UNWRITTEN, 1), (Point.UNDO_WRITTEN, 0)])
def test_a_compensation_goes_on_where_it_was(
    shop: Shop, rounds: int, rng: random.Random, summarize: Callable[[str], None], point: Point, repeats: int
) -> None:
    """In the middle of undoing, what was undone and journaled stays so, and the order is kept."""
    each = _times(rounds)
    for _ in range(each):
        item = shop.buy("order", point, rng.uniform(0, 0.3))
        calls = shop.calls(item)
        undone = ["undo-second"] * (1 + repeats)
        assert [path for path, _ in calls] == ["first", "second", *undone, "undo-first"]
        assert len({key for path, key in calls if path == "undo-second"}) == 1
    failed = [one.data for one in shop.system.signals("results")]
    assert {one["error"]["type"] for one in failed} == {"rolled_back"}
    summarize(f"killed at {point}, {each} times: {1 + repeats} calls of the first compensation, 1 of the second")
