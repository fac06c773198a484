"""The parts of a flow that need the engine: a key group as keyed state, and the pulse that starts and paces a flow.

State is saved as a base and the changes since (`connectors.segments`); what the engine itself keeps per group is the
list of those pieces.

Timers wait until every input has handed over what it held when the flow started: what a crash makes the flow repeat has
then happened, and a timer cannot slip in front of a signal that was handled before it fired.
"""

import ctypes
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic

from connectors.kafka.placement import Placement
from connectors.kafka.rests import GATHERING
from connectors.kafka.source import CaughtUp, KafkaSource, Resized
from connectors.segments import GroupSnapshot, Piece, SegmentStore, decode_snapshot
from flows.intake import Input, Parcel, Pulse
from signalbox.agents.group import AgentGroup
from signalbox.agents.plan import Plan
from signalbox.agents.population import Change
from signalbox.agents.stats import Stats
from signalbox.clock import Clock
from signalbox.config import Settings
from signalbox.ports import Outgoing
from signalbox.routing import Router

SNAPSHOT_VERSION = 1
#: Changes are gathered into a new base when they outgrow it, or when there are so many of them.
_MOST_PIECES = 64
_SMALLEST_BASE_BYTES = 16_384
#: Pieces that a snapshot no longer names may still be named by the one that a crash falls back to. The engine's sources
#: run at most one epoch ahead of the last committed one, so three snapshots later nothing can.
_KEEP_SNAPSHOTS = 3
#: The last moment that a `datetime` can hold; an idle time of a million years means never.
_LATEST_MS = 253_402_300_799_000
#: How often a group that keeps output back looks whether its snapshots are old enough, when no signal comes.
_RELEASE_EVERY_MS = 50
_PULSE_EVERY_S = 5.0
#: Declared agents are started so long after a worker began: those who wait for answers come first.
_START_AFTER_S = 0.2
#: How often it looks whether the flow is to drain.
_PULSE_LOOKS = timedelta(milliseconds=20)
_PULSE_PART = "pulse"


@dataclass(slots=True)
class Runtime:
    """What the groups of one worker process share."""

    settings: Settings
    plan: Plan
    topics: Router[str]
    placement: Placement
    store: SegmentStore
    clock: Clock
    stats: Stats
    inputs: frozenset[str] = frozenset()
    """The names of the partitions that are read."""
    caught_up: threading.Event = field(default_factory=threading.Event)
    """Set when every input of the flow has handed over what it held at the start, those of other workers too."""
    groups: dict[str, AgentGroup] = field(default_factory=dict)
    """The groups that live here, for looking in."""

    def group(self, key: str) -> AgentGroup:
        """A new, empty group."""
        group = AgentGroup(key, self.plan, self.topics, settings=self.settings, clock=self.clock, stats=self.stats)
        self.groups[key] = group
        return group


Placed = tuple[str, list[Outgoing]]
"""An output partition and the records for it."""

_encode = msgspec.msgpack.Encoder().encode
_decode_changes = msgspec.msgpack.Decoder(list[Change]).decode


