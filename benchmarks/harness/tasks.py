"""Sends tasks, at once or on schedule, and collects their results. `python -m harness.tasks JSON` sends.

The sender runs in a process of its own; latency counts from the scheduled time (see `harness.feed`).
"""

import json
import sys
import time
from dataclasses import asdict, dataclass

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from harness.job import PARTITIONS

#: What an action can do wrong; see `contenders.signalbox_tasks`.
BAD = ("block", "come_late", "leave", "leak", "lie")
_SUBJECTS = 1000


class _Data(msgspec.Struct):
    task_id: str


class _Result(msgspec.Struct):
    data: _Data
    type: str


_decode = msgspec.json.Decoder(_Result).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """`count` tasks from number `first` on, each waiting for `seconds`; the i-th leaves at `begin_s + i / rate`."""

    bootstrap: str
    topic: str
    first: int
    count: int
    seconds: float = 0.0
    bad_every: int = 0
    """One in so many runs one of the `BAD` actions; 0 is none."""
    begin_s: float = 0.0
    rate: float = float("inf")

    def due_s(self, number: int) -> float:
        """When the task of this number should leave, by the machine's monotonic clock."""
        return self.begin_s + (number - self.first) / self.rate

    def action(self, number: int) -> str:
        """What the task of this number runs."""
        if self.bad_every and number % self.bad_every == 0:
            return BAD[number // self.bad_every % len(BAD)]
        return "wait"

    def command(self) -> list[str]:
        """Send them from another process."""
        return [sys.executable, "-m", "harness.tasks", json.dumps(asdict(self))]

    def send(self) -> None:
        """Send them; returns when the broker has all."""
        linger_ms = 20 if self.rate == float("inf") else 0
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": linger_ms, "log_level": 0})
        for number in range(self.first, self.first + self.count):
            wait_s = self.due_s(number) - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            producer.produce(self.topic, self._encoded(number), f"order-{number % _SUBJECTS}")
            producer.poll(0)
        producer.flush(60)

    def _encoded(self, number: int) -> bytes:
        return (
            f'{{"specversion":"1.0","id":"s-{number}","source":"bench","type":"task.submitted",'
            f'"subject":"order-{number % _SUBJECTS}","time":"2026-01-01T00:00:00Z","data":'
            f'{{"task_id":"{number}","action":"{self.action(number)}","params":{{"seconds":{self.seconds}}}}}}}'
        ).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """One result: which task it answers, when it was received, and when the broker appended it (Unix seconds)."""

    number: int
    ok: bool
    received_s: float
    appended_s: float


class Answers:
    """Reads a topic of results from its beginning."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-answers", "log_level": 0})
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])

    def next(self, timeout_s: float) -> Answer | None:
        """The next one, if it comes in time."""
        message = self._consumer.poll(timeout_s)
        value = None if message is None or message.error() else message.value()
        if message is None or value is None:
            return None
        result = _decode(value)
        ok = result.type == "task.completed"
        return Answer(int(result.data.task_id), ok, time.monotonic(), message.timestamp()[1] / 1000)

    def close(self) -> None:
        self._consumer.close()


if __name__ == "__main__":
    Tasks(**json.loads(sys.argv[1])).send()
