"""How long a real worker takes to drain and to come back with its agents.

A worker is started on an empty data directory, given one signal per agent, drained with SIGTERM, and started again. It
is back when it answers a signal for an agent it had, and the answer shows that the agent remembered.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from harness.contender import CONTENDERS, Place
from harness.feed import open_producer
from harness.job import PARTITIONS, Reading, partition_of
from harness.running import stop
from harness.topics import OUTPUTS, SINK, SOURCE, Topics
from signalbox.errors import SignalboxError
from signalbox.supervision.inspection import ask, socket_path

_LIMIT_S = 300.0
_LOW, _HIGH = 0.5, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTimes:
    """Seconds from the start of the process to its first answer, with and without agents to restore, and to drain."""

    agents: int
    start_empty_s: float
    drain_s: float
    resume_s: float
    rss_mb: float


def measure(topics: Topics, agents: int, directory: Path) -> WorkerTimes:
    """Run a worker through its life with so many agents."""
    topics.clear()
    topics.create(SOURCE, *OUTPUTS)
    place = Place(bootstrap=topics.bootstrap, source=SOURCE, sink=SINK, directory=directory)
    consumer = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": place.group, "log_level": 0})
    consumer.assign([TopicPartition(SINK, number, 0) for number in range(PARTITIONS)])
    producer = open_producer(topics.bootstrap)
    try:
        with _worker(place) as process:
            start_empty_s = _answered_in_s(producer, consumer, process, seq=0, count=1)
            _fill(producer, agents)
            _wait_for_agents(place, process, agents)
            rss_mb = psutil.Process(process.pid).memory_info().rss / 1e6
            began = time.monotonic()
            process.terminate()
            process.wait(_LIMIT_S)
            drain_s = time.monotonic() - began
        with _worker(place) as process:
            resume_s = _answered_in_s(producer, consumer, process, seq=agents, count=2)
    finally:
        consumer.close()
        topics.clear()
    return WorkerTimes(agents=agents, start_empty_s=start_empty_s, drain_s=drain_s, resume_s=resume_s, rss_mb=rss_mb)


@contextmanager
def _worker(place: Place) -> "Iterator[subprocess.Popen[bytes]]":
    with place.log.open("ab") as log:
        process = subprocess.Popen(
            CONTENDERS["signalbox"].command(),
            env=place.variables(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def _send(producer: Producer, seq: int, subject: str, value: float) -> None:
    reading = Reading(seq, subject, partition_of(subject), value)
    while True:
        try:
            producer.produce(SOURCE, reading.encode(), subject, reading.partition)
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)


def _fill(producer: Producer, agents: int) -> None:
    """One signal for every agent but the one that the first probe made."""
    for number in range(1, agents):
        _send(producer, number, _subject(number), _LOW)
    producer.flush(60)


def _subject(number: int) -> str:
    return f"host-{number:07d}"


def _answered_in_s(
    producer: Producer, consumer: Consumer, process: "subprocess.Popen[bytes]", *, seq: int, count: int
) -> float:
    """Send the first agent a signal over the threshold; seconds from now to its alert, which must tell of `count`."""
    began = time.monotonic()
    _send(producer, seq, _subject(0), _HIGH)
    producer.flush(10)
    while time.monotonic() - began < _LIMIT_S and process.poll() is None:
        message = consumer.poll(0.2)
        value = None if message is None or message.error() else message.value()
        if value is not None:
            told = json.loads(value)["data"]["count"]
            if told != count:
                msg = f"the agent remembers {told} signals instead of {count}"
                raise RuntimeError(msg)
            return time.monotonic() - began
    msg = f"the worker did not answer; exit code {process.poll()}"
    raise RuntimeError(msg)


def _wait_for_agents(place: Place, process: "subprocess.Popen[bytes]", agents: int) -> None:
    path = socket_path(place.directory / "state", "agents-0")
    deadline = time.monotonic() + _LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            # The shipped task agents and monitors are agents as well.
            if ask(path, "status")["agents"] >= agents:
                return
        except SignalboxError:
            pass
        time.sleep(0.1)
    msg = f"the worker did not make {agents} agents; exit code {process.poll()}"
    raise RuntimeError(msg)
