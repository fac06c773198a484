"""The engine's promises about epochs as a plain model, to run a flow's own source, intake and groups by hand.

What it promises, and what a flow's exactness rests on: a partition's epoch ends with its snapshot; nothing of the next
one is taken from it before this one is processed and saved everywhere; a crash goes on from what was saved last. In
between, partitions advance one by one, and what they handed over arrives in order of each partition, and late.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from connectors.kafka.parts import part_name
from connectors.kafka.placement import Placement
from connectors.kafka.rests import Rests
from connectors.kafka.source import KafkaSource, PartState
from connectors.segments import SegmentStore
from flows.intake import Addressed, Intake, Pulse
from flows.operators import GroupLogic, Runtime
from schemas.signal import Signal, decode, encode
from signalbox.agents.plan import Plan, topic_router
from signalbox.agents.pools import PoolSizes
from signalbox.agents.stats import Stats
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.config import TOPICS, Settings

TOPIC = "signals"


class Log:
    """A partition of a topic; records lie on it in the order in which they came."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.values: list[bytes] = []

    def read(self, offset: int, count: int) -> list[Message]:
        """Up to so many records from an offset."""
        return [
            Message(topic=TOPIC, partition=self.partition, offset=at, key=b"", value=self.values[at])
            for at in range(offset, min(offset + count, len(self.values)))
        ]


class Hub:
    """Stands for the consumer of a worker: gives a partition what the model lets it have."""

    epoch_at = 0.0
    saved_at: float | None = None
    epochs = 0

    def __init__(self, logs: Sequence[Log]) -> None:
        self._logs = logs
        self.rests = Rests(epoch_s=1)
        self.most = 0

    def register(self, part: Any) -> None:
        part.end_at_start = len(self._logs[part.partition].values)

    def saved(self, began_s: float) -> None:
        self.saved_at = began_s

    def take(self, part: Any) -> list[Message]:
        return self._logs[part.partition].read(part.position, self.most)


