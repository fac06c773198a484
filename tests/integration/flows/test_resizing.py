"""Pools are resized under load on Apache Kafka while worker processes are killed; what came out is counted."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from schemas.signal import Signal, new_signal
from signalbox.errors import SignalboxError
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.worker import PATIENCE_S, System, Worker, task_ids, tasks

pytestmark = pytest.mark.kafka
SEED = 20_260_202
POOL = "task_agent"
PER_STEP = 400
KILLS = (1, 4)


class Pool:
    """Stands for the supervisor: keeps the wanted size, tells it to the workers, and starts them again."""

    def __init__(self, system: System, workers: int) -> None:
        self._system = system
        self._count = workers
        self._file = system.settings.node.data_dir / "run" / "scaling.json"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.workers: list[Worker] = []

    def want(self, size: int) -> None:
        """Leave the size for workers to come."""
        self._file.write_text(json.dumps({"pools": {POOL: {"size": size}}}))

    def start(self) -> None:
        self.workers = self._system.start_cluster(self._count)

    def resize(self, size: int) -> None:
        """Order the size; workers may be about to die."""
        self.want(size)
        for worker in self.workers:
            worker.ask("resize", pools={POOL: size})

    def await_switched(self, size: int) -> None:
        """Wait until every worker uses this size, and as many members are there."""

        def switched() -> bool:
            told = [worker.ask("status")["pools"][POOL] for worker in self.workers]
            members = self.members()
            return all(one["switched"] and one["size"] == size for one in told) and members == size

        eventually(switched, timeout_s=PATIENCE_S, every_s=0.05)

    def members(self) -> int:
        """How many members there are."""
        listed = [worker.ask("agents", prefix=f"{POOL}_", limit=200)["agents"] for worker in self.workers]
        return sum(map(len, listed))

    def crash(self, victim: int) -> None:
        """SIGKILL of one worker, and then of the rest as a supervisor does; then all are started again."""
        for worker in (self.workers[victim], *self.workers):
            worker.kill()
        self.start()


def _check_order(system: System) -> None:
    """The answers of each subject are in the order of its tasks."""
    told: dict[str, list[int]] = defaultdict(list)
    for signal in system.signals("results"):
        told[signal.subject or ""].append(int(signal.data["task_id"][1:]))
    assert all(numbers == sorted(numbers) for numbers in told.values())


def test_a_pool_resized_under_load_and_kills_answers_each_task_once_and_in_order(make_system: MakeSystem) -> None:
    """From 1 to 100 and back, over and over, with workers killed in between: no task is lost, doubled or reordered."""
    system = make_system(flows={"epoch_ms": 50})
    rng = random.Random(SEED)
    pool = Pool(system, workers=2)
    pool.want(1)
    pool.start()
    sizes = [100, 1, 20, 1, 100, 20]
    for step, size in enumerate(sizes):
        system.send(tasks(step * PER_STEP, PER_STEP))
        pool.resize(size)
        if step in KILLS:
            wanted = (step + rng.random()) * PER_STEP
            eventually(
                lambda wanted=wanted: len(system.records("results")) >= wanted, timeout_s=PATIENCE_S, every_s=0.01
            )
            pool.crash(rng.randrange(2))
        else:
            pool.await_switched(size)
    system.await_answers(task_ids(len(sizes) * PER_STEP))
    pool.await_switched(sizes[-1])
    _check_order(system)
    answered_by = {signal.data["agent_id"] for signal in system.signals("results")}
    assert len(answered_by) > 20


def test_members_finish_their_actions_when_the_pool_shrinks(make_system: MakeSystem, tmp_path: Path) -> None:
    """Tasks under way at the members that go are answered, each once and by one that asked for it, over a kill too."""
    system = make_system(node={"app": "tests.support.acting:app"}, flows={"epoch_ms": 50})
    pool = Pool(system, workers=2)
    pool.want(40)
    pool.start()
    log = str(tmp_path / "calls")
    pool.await_switched(40)
    for wrong in ({POOL: 101}, {POOL: 0}, {"nobody": 5}):
        with pytest.raises(SignalboxError, match=r"cannot have|no pool"):
            pool.workers[0].ask("resize", pools=wrong)
    system.send(_payment(number, log) for number in range(300))
    eventually(lambda: len(system.records("effects")) > 100, timeout_s=PATIENCE_S)
    pool.resize(1)
    pool.crash(1)
    system.await_answers(task_ids(300))
    pool.await_switched(1)
    asked = {one.id: one.data["agent_id"] for one in system.signals("effects") if one.type == "action.requested"}
    done = [one for one in system.signals("results") if one.type == "task.completed"]
    assert len(done) == len(asked) == 300
    assert {one.data["agent_id"] for one in done} == set(asked.values())


def _payment(number: int, log: str) -> Signal[Any]:
    params = {"value": number, "log": log, "takes_s": 1.0}
    data = {"task_id": f"t{number}", "action": "pay", "params": params}
    return new_signal("task.submitted", data, source="test", subject=f"order-{number % 80}", id=f"signal-{number}")
