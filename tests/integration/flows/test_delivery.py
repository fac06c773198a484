"""A crash costs nothing: real worker processes on Apache Kafka are killed, drained, frozen out and repeated."""

import json
import random
import re
from collections import Counter, defaultdict
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.brokers.apache import ApacheKafka
from connectors.kafka.admin import KafkaAdmin
from flows.assembly import consumer_group
from schemas.signal import Signal, new_signal
from signalbox.agents.plan import Plan
from signalbox.app import default_app
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest
from tests.support.worker import PATIENCE_S, System, Worker, task_ids, tasks

pytestmark = pytest.mark.kafka
SEED = 20_260_101


def _additions(count: int, subjects: int = 40) -> list[Signal[Any]]:
    """Numbered additions; with the subject's number of the addition as its place."""
    return [new_signal("tally.add", n, source="test", subject=f"s{n % subjects}", id=f"add-{n}") for n in range(count)]


def _check_tallies(system: System, sent: list[Signal[Any]]) -> None:
    """Every agent has numbered its signals 1, 2, 3 in the order in which they were sent, each exactly once."""
    expected: dict[str, list[int]] = defaultdict(list)
    for signal in sent:
        expected[signal.subject or ""].append(signal.data)
    told: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for signal in system.signals("alerts"):
        if signal.type == "alert.tally":
            told[signal.subject or ""].append(tuple(signal.data[name] for name in ("number", "value", "total")))
    assert sum(map(len, told.values())) >= len(sent), f"{sum(map(len, told.values()))} of {len(sent)}"
    for subject, values in expected.items():
        totals = [sum(values[: n + 1]) for n in range(len(values))]
        assert told[subject] == list(zip(range(1, len(values) + 1), values, totals, strict=True))
    assert told.keys() == expected.keys()


def _task_counts(system: System, worker: Worker, count: int) -> None:
    """The pool's counters are those of an oracle that places each task by its subject."""
    plan = Plan(default_app, system.settings)
    kind = plan.kind("task_agent")
    assert kind is not None
    expected = Counter(place[0] for one in tasks(0, count) if (place := kind.place(one.subject, one.id)))

    def as_expected() -> bool:
        found = {name: worker.ask("agent", id=name).get("state", {}) for name in kind.declared()}
        counts = {name: state.get("processed_count", 0) for name, state in found.items()}
        assert counts == {name: expected[name] for name in kind.declared()}
        return True

    eventually(as_expected, timeout_s=PATIENCE_S)


def test_random_kills_lose_and_double_nothing(make_system: MakeSystem) -> None:
    """However often a worker is killed, each agent handles each signal once and in order, and nothing is told twice."""
    system = make_system(node={"app": "tests.support.tally:app"}, flows={"epoch_ms": 30})
    rng = random.Random(SEED)
    sent = _additions(12_000)
    worker = system.start()
    worker.ask("status")
    for begin in range(0, len(sent), 2000):
        system.send(sent[begin : begin + 2000])
        if begin >= 2000:
            wanted = begin * rng.random()
            eventually(lambda wanted=wanted: len(system.records("alerts")) >= wanted, timeout_s=PATIENCE_S)
            worker.kill()
            worker = system.start()
    eventually(lambda: _check_tallies(system, sent) is None, timeout_s=PATIENCE_S, every_s=0.2)
    assert worker.drain() == 0
    _check_tallies(system, sent)


def test_kills_in_quick_succession_lose_and_double_nothing(make_system: MakeSystem) -> None:
    """A crash while the work of an earlier crash is being repeated doubles nothing either."""
    system = make_system(node={"app": "tests.support.tally:app"}, flows={"epoch_ms": 20, "poll_records": 200})
    sent = _additions(8_000, subjects=400)
    system.send(sent)
    rng = random.Random(SEED)
    for _ in range(5):
        worker = system.start()
        before = len(system.records("alerts"))
        wanted = before + rng.choice([1, 300, 900])
        eventually(
            lambda wanted=wanted: len(system.records("alerts")) >= min(wanted, len(sent)),
            timeout_s=PATIENCE_S,
            every_s=0.005,
        )
        worker.kill()
    last = system.start()
    eventually(lambda: _check_tallies(system, sent) is None, timeout_s=PATIENCE_S, every_s=0.2)
    assert last.drain() == 0
    _check_tallies(system, sent)


def test_tasks_are_answered_once_and_counted_once_over_kills(system: System) -> None:
    """Every task has exactly one answer, and the agents' counters equal those of a run without crashes."""
    worker = system.start()
    for number in range(3):
        system.send(tasks(number * 500, 500))
        eventually(lambda number=number: system.answers().total() > number * 500 + 50, timeout_s=PATIENCE_S)
        worker.kill()
        worker = system.start()
    system.await_answers(task_ids(1500))
    worker.await_caught_up()
    _task_counts(system, worker, 1500)


