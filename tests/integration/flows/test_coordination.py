"""Distributed tasks on Apache Kafka: the coordinator learns agents from the registry, and answers once over kills."""

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from schemas.signal import Signal, new_signal
from signalbox.actions.distribute_task import COORDINATOR
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest
from tests.support.worker import PATIENCE_S, System, Worker, task_ids

pytestmark = pytest.mark.kafka
_SEED = 20_261_123


def _distributed(first: int, count: int, *, action: str = "echo", **params: object) -> list[Signal[object]]:
    return [
        new_signal(
            "task.submitted",
            {
                "task_id": f"t{n}",
                "action": "distribute_task",
                "params": {
                    "required_capability": "task_processing",
                    "task": {"action": action, "params": {"value": n, **params}},
                },
            },
            source="test",
            subject=f"order-{n % 50}",
            id=f"signal-{n}",
        )
        for n in range(first, first + count)
    ]


def _coordinator(worker: Worker) -> dict[str, object]:
    return dict(worker.ask("agent", id=COORDINATOR)["state"])


def _lines(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


def _check(system: System, worker: Worker, count: int) -> None:
    """Each task was answered once by the coordinator with its own result, and nothing is under way any more."""
    system.await_answers(task_ids(count))
    worker.await_caught_up()
    system.await_answers(task_ids(count))
    answers = {one.data["task_id"]: one for one in system.signals("results")}
    assert {one.source for one in answers.values()} == {f"agent/{COORDINATOR}"}
    assert {one.type for one in answers.values()} == {"task.completed"}
    assert all(answers[f"t{n}"].subject == f"order-{n % 50}" for n in range(count))
    state = _coordinator(worker)
    assert (state["active_tasks"], state["completed"], state["distributed"]) == ({}, count, count)
    assert system.records("dead-letters") == []


@pytest.mark.parametrize("action", ["echo", "pay"])
def test_a_worker_killed_in_the_middle_costs_no_task_its_one_answer(
    make_system: MakeSystem, tmp_path: Path, action: str
) -> None:
    """Of 200 distributed tasks each is answered once, by its result, though the worker is killed in their middle."""
    system = make_system(node={"app": "tests.support.acting:app"}, flows={"epoch_ms": 50})
    params = {"log": str(tmp_path / "calls"), "takes_s": 0.02} if action == "pay" else {}
    worker = system.start()
    worker.ask("status")
    system.send(_distributed(0, 100, action=action, **params))
    eventually(lambda: system.answers().total() >= 30, timeout_s=PATIENCE_S, every_s=0.005)
    system.send(_distributed(100, 100, action=action, **params))
    worker.kill()
    worker = system.start()
    _check(system, worker, 200)
    delegated = Counter(one.data["task_id"] for one in system.signals("signals") if one.type == "task.delegated")
    assert delegated == Counter(task_ids(200))
    assert worker.drain() == 0


def test_agents_that_stop_while_workers_are_killed_cost_no_task_its_one_answer(
    make_system: MakeSystem, tmp_path: Path
) -> None:
    """Whoever is stopped with tasks under way, and however often the worker is killed meanwhile, answers are single."""
    system = make_system(node={"app": "tests.support.acting:app"}, flows={"epoch_ms": 50})
    log = tmp_path / "calls"
    rng = random.Random(_SEED)
    worker = system.start()
    worker.ask("status")
    for begin in range(0, 200, 50):
        before = _lines(log)
        system.send(_distributed(begin, 50, action="pay", log=str(log), takes_s=0.5))
        eventually(lambda before=before: _lines(log) >= before + 25, timeout_s=PATIENCE_S, every_s=0.005)
        stopped = f"task_agent_{rng.randint(1, 5)}"
        order = new_signal("control.agent.stop", {"agent_id": stopped}, source="test", subject=stopped)
        system.send([order], topic="control")
        wanted = begin + rng.randrange(50)
        eventually(lambda wanted=wanted: system.answers().total() >= wanted, timeout_s=PATIENCE_S, every_s=0.005)
        worker.kill()
        worker = system.start()
    _check(system, worker, 200)
    assert _coordinator(worker)["redelegated"] != 0


def test_one_of_two_workers_killed_costs_no_task_its_one_answer(make_system: MakeSystem) -> None:
    """The coordinator and its agents may live in several processes, one of which is killed."""
    system = make_system(flows={"epoch_ms": 50})
    workers = system.start_cluster(2)
    system.send(_distributed(0, 100))
    eventually(lambda: system.answers().total() >= 30, timeout_s=PATIENCE_S, every_s=0.005)
    workers[1].kill()
    workers[0].kill()  # its process ends by itself when it misses the other one, sooner or later
    system.send(_distributed(100, 100))
    system.start_cluster(2)
    system.await_answers(task_ids(200))


def _kite(version: int) -> Signal[object]:
    """A record of the registry, as another program would write it."""
    record = {"agent_id": "kite", "agent_type": "kite", "kind": "singleton", "capabilities": [f"version-{version}"]}
    record |= {"metadata": {"takes_tasks": True}, "node": "n", "version": "1", "started_at": "2026-01-01T00:00:00Z"}
    return new_signal("agent.registered", record, source="test", subject="kite", id=f"kite-{version}")


def _compact_soon(kafka: BrokerUnderTest, topic: str) -> None:
    """Let the broker close the topic's segments at once, and compact them whenever it looks at them."""
    wanted = {"segment.ms": "10", "min.cleanable.dirty.ratio": "0.001", "min.compaction.lag.ms": "0"}
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in wanted.items()]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for change in client.incremental_alter_configs([resource]).values():
        change.result()


@pytest.mark.slow
def test_a_registry_with_gaps_is_read_on(make_system: MakeSystem, kafka: BrokerUnderTest) -> None:
    """What compaction removed, also right where reading goes on, is passed over, and the latest records are known."""
    system = make_system()
    worker = system.start()
    system.send(_distributed(0, 1))
    system.await_answers(task_ids(1))
    worker.await_caught_up()
    assert worker.drain() == 0
    topic = system.settings.topic("registry")
    _compact_soon(kafka, topic)
    versions = itertools.count(1)
    system.send([_kite(next(versions))], topic="registry")

    def first_is_gone() -> bool:
        system.send([_kite(next(versions))], topic="registry")
        kites = [one for one in system.signals("registry") if one.subject == "kite"]
        return "kite-1" not in {one.id for one in kites}

    eventually(first_is_gone, timeout_s=PATIENCE_S, every_s=0.5)
    latest = next(versions) - 1
    worker = system.start()
    worker.await_caught_up()
    managed = _coordinator(worker)["managed_agents"]
    assert isinstance(managed, dict)
    assert managed.keys() == {"kite", *(f"task_agent_{number}" for number in range(1, 6))}
    assert managed["kite"]["capabilities"] == [f"version-{latest}"]
    system.send(_distributed(1, 2))
    _check(system, worker, 3)
