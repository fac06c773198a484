"""The input: one engine partition per Kafka partition, fed by one consumer per worker process.

Each partition resumes from its own snapshot, so its offset is exact. A poll's records travel as one `RecordBatch` per
partition; nothing is decoded here. Once a partition has handed over what it held at the start, it says so (`CaughtUp`).
`auto.offset.reset` is `error`: an offset that the broker no longer has stops the flow with a message, it never jumps.
Progress is mirrored to a consumer group for lag tools, which decides nothing.

A snapshot also holds the sizes of the pools that records are spread over, and they change only with a snapshot. The
engine takes nothing of the next epoch from a partition before this one is processed and saved everywhere. So no record
overtakes an earlier one of its key on the way to another member. A crash repeats each record with its own sizes, since
after a start they change only behind everything that the run before can have handed over: a snapshot says how far that
is at most.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, Protocol

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import Message

from connectors.kafka.echo import Echo
from connectors.kafka.hub import ConsumerHub
from connectors.kafka.parts import part_name, split_part
from connectors.kafka.rests import Rests
from signalbox.config import KafkaSettings

#: So far a partition goes in an epoch at most, in offsets, or four times as far as in the one before. A worker manages
#: a third of it in the default epoch.
_REACH = 1_000_000


class RecordBatch(NamedTuple):
    """Records of one partition, oldest first; topic without prefix."""

    topic: str
    partition: int
    messages: list[Message]
    sizes: Mapping[str, int] = MappingProxyType({})
    """Members by pool that these records are spread over; all batches of an epoch share one mapping."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that this partition held when reading began has been handed over."""

    part: str


@dataclass(frozen=True, slots=True)
class Resized:
    """From here on the records of this partition are spread over so many members of each pool."""

    part: str
    sizes: Mapping[str, int]


Item = RecordBatch | Resized | CaughtUp
"""What a partition hands over."""
PartState = tuple[int, Mapping[str, int], int]
"""The snapshot of a partition: the offset to go on from, the sizes of the pools from there on, and an offset that is
behind everything handed over before the next snapshot."""


class Watcher(Protocol):
    """Follows a topic record by record, and says from where it has to be read after a crash."""

    def saw(self, partition: int, records: Iterable[tuple[int, bytes | None]]) -> Set[int]:
        """These records (offset, value) have come. Returns the offsets of those that the flow need not see."""
        ...

    def caught_up(self, partition: int) -> None:
        """Everything that the partition held at the start was seen."""
        ...

    def low_water(self, partition: int, position: int) -> int:
        """The offset to read from after a crash, at most `position`."""
        ...


class Sizing(Protocol):
    """Knows the sizes of pools; `signalbox.agents.pools` is the one."""

    def at_start(self, saved: Mapping[str, int] | None) -> Mapping[str, int]:
        """The sizes by which a partition with this snapshot, or with none, begins."""
        ...

    def wanted(self) -> Mapping[str, int]:
        """The sizes wanted now. It is asked once per partition and epoch."""
        ...