def test_a_crash_before_the_first_snapshot_costs_nothing(make_system: MakeSystem) -> None:
    """A worker that dies before its first save begins again where the data directory began, and repeats no output."""
    system = make_system(flows={"epoch_ms": 600_000})
    system.send(tasks(0, 100))
    for killed_after in (1, 60):
        worker = system.start()
        eventually(lambda wanted=killed_after: system.answers().total() >= wanted, timeout_s=PATIENCE_S)
        worker.kill()
    worker = system.start()
    system.send(tasks(100, 100))
    system.await_answers(task_ids(200))
    worker.await_caught_up()
    _task_counts(system, worker, 200)


def test_timers_survive_a_kill(make_system: MakeSystem) -> None:
    """A timer set before a crash fires once after it, though no signal comes for its agent any more."""
    system = make_system(node={"app": "tests.support.tally:app"})
    worker = system.start()
    system.send([new_signal("tally.remind", 2.0, source="test", subject=f"s{n}", id=f"remind-{n}") for n in range(20)])
    worker.await_caught_up()
    eventually(lambda: worker.ask("agent", id="tally:s3").get("timers"), timeout_s=PATIENCE_S)
    worker.kill()
    assert len(system.records("alerts")) < 20
    worker = system.start()
    eventually(lambda: len(system.records("alerts")) >= 20, timeout_s=PATIENCE_S)
    assert worker.drain() == 0
    assert Counter(signal.subject for signal in system.signals("alerts")) == Counter(f"s{n}" for n in range(20))


def test_a_drain_is_quick_and_shows_no_lag(make_system: MakeSystem, kafka: BrokerUnderTest) -> None:
    """SIGTERM ends a busy worker with 0 well within five seconds; its consumer group then shows just what is left."""
    system = make_system(telemetry={"flush_s": 60})  # so that the worker itself adds nothing meanwhile
    worker = system.start()
    system.send(tasks(0, 300))
    worker.await_caught_up()
    assert worker.drain(timeout_s=5) == 0
    topics = [system.settings.topic(name) for name in ("signals", "control")]
    lags = KafkaAdmin(system.settings.kafka).lag(consumer_group(system.settings, "agents"), topics)
    assert {lag.records for lag in lags} == {0}
    assert len(lags) == 8
    system.send(tasks(300, 100))
    lags = KafkaAdmin(system.settings.kafka).lag(consumer_group(system.settings, "agents"), topics)
    assert sum(lag.records or 0 for lag in lags) == 100
    again = system.start()
    system.await_answers(task_ids(400))
    assert again.drain(timeout_s=5) == 0


def test_a_drain_under_load_loses_nothing(system: System) -> None:
    """A worker that is drained in the middle of a backlog saves its place, and the next one goes on from there."""
    for number in range(3):
        system.send(tasks(number * 2000, 2000))
        worker = system.start()
        eventually(
            lambda number=number: len(system.records("results")) > number * 2000, timeout_s=PATIENCE_S, every_s=0.005
        )
        assert worker.drain(timeout_s=5) == 0
    system.start()
    system.await_answers(task_ids(6000))


def test_two_workers_share_the_work_and_answer_once(system: System) -> None:
    """Processes of a cluster share partitions and agents; if one is killed, its peer ends too, and both go on later."""
    workers = system.start_cluster(2)
    system.send(tasks(0, 600))
    system.await_answers(task_ids(600))
    positions = [set(worker.ask("status")["positions"]) for worker in workers]
    assert positions[0].isdisjoint(positions[1])
    assert {name.rpartition("-")[0] for name in positions[0]} == {"signals", "control", "effects", "registry"}
    assert len(positions[0] | positions[1]) == 16
    assert all(worker.ask("status")["agents"] > 0 for worker in workers)
    workers[1].kill()
    assert workers[0].await_exit() != 0
    workers = system.start_cluster(2)
    system.send(tasks(600, 600))
    system.await_answers(task_ids(1200))
    for worker in workers:
        worker.process.terminate()
    assert [worker.await_exit(10) for worker in workers] == [0, 0]
    one = system.start()
    one.await_caught_up()
    _task_counts(system, one, 1200)


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(make_system: MakeSystem, own_kafka: ApacheKafka) -> None:
    """While the broker is away the worker waits; when it is back the work goes on, nothing lost and nothing doubled."""
    bootstrap = own_kafka.start()
    system = make_system(bootstrap=bootstrap, node={"app": "tests.support.tally:app"})
    worker = system.start()
    sent = _additions(6000)
    system.send(sent[:3000])
    eventually(lambda: len(system.records("alerts")) > 300, timeout_s=PATIENCE_S, every_s=0.01)
    own_kafka.kill()
    own_kafka.start(port=int(bootstrap.rpartition(":")[2]))
    system.send(sent[3000:])
    eventually(lambda: _check_tallies(system, sent) is None, timeout_s=PATIENCE_S, every_s=0.2)
    assert worker.alive(), worker.tail()
    assert worker.drain() == 0
    _check_tallies(system, sent)


