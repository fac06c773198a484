"""What the core asks of the outside world. `connectors` implements these; `signalbox.plugins` finds them by name.

Each protocol says what it promises and what it does not. Tests use the same protocols with in-memory stand-ins.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something in a recovery directory is missing, or not as it was written."""

    file: str
    """Relative to the recovery directory."""
    what: str
    """How it shows."""
    lost: str
    """What cannot be known without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCopy:
    """A copy of a recovery directory, in its folder `copies`. `damages` is empty when it can be used."""

    name: str
    generation: int = 0
    made_at: datetime | None = None
    epoch: int = 0
    size_bytes: int = 0
    damages: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a start had to do. Nothing, if `damages` is empty."""

    damages: tuple[Damage, ...] = ()
    used: str | None = None
    """The copy that was put in place; `beginning` if all state is made again from Kafka."""
    aside: str | None = None
    """Where the damaged files are now, relative to the recovery directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """What a recovery directory holds and how sound it is."""

    directory: Path
    running: bool
    """Whether workers use it at the moment; what changes all the time is then not checked."""
    damages: tuple[Damage, ...]
    copies: tuple[KeptCopy, ...]
    """Newest first."""
    would_use: str | None = None
    """What the next start goes back to, if something is damaged: a copy, `beginning`, or None if nothing is sound."""
    executions: int = 0
    workers: int = 0
    """Of the last execution."""
    epoch: int = 0
    """Where the next execution resumes."""
    groups: int = 0
    engine_bytes: int = 0
    state_bytes: int = 0
    inputs: Mapping[str, int] = field(default_factory=dict)
    """Offset of the next record, by input partition."""
    outputs: Mapping[str, int] = field(default_factory=dict)
    """Offset from which what was written is read back, by output partition."""
    set_aside: tuple[str, ...] = ()
    """Folders of damaged files that were replaced by a copy."""


class RecoveryKeeper(Protocol):
    """Keeps the recovery directory of one flow sound: copies while it is, and goes back to one when it is not."""

    def prepare(self) -> Prepared:
        """To be called before workers start, and by each of them before it reads anything there. Repeating is cheap.

        Raises:
            StateDamaged: it is damaged and no copy is sound; the hint says how to go on.
            Conflict: it is damaged, and workers still use it.
        """
        ...

    def seal(self) -> None:
        """Note how everything is, after all workers have ended; the next `prepare` notices any change by it."""
        ...

    def keep_copy(self, generation: int) -> KeptCopy | None:
        """Copy what a start would resume from, while workers run or not; None if there is nothing yet.

        Raises:
            StateDamaged: what would have to be copied is damaged already.
        """
        ...

    def suspect(self, why: str) -> None:
        """Have the next `prepare` check everything, because somebody met damage."""
        ...

    def report(self) -> RecoveryReport:
        """Check everything, the copies too, and change nothing. It reads all saved state."""
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
