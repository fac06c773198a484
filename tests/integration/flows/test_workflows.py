"""Workflows of actions on Apache Kafka: a worker that is killed in their middle repeats no step that had ended."""

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from schemas.signal import Signal, new_signal
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.lines import whole_lines
from tests.support.worker import PATIENCE_S, task_ids

pytestmark = pytest.mark.kafka
_COUNT = 20


def _workflow(number: int, log: Path) -> Signal[Any]:
    """Two steps that can be undone, and one that fails. Each leaves lines with a value of its own."""

    def pay(value: int, **more: Any) -> dict[str, Any]:
        return {"action": "pay", "params": {"value": 10 * number + value, "log": str(log), "takes_s": 0.05, **more}}

    steps = [
        {"name": "first", **pay(0), "compensation": pay(9)},
        {"name": "second", **pay(1), "compensation": pay(8)},
        {"name": "third", **pay(2, fails=99)},
    ]
    task = {"task_id": f"t{number}", "action": "complex_workflow", "params": {"steps": steps}}
    return new_signal("task.submitted", task, source="test", subject=f"order-{number}", id=f"signal-{number}")


def _calls(log: Path) -> dict[int, list[tuple[float, str]]]:
    """Time and idempotency key of the calls, by value."""
    calls: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for line in whole_lines(log):
        value, key, _, at = line.split()
        calls[int(value)].append((float(at), key))
    return calls


def test_workflows_are_undone_in_order_over_kills(make_system: MakeSystem, tmp_path: Path) -> None:
    """Each failing workflow is answered once as rolled back, and no step is called again after the next one began."""
    system, log = make_system(node={"app": "tests.support.acting:app"}, flows={"epoch_ms": 50}), tmp_path / "calls"
    worker = system.start()
    worker.ask("status")
    system.send([_workflow(number, log) for number in range(_COUNT)])
    for begun in (_COUNT // 2, 3 * _COUNT, 5 * _COUNT):
        eventually(lambda begun=begun: len(_calls(log)) >= min(begun, 5 * _COUNT), timeout_s=PATIENCE_S, every_s=0.002)
        worker.kill()
        worker = system.start()
    system.await_answers(task_ids(_COUNT))
    assert {one.data["error"]["type"] for one in system.signals("results")} == {"rolled_back"}
    calls = _calls(log)
    for number in range(_COUNT):
        order = [calls[10 * number + value] for value in (0, 1, 2, 8, 9)]
        assert all(len({key for _, key in made}) == 1 for made in order)
        assert all(max(before)[0] < min(after)[0] for before, after in itertools.pairwise(order))