def test_an_offset_out_of_retention_stops_with_advice(system: System) -> None:
    """When the broker has dropped what comes next, the worker ends with 3 and says what to do; it never jumps."""
    worker = system.start()
    system.send(tasks(0, 50))
    system.await_answers(task_ids(50))
    worker.await_caught_up()
    assert worker.drain() == 0
    system.send(tasks(50, 100))
    ends = {info.name: info.end_offsets for info in KafkaAdmin(system.settings.kafka).topics()}
    topic = system.settings.topic("signals")
    trimmed = [TopicPartition(topic, partition, end) for partition, end in ends[topic].items()]
    admin = AdminClient({"bootstrap.servers": system.settings.kafka.bootstrap})
    for future in admin.delete_records(trimmed).values():
        future.result(PATIENCE_S)
    system.send(tasks(150, 100))
    worker = system.start()
    assert worker.await_exit() == 3
    error = worker.logged()[-1]
    assert topic in error["error"]
    assert re.search(r"so the \d+ records from \d+ to \d+ are lost to this flow", error["error"])
    assert "offset" in error["error"]
    assert "recovery directory" in error["hint"]
    assert system.answers().total() == 50


def test_a_data_directory_belongs_to_one_cluster(
    make_system: MakeSystem, embedded: BrokerUnderTest, topic_prefix: str
) -> None:
    """A data directory made with one Kafka cluster is refused at another, with 7, before anything is read."""
    system = make_system()
    worker = system.start()
    worker.ask("status")
    assert worker.drain() == 0
    other = make_system(bootstrap=embedded.bootstrap)
    worker = other.start()
    assert worker.await_exit() == 7
    error = worker.logged()[-1]
    assert "belongs to Kafka cluster" in error["error"]
    assert "another --data-dir" in error["hint"]


def test_missing_topics_and_a_missing_broker_are_said_clearly(make_system: MakeSystem) -> None:
    """Without its topics a worker ends with 5, without a broker with 4, and says what to do about it."""
    system = make_system()
    kafka = {"bootstrap": system.settings.kafka.bootstrap, "topic_prefix": "nowhere-"}
    system.settings = system.settings.model_copy(update={"kafka": system.settings.kafka.model_copy(update=kafka)})
    worker = system.start()
    assert worker.await_exit() == 5
    assert "nowhere-signals" in worker.logged()[-1]["error"]
    assert "signalbox up" in worker.logged()[-1]["hint"]
    away = {"bootstrap": "127.0.0.1:9"}
    system.settings = system.settings.model_copy(update={"kafka": system.settings.kafka.model_copy(update=away)})
    worker = system.start()
    assert worker.await_exit() == 4
    assert "127.0.0.1:9" in worker.logged()[-1]["error"]


def test_damaged_state_is_never_passed_over(make_system: MakeSystem) -> None:
    """A worker that finds a piece of its state damaged says which and ends with 8; the next one mends it, without loss.

    There is no copy yet, so that all state is made again, and what was told before is not told twice.
    """
    system = make_system(node={"app": "tests.support.tally:app"})
    worker = system.start()
    sent = _additions(400)
    system.send(sent)
    eventually(lambda: _check_tallies(system, sent) is None, timeout_s=PATIENCE_S)
    assert worker.drain() == 0
    segments = sorted((system.settings.node.data_dir / "recovery" / "agents" / "segments").glob("*/*.seg"))
    damaged = next(path for path in segments if b"tally:" in path.read_bytes())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    worker = system.start()
    assert worker.await_exit() == 8
    assert str(damaged) in worker.logged()[-1]["error"]
    worker = system.start()
    worker.await_caught_up()
    assert worker.ask("agent", id="tally:s1")["state"]["count"] == 10
    assert worker.drain() == 0
    _check_tallies(system, sent)


def test_state_is_readable_over_the_socket(make_system: MakeSystem) -> None:
    """A worker tells its agents, their state and timers, and that one is missing, while it works."""
    system = make_system(node={"app": "tests.support.tally:app"})
    worker = system.start()
    system.send(_additions(80))
    system.send([new_signal("tally.remind", 600.0, source="test", subject="s1", id="r")])
    worker.await_caught_up()
    agent = worker.ask("agent", id="tally:s1")
    assert (agent["type"], agent["status"], agent["state"]["count"]) == ("tally", "running", 2)
    assert [timer["type"] for timer in agent["timers"]] == ["tally.reminder"]
    assert worker.ask("agent", id="tally:nobody") == {"missing": True}
    listed = worker.ask("agents", prefix="tally:s1", limit=5)["agents"]
    assert [one["agent_id"] for one in listed] == ["tally:s1", *(f"tally:s{n}" for n in range(10, 14))]
    # 40 tallies, the declared agents, and the monitor of the worker itself, which comes with its first report.
    eventually(lambda: worker.ask("status")["agents"] == 40 + 6 + 1, timeout_s=PATIENCE_S)
    assert json.dumps(worker.ask("status"))
