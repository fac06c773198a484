"""A Kafka broker in memory, behind the ports of `signalbox.ports`.

It keeps what the ports promise: what `flush` did not raise for is on the broker; where a reader begins is settled when
`read` returns. A reader that follows ends when its time is up, which here is at once. There are no consumer groups.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.signal import Signal, decode, encode
from signalbox.errors import NotFound, Unreachable
from signalbox.ids import stable_hash
from signalbox.ports import PartitionLag, Record, TopicInfo

Headers = Sequence[tuple[str, bytes | None]]


class MemoryBroker:
    """Topics and what lies on them.

    Attributes:
        up: a broker that is not up refuses everything with `Unreachable`.
        react: called with topic and signal for every signal published; what it returns is published too.
        positions: the mirrored positions by group, topic and partition.
        topic_settings: what the broker says of its topics, by topic and setting.
    """

    def __init__(self, topics: Sequence[str] = (), *, partitions: int = 2) -> None:
        self.up = True
        self.react: Callable[[str, Signal[Any]], Sequence[tuple[str, Signal[Any]]]] = lambda _topic, _signal: ()
        self.positions: dict[tuple[str, str, int], int] = {}
        self.topic_settings: dict[tuple[str, str], str] = {}
        self._partitions = partitions
        self._topics: dict[str, list[Record]] = {name: [] for name in topics}

    def add(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: datetime | None = None,
    ) -> None:
        """Put a record on a topic, which is made if need be."""
        records = self._topics.setdefault(topic, [])
        partition = stable_hash((key or b"").decode("latin-1")) % self._partitions
        offset = sum(record.partition == partition for record in records)
        records.append(
            Record(
                topic=topic,
                partition=partition,
                offset=offset,
                key=key,
                value=value,
                headers=tuple(headers),
                timestamp=timestamp or datetime.now(UTC),
            )
        )

    def add_signal(self, topic: str, signal: Signal[Any]) -> None:
        """Put a signal on a topic as a publisher would."""
        headers = [("ce_id", signal.id.encode()), ("ce_type", signal.type.encode())]
        self.add(topic, encode(signal), key=signal.key.encode(), headers=headers)

    def records(self, topic: str) -> list[Record]:
        return list(self._topics.get(topic, ()))

    def signals(self, topic: str) -> list[Signal[Any]]:
        return [decode(record.value, record.headers) for record in self.records(topic)]

    def names(self) -> list[str]:
        return sorted(self._topics)

    def check(self) -> None:
        if not self.up:
            msg = "the broker does not answer"
            raise Unreachable(msg, hint="start it")

    def ends(self, topic: str) -> dict[int, int]:
        records = self.records(topic)
        return {one: sum(record.partition == one for record in records) for one in range(self._partitions)}


class MemoryPublisher:
    """Queues, and puts on the broker when flushed."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._queue: list[Callable[[], None]] = []
        self.closed = False

    def publish(self, topic: str, signal: Signal[Any]) -> None:
        self._queue.append(lambda: self._deliver(topic, signal))

    def publish_raw(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self._queue.append(lambda: self._broker.add(topic, value, key=key, headers=headers))

    def flush(self, timeout_s: float) -> None:
        queue, self._queue = self._queue, []  # a flush that raises leaves nothing behind
        self._broker.check()
        for deliver in queue:
            deliver()

    def close(self) -> None:
        self.closed = True

    def _deliver(self, topic: str, signal: Signal[Any]) -> None:
        self._broker.add_signal(topic, signal)
        for other, answer in self._broker.react(topic, signal):
            self._broker.add_signal(other, answer)


class MemoryReader:
    """Reads topics of the broker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def read(
        self,
        topics: Sequence[str],
        *,
        start: str | datetime,
        follow: bool,
        timeout_s: float | None,
        stop: Callable[[], bool] | None = None,
        caught_up: Callable[[], None] | None = None,
    ) -> Iterator[Record]:
        self._broker.check()
        if missing := [topic for topic in topics if topic not in self._broker.names()]:
            msg = f"there is no topic {missing[0]!r}"
            raise NotFound(msg)
        first = {topic: len(self._broker.records(topic)) if start == "now" else 0 for topic in topics}
        since = start if isinstance(start, datetime) else datetime.min.replace(tzinfo=UTC)
        return self._from(first, since, caught_up or (lambda: None))

    def _from(self, first: Mapping[str, int], since: datetime, caught_up: Callable[[], None]) -> Iterator[Record]:
        for topic, at in first.items():
            for record in self._broker.records(topic)[at:]:
                if record.timestamp is not None and record.timestamp >= since:
                    yield record
        caught_up()


class MemoryAdmin:
    """Describes the broker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def cluster_id(self) -> str:
        self._broker.check()
        return "memory"

    def topics(self) -> list[TopicInfo]:
        self._broker.check()
        return [
            TopicInfo(name=name, partitions=len(ends), end_offsets=ends)
            for name in self._broker.names()
            if (ends := self._broker.ends(name))
        ]

    def ensure_topics(self, names: Sequence[str], *, partitions: int, replication: int) -> list[str]:
        self._broker.check()
        missing = [name for name in names if name not in self._broker.names()]
        for name in missing:
            self._broker._topics[name] = []
        return missing

    def topic_setting(self, name: str, setting: str) -> str | None:
        self._broker.check()
        return self._broker.topic_settings.get((name, setting))

    def lag(self, group: str, topics: Sequence[str]) -> list[PartitionLag]:
        self._broker.check()
        positions: Mapping[tuple[str, str, int], int] = self._broker.positions
        return [
            PartitionLag(topic=topic, partition=one, position=positions.get((group, topic, one)), end=end)
            for topic in topics
            for one, end in self._broker.ends(topic).items()
        ]
