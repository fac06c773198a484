"""One agent instance in memory, and the versioned bytes it is saved as.

A saved record is a msgpack array of plain values; nothing in it names a Python class or module. Fields of a state are
saved by name, so they can come and go; see `Agent.migrate` for other changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from signalbox.agents.contract import AgentState
from signalbox.agents.plan import Kind

RECORD_VERSION = 1


class Timer(msgspec.Struct, array_like=True):
    """A delivery to come: at `due_ms` (Unix, milliseconds) a signal with this id, type and data."""

    due_ms: int
    id: str
    type: str
    data: Any
    correlation_id: str | None


class Held(msgspec.Struct, array_like=True):
    """A signal that came for a paused agent, encoded, and where it was read from."""

    value: bytes
    topic: str
    partition: int
    offset: int


#: Most agents have neither timers nor signals that wait; a million of them share these.
_NO_TIMERS: Mapping[str, Timer] = {}
NONE_HELD: Sequence[Held] = ()


class Instance:
    """One agent: its state and what the runtime keeps about it."""

    __slots__ = (
        "agent_id",
        "dirty",
        "ended",
        "errors",
        "held",
        "kind",
        "paused",
        "pending",
        "processed",
        "queued_ms",
        "saved",
        "seen_ms",
        "state",
        "subject",
        "timers",
    )

    def __init__(self, agent_id: str, kind: Kind, saved: bytes, seen_ms: int) -> None:
        self.agent_id = agent_id
        self.kind = kind
        self.subject = kind.subject(agent_id)
        self.saved = saved
        """The state as of the last handler that succeeded, encoded."""
        self.state: AgentState = kind.decode_state(saved)
        """The state that handlers work on."""
        self.seen_ms = seen_ms
        """When it last got a signal."""
        self.timers: Mapping[str, Timer] = _NO_TIMERS
        self.queued_ms = 0
        """The due time under which it waits in its group's queue; 0 when it does not."""
        self.dirty = False
        """Whether it was touched since the last snapshot."""
        self.processed = 0
        self.errors = 0
        self.ended = False
        """Whether it was stopped or evicted; nothing is delivered to it any more."""
        self.paused = False
        self.pending: set[str] | None = None
        """Actions that were asked for and have not ended, by the ids of their instructions."""
        self.held: Sequence[Held] = NONE_HELD
        """Signals that came while it was paused, oldest first."""

    def await_outcomes(self, instructions: Iterable[str]) -> None:
        """Let the outcomes of these actions in when they come."""
        for instruction in instructions:
            if self.pending is None:  # as for most agents at most times
                self.pending = set()
            self.pending.add(instruction)

    def takes_outcome(self, instruction: str) -> bool:
        """Whether an action's outcome is awaited; from then on it no longer is."""
        if self.pending is None or instruction not in self.pending:
            return False
        self.pending.remove(instruction)
        self.pending = self.pending or None
        return True

    def set_timer(self, name: str, timer: Timer | None) -> None:
        """Keep a timer, or forget the one of this name."""
        timers = {**self.timers, name: timer} if timer else {one: it for one, it in self.timers.items() if one != name}
        self.timers = timers or _NO_TIMERS

    def hold(self, signal: Held) -> None:
        """Keep a signal for later."""
        self.held = [*self.held, signal]

    def committed(self) -> AgentState:
        """A copy of the state as of the last handler that succeeded. Any thread may ask."""
        return self.kind.decode_state(self.saved)

    def roll_back(self) -> None:
        """Undo what a failed handler did to the state."""
        try:
            self.state = self.committed()
        except msgspec.ValidationError:  # an earlier handler put a value of a wrong type into it: so it was, and stays
            self.state = self.kind.state_type(**_decode_fields(self.saved))

    def next_due_ms(self) -> int:
        """When the runtime must look at it again without a signal; 0 is never."""
        if self.paused:  # it handles nothing, timers included, and stays until somebody resumes or stops it
            return 0
        if self.timers:  # an agent that waits for a timer is not idle
            return min(timer.due_ms for timer in self.timers.values())
        return 0 if self.kind.idle_ttl_ms is None else self.seen_ms + self.kind.idle_ttl_ms


class _Saved(msgspec.Struct, array_like=True):
    record_version: int
    kind: str
    state_version: int
    state: msgspec.Raw
    seen_ms: int
    processed: int
    errors: int
    timers: Mapping[str, Timer]
    paused: bool
    held: Sequence[Held]
    pending: Sequence[str] = ()
    skills: Mapping[str, int] = {}
    """The versions of the slices in the state, by skill."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode
_decode_fields = msgspec.msgpack.Decoder(dict[str, Any]).decode


def save(instance: Instance) -> bytes:
    """The record of an instance."""
    return _encode(
        _Saved(
            RECORD_VERSION,
            instance.kind.name,
            instance.kind.agent.state_version,
            msgspec.Raw(instance.saved),
            instance.seen_ms,
            instance.processed,
            instance.errors,
            instance.timers,
            instance.paused,
            instance.held,
            tuple(instance.pending or ()),
            instance.kind.skill_versions,
        )
    )


def load(agent_id: str, kind: Kind, record: bytes) -> Instance:
    """The instance of a record, its state migrated to the class's present version.

    Raises:
        Exception: the record is not one of ours, its state does not fit the class even after `migrate`, or that raised.
    """
    saved = _decode(record)
    if saved.record_version != RECORD_VERSION:
        msg = f"the record of {agent_id} has version {saved.record_version}; this reads {RECORD_VERSION}"
        raise ValueError(msg)
    state = bytes(saved.state)
    if saved.state_version != kind.agent.state_version or saved.skills != kind.skill_versions:
        state = _migrated(saved, kind)
    instance = Instance(agent_id, kind, state, saved.seen_ms)
    instance.processed, instance.errors = saved.processed, saved.errors
    instance.timers, instance.paused, instance.held = saved.timers or _NO_TIMERS, saved.paused, saved.held or NONE_HELD
    instance.await_outcomes(saved.pending)
    return instance


def _migrated(saved: _Saved, kind: Kind) -> bytes:
    """The saved state as the agent's class and its skills have it now. A skill that is new to it begins afresh."""
    fields = _decode_fields(saved.state)
    if saved.state_version != kind.agent.state_version:
        fields = kind.agent.migrate(fields, saved.state_version)
    for skill in kind.skills:
        version = saved.skills.get(skill.name)
        if version is None:
            fields.pop(skill.name, None)
        elif version != skill.state_version and skill.name in fields:
            fields[skill.name] = skill.migrate(fields[skill.name], version)
    return kind.encode_state(msgspec.convert(fields, kind.state_type))