class KafkaSource(FixedPartitionedSource[Item, PartState]):
    """Reads topics from recorded starts.

    Args:
        settings: the broker and the topic prefix.
        starts: topic without prefix and partition -> the offset at which reading begins when nothing was saved.
        group: consumer group that progress is mirrored to.
        poll_records: most records taken from the client at once.
        drain: when set, every partition ends and the flow closes in order.
        watchers: who follows a topic, by its name without prefix. Watched topics are read even while `full`.
        full: whether the flow has as much to do as it can take, and no further records are to be read.
        sizing: the sizes of the pools.
        epoch_s: from one snapshot to the next.
        workers: processes of the flow.
        echo: what this process writes to one of the topics, if no other one does.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        starts: Mapping[tuple[str, int], int],
        group: str,
        poll_records: int,
        drain: threading.Event,
        sizing: Sizing,
        watchers: Mapping[str, Watcher] = MappingProxyType({}),
        full: Callable[[], bool] = lambda: False,
        epoch_s: float = 1.0,
        workers: int = 1,
        echo: Echo | None = None,
    ) -> None:
        self._starts = starts
        self._drain = drain
        self._watchers = watchers
        self._full = full
        self._sizing = sizing
        self.hub = ConsumerHub(settings, group, poll_records, Rests(epoch_s=epoch_s, workers=workers), echo)

    def list_parts(self) -> list[str]:
        return [part_name(topic, partition) for topic, partition in self._starts]

    def build_part(self, step_id: str, for_part: str, resume_state: PartState | None) -> "Partition":
        topic, partition = split_part(for_part)
        start = self._starts[topic, partition]
        state = (start, self._sizing.at_start(None), start + _REACH)
        if resume_state is not None:
            offset, sizes, bound = resume_state
            state = (offset, self._sizing.at_start(sizes), bound)
        watcher = self._watchers.get(topic)
        may_read = (lambda: True) if watcher else (lambda: not self._full())
        return Partition(self.hub, topic, partition, state, self._drain, watcher, may_read, self._sizing.wanted)


class Partition(StatefulSourcePartition[Item, PartState]):
    """One Kafka partition. Its state is the offset of the next record to hand over, and how that is spread."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        hub: ConsumerHub,
        topic: str,
        partition: int,
        state: PartState,
        drain: threading.Event,
        watcher: Watcher | None,
        may_read: Callable[[], bool],
        wanted: Callable[[], Mapping[str, int]],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.position, self._sizes, self._repeated_until = state
        self.saved: int | None = None
        self.mirrored: int | None = None
        self.name = part_name(topic, partition)
        self.waiting: list[Message] = []
        self.is_echoed = False
        """Whether records that this process has written come from their acknowledgements; see `echo.py`."""
        self.fetched = self.position
        """If so, the offset behind all that has come."""
        self.end = self.position
        """Where the partition last ended; the marks of transactions may lie between it and the record before."""
        self.end_at_start: int | None = None
        """Where the partition ended when its first records came, or when its end was first seen."""
        self.told: Mapping[str, int] | None = None
        """The sizes that the flow was last told of."""
        self._wanted = wanted
        self._snapshot_at = self.position
        self._epoch_began_s = time.monotonic()
        self._is_saving = False
        self._ahead: list[Message] = []
        self._ended = False
        self._bound = max(self._repeated_until, self.position + _REACH)
        self.has_caught_up = False
        self._hub = hub
        self._draining = drain.is_set
        self._watcher = watcher
        self._may_read = may_read
        hub.register(self)

    def next_batch(self) -> list[Item]:
        if self._draining():
            self._ended = True
            raise StopIteration
        if self._is_saving:
            self._is_saving = False
            self._hub.saved(self._epoch_began_s)
        batches: list[Item] = []
        if self.told is not self._sizes:
            self.told = self._sizes
            batches.append(Resized(part_name(self.topic, self.partition), self._sizes))
        if self._may_read() and (messages := self._take()):
            self.position = messages[-1].offset() + 1  # type: ignore[operator]  # a delivered record has an offset
            if self._watcher is not None:
                settled = self._watcher.saw(self.partition, [(one.offset() or 0, one.value()) for one in messages])
                messages = [one for one in messages if one.offset() not in settled]
            if messages:
                batches.append(RecordBatch(self.topic, self.partition, messages, self._sizes))
        if self.position < self.end and not self.waiting and not self._ahead:
            self.position = self.fetched = self.end
        if not self.has_caught_up and self.end_at_start is not None and self.position >= self.end_at_start:
            self.has_caught_up = True
            if self._watcher is not None:
                self._watcher.caught_up(self.partition)
            batches.append(CaughtUp(part_name(self.topic, self.partition)))
        return batches

    def _take(self) -> list[Message]:
        """The records to hand over now. What lies behind the bound waits for the next epoch."""
        messages = self._ahead or self._hub.take(self)
        self._ahead = messages if messages and (messages[-1].offset() or 0) >= self._bound else []
        return [] if self._ahead else messages

    def next_awake(self) -> datetime | None:
        if self.told is None:
            return self._hub.rests.first_awake()
        return self._hub.rests.next_awake(self._epoch_began_s)

    def snapshot(self) -> PartState:
        low = self.position if self._watcher is None else self._watcher.low_water(self.partition, self.position)
        self.saved = low
        self._hub.epoch_at = self._epoch_began_s = time.monotonic()
        self._hub.epochs += 1
        self._hub.saved_at = None
        self._is_saving = True
        return low, self._next_sizes(), self._next_bound()

    def _next_sizes(self) -> Mapping[str, int]:
        """The sizes from here on. Nothing is handed over with them before this snapshot is the one to go on from."""
        if self._is_repeated() and (wanted := self._wanted()) != self._sizes:
            self._sizes = wanted
        return self._sizes

    def _next_bound(self) -> int:
        """The offset that is not passed before the next snapshot."""
        at_least = (self._ahead[-1].offset() or 0) + 1 if self._ahead else self.position
        self._bound = at_least + max(_REACH, 4 * (self.position - self._snapshot_at))
        self._snapshot_at = self.position
        if not self._ended:
            return self._bound
        return self.position if self._is_repeated() else self._repeated_until

    def _is_repeated(self) -> bool:
        """Whether everything has been handed over again that a run before can have handed over."""
        return self.has_caught_up or self.position >= self._repeated_until

    def close(self) -> None:
        self._hub.release(self)
