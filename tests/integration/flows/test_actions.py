"""Actions with effects on Apache Kafka: many at once, and each as often as promised when workers are killed."""

import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from schemas.signal import Signal, new_signal
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.lines import whole_lines
from tests.support.worker import PATIENCE_S, System, task_ids

pytestmark = pytest.mark.kafka
_APP = {"app": "tests.support.acting:app"}
_SEED = 20_260_102


def _tasks(first: int, count: int, log: Path, *, action: str = "pay", **params: Any) -> list[Signal[Any]]:
    return [
        new_signal(
            "task.submitted",
            {"task_id": f"t{n}", "action": action, "params": {"value": n, "log": str(log), **params}},
            source="test",
            subject=f"order-{n % 50}",
            id=f"signal-{n}",
        )
        for n in range(first, first + count)
    ]


def _calls(log: Path) -> dict[int, list[tuple[str, int, float]]]:
    """By value: idempotency key, attempt and time of each call."""
    calls: dict[int, list[tuple[str, int, float]]] = defaultdict(list)
    for line in whole_lines(log):
        value, key, attempt, at = line.split()
        calls[int(value)].append((key, int(attempt), float(at)))
    return calls


def _outcomes(system: System) -> list[Signal[Any]]:
    return [one for one in system.signals("effects") if one.type in ("action.completed", "action.failed")]


def _check_calls(system: System, log: Path, count: int) -> int:
    """Each task was called for under one key, never again after its outcome was written; returns the repeats."""
    calls = _calls(log)
    assert calls.keys() == set(range(count))
    keys = {value: {key for key, _, _ in made} for value, made in calls.items()}
    assert all(len(used) == 1 for used in keys.values())
    written = {one.data["instruction_id"]: one.time for one in _outcomes(system)}
    assert written.keys() == {key for used in keys.values() for key in used}
    late = [value for value, made in calls.items() for key, _, at in made if at > written[key].timestamp() + 0.002]
    assert late == []
    return sum(len(made) - 1 for made in calls.values())


def test_hundreds_of_actions_wait_at_the_same_time(make_system: MakeSystem, tmp_path: Path) -> None:
    """A thousand tasks that wait for a second each are answered in a few seconds by one worker, with the results."""
    system, log = make_system(node=_APP), tmp_path / "calls"
    worker = system.start()
    worker.ask("status")
    began = time.monotonic()
    system.send(_tasks(0, 1000, log, takes_s=1.0))
    system.await_answers(task_ids(1000))
    assert time.monotonic() - began < 20
    assert _check_calls(system, log, 1000) == 0
    results = {one.data["task_id"]: one.data for one in system.signals("results")}
    assert all(results[f"t{n}"]["result"] == {"paid": n} for n in range(1000))
    assert all(result["duration_ms"] >= 1000 for result in results.values())


@pytest.mark.parametrize("action", ["pay", "pay_blocking"])
def test_kills_neither_forget_an_action_nor_repeat_a_known_one(
    make_system: MakeSystem, tmp_path: Path, action: str
) -> None:
    """However often the worker is killed, each task is answered once, and no call is made again after its outcome."""
    system = make_system(node=_APP, flows={"epoch_ms": 50}, actions={"max_restarts": 10})
    log = tmp_path / "calls"
    rng = random.Random(_SEED)
    worker = system.start()
    worker.ask("status")
    count = 0
    for _ in range(6):
        system.send(_tasks(count, 100, log, action=action, takes_s=0.05))
        wanted = count + rng.randrange(100)
        count += 100
        eventually(lambda wanted=wanted: len(_calls(log)) >= wanted, timeout_s=PATIENCE_S, every_s=0.005)
        worker.kill()
        worker = system.start()
    system.await_answers(task_ids(count))
    _check_calls(system, log, count)
    attempts = [[attempt for _, attempt, _ in made] for made in _calls(log).values()]
    assert all(made == sorted(set(made)) for made in attempts)
    assert {one.type for one in system.signals("results")} == {"task.completed"}
    assert Counter(one.data["instruction_id"] for one in _outcomes(system)).most_common(1)[0][1] == 1
    assert worker.drain() == 0
    system.await_answers(task_ids(count))


def test_what_a_drain_cuts_short_goes_on_after_the_start(make_system: MakeSystem, tmp_path: Path) -> None:
    """SIGTERM gives actions their grace; what does not end within it is done after the next start."""
    system, log = make_system(node=_APP, actions={"grace_s": 0.2}), tmp_path / "calls"
    worker = system.start()
    system.send(_tasks(0, 20, log, takes_s=0.01) + _tasks(20, 20, log, takes_s=3.0))
    eventually(lambda: len(_calls(log)) == 40 and system.answers().total() == 20, timeout_s=PATIENCE_S)
    assert worker.drain() == 0
    system.start()
    system.await_answers(task_ids(40))
    assert _check_calls(system, log, 40) == 20


def test_an_action_that_kills_its_process_is_given_up(make_system: MakeSystem, tmp_path: Path) -> None:
    """A call in whose middle the process ends again and again is answered as poisoned, and its neighbours are done."""
    system, log = make_system(node=_APP, actions={"max_restarts": 4}), tmp_path / "calls"
    system.send(_tasks(0, 1, log, action="die") + _tasks(1, 30, log, takes_s=0.01))
    for _ in range(5):
        worker = system.start()
        assert worker.await_exit() == 9
    system.start()
    system.await_answers(task_ids(31))
    assert len(_calls(log)[0]) == 5
    (failed,) = [one.data for one in system.signals("results") if one.type == "task.failed"]
    assert (failed["task_id"], failed["error"]["type"]) == ("t0", "poisoned")


def test_errors_that_pass_are_tried_again(make_system: MakeSystem, tmp_path: Path) -> None:
    """A call that fails twice is made a third time under the same key, and the answer tells of three attempts."""
    system, log = make_system(node=_APP), tmp_path / "calls"
    system.start()
    system.send(_tasks(0, 1, log, fails=2) + _tasks(1, 1, log, fails=9))
    system.await_answers(task_ids(2))
    results = {one.data["task_id"]: one for one in system.signals("results")}
    assert (results["t0"].type, results["t0"].data["attempts"]) == ("task.completed", 3)
    assert (results["t1"].type, results["t1"].data["attempts"]) == ("task.failed", 4)
    assert results["t1"].data["error"] == {"type": "not_yet", "message": "not yet", "retryable": True}
    assert [attempt for _, attempt, _ in _calls(log)[0]] == [1, 2, 3]
    assert len({key for key, _, _ in _calls(log)[0]}) == 1


def test_a_worker_reports_its_resources_even_without_actions(make_system: MakeSystem) -> None:
    """An app with no action that has an effect tells the monitor of its resources all the same."""
    system = make_system(node={"app": "tests.support.acting:without_effects"}, telemetry={"flush_s": 0.1})
    system.start()
    told = eventually(lambda: system.signals("signals"), timeout_s=PATIENCE_S, every_s=0.2)
    assert {one.type for one in told} == {"system.resources.metrics"}