class Engine:
    """One flow over some partitions, each read by a worker of its own, as far as sizes go."""

    def __init__(self, app: App, directory: Path, *, partitions: int, keep: Callable[[str], bool]) -> None:
        """`keep` says which key groups there are; the others get nothing, to save time."""
        self.settings = Settings()
        self.plan = Plan(app, self.settings)
        self.clock = VirtualClock()
        self.logs = [Log(number) for number in range(partitions)]
        self.written: dict[str, Signal[Any]] = {}
        """What has been written by id, oldest first; what is repeated is left out."""
        self.differing: list[tuple[Signal[Any], Signal[Any]]] = []
        """Repeated records that say something else than the first time."""
        self.told = directory / "scaling.json"
        """Where a supervisor leaves the sizes that it wants."""
        self._directory = directory
        self._keep = keep
        self._parts_saved: dict[int, PartState] = {}
        self._groups_saved: dict[str, bytes] = {}
        self._wanted: list[Mapping[str, int]] = [{} for _ in self.logs]
        self._begin()

    # What people do.

    def put(self, partition: int, signal: Signal[Any]) -> None:
        """A signal comes in."""
        self.logs[partition].values.append(encode(signal))

    def resize(self, partition: int, sizes: Mapping[str, int]) -> None:
        """The worker of a partition is told of other sizes."""
        self._wanted[partition] = sizes
        self.pools[partition].resize(sizes)

    # What the engine does.

    def poll(self, partition: int, most: int) -> None:
        """Take what a partition has; nothing if it waits for the others to end their epoch."""
        if partition in self._ended:
            return
        self.hub.most = most
        items = self.parts[partition].next_batch()
        self._in_flight[partition] += [one for one in self.intake.parcels(items) if self._keep(one[0])]

    def deliver(self, partition: int, most: int) -> None:
        """Let so many of the parcels arrive that came from a partition."""
        flying = self._in_flight[partition]
        for key, value in [flying.popleft() for _ in range(min(most, len(flying)))]:
            self._write(self._logic(key).on_batch([value])[0])

    def end_epoch(self, partition: int) -> None:
        """A partition's epoch ends; with the last one, everything is processed and saved."""
        if partition in self._ended:
            return
        self._parts_taken[partition] = self.parts[partition].snapshot()
        self._ended.add(partition)

    def settle(self) -> None:
        """End the epoch of every partition, process what is under way, and save it."""
        for partition in range(len(self.logs)):
            self.end_epoch(partition)
        for partition in range(len(self.logs)):
            self.deliver(partition, len(self._in_flight[partition]))
        self._take_groups()
        self._parts_saved.update(self._parts_taken)
        self._groups_saved.update(self._groups_taken)
        self._ended.clear()

    def wait(self, by: timedelta) -> None:
        """Time passes; groups that want to be woken by then are."""
        wanted = {key: due for key, logic in self.logics.items() if (due := logic.notify_at()) is not None}
        self.clock.advance(by)
        for key, due in wanted.items():
            if due <= self.clock.now():
                self._touched.add(key)
                self._write(self.logics[key].on_notify()[0])

    def crash(self, *, saved_some: bool) -> None:
        """Everything that is not saved is forgotten, whether or not parts of it were written to disk already."""
        if saved_some:
            self._take_groups()
        self._begin()

    def stop(self) -> None:
        """Drain: every partition ends, and so does its last epoch; then everything begins again."""
        self._drain.set()
        for part in self.parts:
            with suppress(StopIteration):
                part.next_batch()
        self.settle()
        self._begin()

    # Within.

    def _begin(self) -> None:
        names = [part_name(TOPIC, log.partition) for log in self.logs]
        self.runtime = Runtime(
            settings=self.settings,
            plan=self.plan,
            topics=topic_router(self.settings.kafka.routes),
            placement=Placement(dict.fromkeys(TOPICS, 4)),
            store=SegmentStore(self._directory / "segments"),
            clock=self.clock,
            stats=Stats(),
            inputs=frozenset(names),
        )
        self._drain = threading.Event()
        self.intake = Intake(self.plan, self.settings, self.runtime.stats)
        self.hub = Hub(self.logs)
        self.pools = [
            PoolSizes(self.plan.pools(), record=self._directory / "pools.json", told=self.told) for _ in self.logs
        ]
        self.parts = []
        for number, sizing in enumerate(self.pools):
            sizing.resize(self._wanted[number])
            starts = {(TOPIC, log.partition): 0 for log in self.logs}
            source = KafkaSource(
                self.settings.kafka, starts=starts, group="g", poll_records=100, drain=self._drain, sizing=sizing
            )
            source.hub = self.hub  # type: ignore[assignment]
            self.parts.append(source.build_part("inputs", names[number], self._parts_saved.get(number)))
        self.logics = {key: GroupLogic(self.runtime, saved) for key, saved in self._groups_saved.items()}
        self._in_flight: list[deque[Addressed]] = [deque() for _ in self.logs]
        self._ended: set[int] = set()
        self._parts_taken: dict[int, PartState] = {}
        self._groups_taken: dict[str, bytes] = {}
        self._touched: set[str] = set()
        for key, value in self.intake.parcels([Pulse.START]):
            if self._keep(key):
                self._write(self._logic(key).on_batch([value])[0])

    def _logic(self, key: str) -> GroupLogic:
        self._touched.add(key)
        if key not in self.logics:
            self.logics[key] = GroupLogic(self.runtime, None)
        return self.logics[key]

    def _take_groups(self) -> None:
        self._groups_taken = {key: self.logics[key].snapshot() for key in self._touched}
        self._touched = set()

    def _write(self, placed: Iterable[tuple[str, Sequence[Any]]]) -> None:
        for _, records in placed:
            for record in records:
                signal = decode(record.value)
                if signal.id not in self.written:
                    self.written[signal.id] = signal
                elif self.written[signal.id].data != signal.data:
                    self.differing.append((self.written[signal.id], signal))
