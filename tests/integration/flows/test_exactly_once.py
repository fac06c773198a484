"""The mode `exactly_once`, with worker processes on Apache Kafka."""

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count

import pytest

from connectors.kafka.reader import KafkaReader
from signalbox.config import TOPICS
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.worker import PATIENCE_S, System, Worker, task_ids, tasks

pytestmark = pytest.mark.kafka
SEED = 20_260_102


def exactly_once(epoch_ms: int) -> dict[str, object]:
    return {"epoch_ms": epoch_ms, "delivery": "exactly_once"}


def written(system: System, topic: str) -> int:
    """Records on a topic, with those of transactions that are open or were taken back."""
    kafka = system.settings.kafka.model_copy(update={"client": {"isolation.level": "read_uncommitted"}})
    reading = KafkaReader(kafka).read([system.settings.topic(topic)], start="start", follow=False, timeout_s=PATIENCE_S)
    return sum(1 for _ in reading)


def doubled(system: System) -> list[str]:
    """The ids that readers see twice on a topic."""
    seen = Counter((topic, one.id) for topic in TOPICS for one in system.signals(topic))
    return [f"{topic}: {id_}" for (topic, id_), times in seen.items() if times > 1]


def test_kills_show_nothing_twice_and_nothing_that_is_taken_back(make_system: MakeSystem) -> None:
    """However often a worker is killed in the middle of an epoch, readers see each answer once; others see more."""
    system = make_system(flows=exactly_once(500))
    rng = random.Random(SEED)
    sent = 0
    worker = system.start()
    while sent < 2000 or written(system, "results") == len(system.records("results")):
        worker.ask("status")
        system.send(tasks(sent, 500))
        sent += 500
        wanted = sent - rng.randrange(1, 400)
        eventually(lambda wanted=wanted: written(system, "results") >= wanted, timeout_s=PATIENCE_S, every_s=0.01)
        worker.kill()
        worker = system.start()
    system.await_answers(task_ids(sent))
    worker.await_caught_up()
    assert written(system, "results") > sent
    assert worker.drain() == 0
    assert doubled(system) == []


def frozen_in_an_epoch(system: System, workers: Sequence[Worker], sent: Iterable[int]) -> int:
    """Give the workers tasks, and stop them when answers are written and not yet shown; returns how many tasks."""
    for begin in sent:
        system.send(tasks(begin, 100))
        time.sleep(0.05)
        for worker in workers:
            worker.process.send_signal(signal.SIGSTOP)
        if written(system, "results") > len(system.records("results")):
            return begin + 100
        for worker in workers:
            worker.process.send_signal(signal.SIGCONT)
    raise AssertionError


@pytest.mark.parametrize("size", [1, 2])
def test_workers_that_wake_up_after_their_successor_write_nothing(make_system: MakeSystem, size: int) -> None:
    """Workers that stood still while another took over, elsewhere, end and say why; nothing of theirs is ever seen."""
    system = make_system(flows=exactly_once(1000))
    zombies = system.start_cluster(size) if size > 1 else [system.start()]
    system.send(tasks(0, 100))
    system.await_answers(task_ids(100))
    sent = frozen_in_an_epoch(system, zombies, count(100, 100))
    shown = len(system.records("results"))
    # As on another host: no lock of the data directory keeps the two apart.
    data = system.settings.node.data_dir
    shutil.copytree(data, data.with_name("elsewhere"), ignore=shutil.ignore_patterns("*.sock"))
    successors = make_system(data_dir="elsewhere", flows=exactly_once(1000))
    successor = successors.start()
    system.await_answers(task_ids(sent))
    assert shown < sent
    system.send(tasks(sent, 100))
    for zombie in zombies:
        zombie.process.send_signal(signal.SIGCONT)
    codes = [zombie.await_exit() for zombie in zombies]
    assert codes == [7] if size == 1 else 0 not in codes
    assert any("may not write any more" in line["event"] for zombie in zombies for line in zombie.logged())
    system.await_answers(task_ids(sent + 100))
    successor.await_caught_up()
    assert successor.drain() == 0
    assert doubled(system) == []
