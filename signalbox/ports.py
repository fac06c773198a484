"""What the core asks of the outside world. `connectors` implements these; `signalbox.plugins` finds them by name.

Each protocol says what it promises and what it does not. Tests use the same protocols with in-memory stand-ins.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from schemas.signal import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One Kafka record as it lies on the broker."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: datetime | None = None


class Outgoing(NamedTuple):
    """One record to write: topic (without prefix), Kafka key, and an encoded signal with its id and type."""

    topic: str
    key: str
    id: str
    type: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic as the broker describes it; `end_offsets` maps a partition to the offset its next record will get."""

    name: str
    partitions: int
    end_offsets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """How far a flow is behind on one partition, in records. `position` is None until the flow has committed once."""

    topic: str
    partition: int
    position: int | None
    end: int

    @property
    def records(self) -> int | None:
        return None if self.position is None else max(0, self.end - self.position)


class Publisher(Protocol):
    """Puts signals on topics. Delivery is checked: what `flush` did not raise for is on the broker."""

    def publish(self, topic: str, signal: Signal[object]) -> None:
        """Queue one signal. Raises `Unreachable` when the queue is full and stays full."""
        ...

    def publish_raw(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Queue one record as it is, such as a replayed one. Otherwise the same as `publish`."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait until every queued signal is acknowledged.

        Raises:
            Unreachable: the broker refused or did not answer in time; the message counts what is undelivered.
        """
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Reads topics without a consumer group; several readers do not disturb each other."""

    def read(
        self,
        topics: Sequence[str],
        *,
        start: "str | datetime",
        follow: bool,
        timeout_s: float | None,
        stop: Callable[[], bool] | None = None,
        caught_up: Callable[[], None] | None = None,
    ) -> Iterator[Record]:
        """Yield records from `start` ("start", "now" or a time). Where to begin is settled before this returns.

        With `follow`, waits for more until `timeout_s` passes or `stop()` turns true; without, ends at what was the
        end of every partition when reading began. When that end is reached, `caught_up` is called once, between two
        records.
        """
        ...


class Admin(Protocol):
    """Asks and arranges things at the broker. Every call raises `Unreachable` when no broker answers."""

    def cluster_id(self) -> str: ...

    def topics(self) -> list[TopicInfo]:
        """Every topic that is not internal, by name, with its end offsets."""
        ...

    def ensure_topics(self, names: Sequence[str], *, partitions: int, replication: int) -> list[str]:
        """Create what is missing, and return the names of those created. Existing topics stay as they are."""
        ...

    def topic_setting(self, name: str, setting: str) -> str | None:
        """A setting of a topic, such as `cleanup.policy`; None where the broker does not say."""
        ...

    def lag(self, group: str, topics: Sequence[str]) -> list[PartitionLag]:
        """How far the positions that `group` has mirrored lie behind the ends of the topics' partitions."""
        ...


class LocalBroker(Protocol):
    """A broker process that this node owns: it dies with its starter, and nothing is left running."""

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs."""
        ...

    def start(self, *, port: int = 0, timeout_s: float = 60.0) -> str:
        """Start on the loopback and return `HOST:PORT` when clients can use it. Port 0 takes a free one.

        Raises:
            ConfigError: it cannot run on this machine; the hint says what to install or use instead.
            Conflict: the port is taken.
            DeadlineExceeded: it did not become ready in time; the message ends with its last log lines.
        """
        ...

    def alive(self) -> bool: ...

    def stop(self) -> None:
        """Stop it, waiting until it is gone; calling it again does nothing."""
        ...
