"""The invariant checker: reads what came out and says what is lost, doubled, out of order or unknown.

It judges ids and state only, never times. `test_checker.py` shows that it notices each fault it is for.
"""

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.signal import Signal, decode

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Written:
    """One signal as it lies on a topic."""

    partition: int
    offset: int
    time_ms: int
    signal: Signal[Any]

    @property
    def place(self) -> str:
        return f"{self.partition}@{self.offset}"


class TopicLog:
    """One topic read from its start, bit by bit; `uncommitted` shows what transactions have taken back, too."""

    def __init__(self, bootstrap: str, topic: str, *, uncommitted: bool = False) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "chaos-check",
                "client.id": "chaos-check",
                "isolation.level": "read_uncommitted" if uncommitted else "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 65_536,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._positions: dict[int, int] = {}

    def read_on(self, *, timeout_s: float) -> Iterator[Written]:
        """What was written since the last call, up to the present end, or as much as can be read in the time."""
        deadline = time.monotonic() + timeout_s
        self._assign()
        unfinished = set(self._positions)
        while unfinished and time.monotonic() < deadline:
            for message in self._consumer.consume(5_000, 0.2):
                if (error := message.error()) is None:
                    written = _written(message)
                    self._positions[written.partition] = written.offset + 1
                    yield written
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition() or 0)
                elif error.fatal():
                    raise KafkaException(error)

    def close(self) -> None:
        self._consumer.close()

    def _assign(self) -> None:
        """Begin behind what was read. Only a fresh assignment makes the client tell again where partitions end."""
        if not self._positions:
            metadata = self._consumer.list_topics(self._topic, timeout=60)
            self._positions = dict.fromkeys(sorted(metadata.topics[self._topic].partitions), 0)
        self._consumer.assign([TopicPartition(self._topic, *place) for place in self._positions.items()])


def _written(message: Message) -> Written:
    value = message.value()
    assert value is not None
    return Written(message.partition() or 0, message.offset() or 0, message.timestamp()[1], decode(value))


@dataclass
class UniqueIds:
    """Whether no id was written twice."""

    seen: set[str] = field(default_factory=set)
    doubled: list[str] = field(default_factory=list)

    def add(self, written: Written) -> None:
        if written.signal.id in self.seen:
            self.doubled.append(f"{written.signal.type} {written.signal.id} at {written.place}")
        self.seen.add(written.signal.id)


class TaskLedger:
    """The answers to tasks whose ids are the numbers from 0, submitted in that order."""

    def __init__(self) -> None:
        self.newest = -1
        """The highest number of a task that was answered."""
        self.times_ms = array("q")
        self.per_agent: Counter[str] = Counter()
        self.problems: dict[str, list[str]] = defaultdict(list)
        self._ids = UniqueIds()
        self._places: dict[int, tuple[int, int]] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def add(self, written: Written) -> None:
        """Take down one record of `results`."""
        signal = written.signal
        if signal.type != "task.completed" or not str(signal.data.get("task_id", "")).isdigit():
            self.problems["unknown"].append(f"{signal.type} {signal.data} at {written.place}")
            return
        number, subject = int(signal.data["task_id"]), signal.subject or ""
        self.newest = max(self.newest, number)
        self.times_ms.append(written.time_ms)
        self.per_agent[signal.data["agent_id"]] += 1
        if number in self._places:
            first = "{}@{}".format(*self._places[number])
            self.problems["duplicated"].append(f"task {number} of {subject} at {first} and {written.place}")
            return
        self._places[number] = (written.partition, written.offset)
        if signal.data["result"] != {"value": number}:
            self.problems["wrong"].append(f"task {number} was answered {signal.data['result']} at {written.place}")
        partition, last = self._last.get(subject, (written.partition, -1))
        if number < last or partition != written.partition:
            self.problems["reordered"].append(f"task {number} of {subject} at {written.place}, after task {last}")
        self._last[subject] = (written.partition, number)
        self._ids.add(written)

    def distinct(self) -> int:
        """How many tasks have an answer."""
        return len(self._places)

    def lost(self, submitted: int) -> list[int]:
        """The tasks without an answer."""
        return [number for number in range(submitted) if number not in self._places]

    def check(self, submitted: int | None = None) -> None:
        """Fail if anything is wrong; with the number of tasks submitted, also if any is lost or none of them."""
        problems = {kind: offenders for kind, offenders in self.problems.items() if offenders}
        if self._ids.doubled:
            problems["same id"] = self._ids.doubled
        if submitted is not None:
            if lost := self.lost(submitted):
                problems["lost"] = [str(number) for number in lost]
            if foreign := [number for number in self._places if number >= submitted]:
                problems["never submitted"] = [str(number) for number in foreign]
        assert not problems, describe(problems)


def describe(problems: dict[str, list[str]]) -> str:
    """What is wrong, with the first few offenders of each kind."""
    return "\n".join(
        f"{kind}: {len(offenders)}\n  " + "\n  ".join(offenders[:_SHOWN]) for kind, offenders in problems.items()
    )


class AlertLedger:
    """The alerts of many subjects: each alert's life, and that no two of one dedup key are open at once."""

    def __init__(self) -> None:
        self.written: list[Written] = []
        self.open: dict[str, str] = {}
        """Dedup key -> id of the open alert."""
        self.state: dict[str, str] = {}
        """Dedup key -> what was told last."""
        self.told: Counter[str] = Counter()
        """How often each subject's alerts were told of."""
        self.problems: dict[str, list[str]] = defaultdict(list)
        self._ids = UniqueIds()
        self._history: dict[str, list[str]] = defaultdict(list)

    def add(self, written: Written) -> None:
        """Take down one record of `alerts`."""
        alert = written.signal.data
        key, alert_id, news = alert["dedup_key"], alert["alert_id"], alert["state"]
        self._ids.add(written)
        self.told[alert["subject"]] += 1
        history = self._history[key]
        history.append(f"{news} {alert_id[:6]} {written.place} {written.time_ms % 1_000_000}")
        open_id = self.open.get(key)
        if news == "raised":
            if open_id == alert_id:
                self._object("raised twice", key)
            elif open_id is not None:
                self._object("two open at once", key)
            self.open[key] = alert_id
        elif open_id != alert_id:
            self._object(f"{news} while not open", key)
        if news == "resolved":
            self.open.pop(key, None)
        self.state[key] = news

    def check(self) -> None:
        """Fail if anything is wrong."""
        problems = {kind: offenders for kind, offenders in self.problems.items() if offenders}
        if self._ids.doubled:
            problems["same id"] = self._ids.doubled
        assert not problems, describe(problems)

    def _object(self, what: str, key: str) -> None:
        self.problems[what].append(f"{key}: " + ", ".join(self._history[key][-8:]))


def doubled_ids(records: Iterable[Written]) -> list[str]:
    """The records whose id was there before."""
    ids = UniqueIds()
    for record in records:
        ids.add(record)
    return ids.doubled