class GroupLogic(StatefulBatchLogic[tuple[str, Parcel], Placed, bytes]):
    """One key group inside the engine."""

    def __init__(self, runtime: Runtime, resume_state: bytes | None) -> None:
        self._runtime = runtime
        self._group: AgentGroup | None = None
        self._pieces: list[Piece] = []
        self._snapshots_since_base = 0
        self._behind = set(runtime.inputs)
        """Inputs that have not handed over yet what they held at the start."""
        if resume_state is not None:
            self._restore(decode_snapshot(resume_state))

    def on_batch(self, values: list[tuple[str, Parcel]]) -> tuple[list[Placed], bool]:
        passing: list[Outgoing] = []
        group = self._group
        if group is None:
            group = self._group = self._runtime.group(values[0][0])
        elif group.keeps_output():
            # The engine's sources begin an epoch when the one before is committed, and so is its snapshot.
            group.release(snapshots=1)
        for _, parcel in values:
            if isinstance(parcel, tuple):
                group.deliver(*parcel)
            elif isinstance(parcel, list):
                passing += parcel
            elif isinstance(parcel, CaughtUp):
                self._behind.discard(parcel.part)
                if not self._behind:
                    group.caught_up()
                    self._runtime.caught_up.set()
            elif isinstance(parcel, Resized):
                group.resized(parcel.part, parcel.sizes)
            elif parcel is Pulse.START:
                group.start()
        return self._placed(passing), StatefulBatchLogic.RETAIN

    def on_notify(self) -> tuple[list[Placed], bool]:
        if self._group is not None:
            # In an epoch without any record the one before may still be uncommitted.
            self._group.release(snapshots=2)
            self._group.fire_due()
        return self._placed([]), StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[Placed], bool]:
        return [], StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        if self._behind or self._group is None:
            return None
        due_ms = self._group.next_due_ms()
        if self._group.keeps_output():
            look_ms = self._runtime.clock.now_ms() + _RELEASE_EVERY_MS
            due_ms = look_ms if due_ms is None else min(due_ms, look_ms)
        return None if due_ms is None else datetime.fromtimestamp(min(due_ms, _LATEST_MS) / 1000, UTC)

    def snapshot(self) -> bytes:
        began = time.perf_counter()
        group, stats = self._group, self._runtime.stats
        assert group is not None, "the engine snapshots only keys that were awoken"
        if changes := group.take_changes():
            stats.snapshot_bytes += self._save(group, changes)
        self._snapshots_since_base += 1
        if self._snapshots_since_base == _KEEP_SNAPSHOTS:
            self._runtime.store.forget_others(group.key, self._pieces)
        stats.snapshot_s += time.perf_counter() - began
        return _encode(GroupSnapshot(SNAPSHOT_VERSION, group.key, list(self._pieces)))

    def _save(self, group: AgentGroup, changes: list[Change]) -> int:
        store = self._runtime.store
        base = max(self._pieces[0].length, _SMALLEST_BASE_BYTES) if self._pieces else 0
        # Groups of one system grow alike; without a spread they would all write a new base in the same epoch.
        limit = base * (0.5 + int(group.key) % 64 / 64)
        fresh = (
            len(self._pieces) >= _MOST_PIECES - int(group.key) % (_MOST_PIECES // 2)
            or sum(piece.length for piece in self._pieces[1:]) >= limit
        )
        payload = _encode(list(group.all_records()) if fresh else changes)
        if fresh:
            self._pieces = []
            self._snapshots_since_base = 0
        self._pieces.append(store.append(group.key, payload, fresh=fresh))
        return len(payload)

    def _restore(self, saved: GroupSnapshot) -> None:
        if saved.version != SNAPSHOT_VERSION:
            msg = f"the snapshot of group {saved.key} has version {saved.version}; this reads {SNAPSHOT_VERSION}"
            raise ValueError(msg)
        group = self._group = self._runtime.group(saved.key)
        self._pieces = saved.pieces
        for piece in saved.pieces:
            group.restore(_decode_changes(self._runtime.store.read(saved.key, piece)))
        group.restored()
        group.release(snapshots=0)

    def _placed(self, passing: list[Outgoing]) -> list[Placed]:
        outgoing = self._group.take_output() if self._group is not None else []
        if not outgoing and not passing:
            return []
        part = self._runtime.placement.part
        placed: dict[str, list[Outgoing]] = {}
        for record in (*passing, *outgoing):
            placed.setdefault(part(record.topic, record.key), []).append(record)
        return list(placed.items())


class Inputs(FixedPartitionedSource[Input, Any]):
    """The records of Kafka, and one more partition, the pulse.

    They share one input step because the engine keeps one clock of epochs per step: two steps would drift apart, and
    what belongs to the later epoch would wait for the other step.
    """

    def __init__(self, records: KafkaSource, drain: threading.Event) -> None:
        self._records = records
        self._drain = drain

    def list_parts(self) -> list[str]:
        return [*self._records.list_parts(), _PULSE_PART]

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> StatefulSourcePartition[Any, Any]:
        if for_part == _PULSE_PART:
            return _PulsePartition(self._drain)
        return self._records.build_part(step_id, for_part, resume_state)


class _PulsePartition(StatefulSourcePartition[Pulse, None]):
    """Emits START once per execution, then BEAT every few seconds, and ends when the flow drains."""

    def __init__(self, drain: threading.Event) -> None:
        self._drain = drain
        self._due_s: float | None = None
        self._has_started = False

    def next_batch(self) -> list[Pulse]:
        if self._drain.is_set():
            raise StopIteration
        now = time.monotonic()
        if self._due_s is None:
            _keep_thread_state()
            self._due_s = now + _START_AFTER_S
        if now < self._due_s:
            return []
        self._due_s = now + _PULSE_EVERY_S
        pulse = Pulse.BEAT if self._has_started else Pulse.START
        self._has_started = True
        return [pulse]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + (_PULSE_LOOKS if self._due_s else GATHERING)

    def snapshot(self) -> None:
        return None


def _keep_thread_state() -> None:
    """Keep Python's state of the engine's thread, on which this is called, until the process ends.

    The engine is a foreign thread that takes the interpreter's lock thousands of times a second. Each time, Python
    would make a state for the thread, with a stack from the operating system, and throw both away when the lock is let
    go. One more acquisition that is never undone keeps them.
    """
    ctypes.pythonapi.PyGILState_Ensure()
