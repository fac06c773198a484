"""The first step of the agents flow: records of a poll become deliveries, grouped by key group.

This is the hottest loop of the project: it runs once per record. What can be remembered per type or per subject is
remembered by `signalbox.agents.plan`; what is wrong with a record becomes a dead letter and travels along.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from pydantic import ValidationError

from connectors.kafka.source import RecordBatch
from schemas.catalog import is_shipped
from schemas.control import AgentControl, AgentSpawn
from schemas.signal import MalformedSignal, Signal, decode, decode_batch
from signalbox.agents.dead_letters import Where, dead_letter
from signalbox.agents.group import CONTROL, Delivery, Origin, Run
from signalbox.agents.plan import Kind, Plan
from signalbox.agents.stats import Stats
from signalbox.config import Settings
from signalbox.ids import KEY_GROUPS, key_group
from signalbox.ports import Outgoing
from signalbox.routing import is_valid_type

#: Records decoded at once. So few stay in the processor's cache until they are addressed.
_CHUNK = 500
_EVERY_GROUP = [str(group) for group in range(KEY_GROUPS)]
_TYPE = attrgetter("type")
_SUBJECT = attrgetter("subject")


class Pulse(Enum):
    """What makes a flow move without records."""

    START = "start"
    """Once per execution: declared agents come into being."""
    BEAT = "beat"
    """Now and then: every output partition saves how far its topic has got."""


Parcel = tuple[Origin, list[Run]] | list[Outgoing] | Pulse
"""What a key group is given: deliveries, ready records that only pass through, or the word to start its agents."""
Groups = defaultdict[str, list[Delivery]]
"""Deliveries to one kind of agent, by key group."""
Runs = defaultdict[str, list[Run]]
"""The same for all kinds."""
Addressed = tuple[str, tuple[str, Parcel]]
"""A parcel under its group's key, which is repeated because the engine keeps the key to itself."""


class _Refused(Exception):
    """A record that is a signal perhaps, but not one to be taken."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Intake:
    """Decodes records and finds the agents they are for."""

    def __init__(self, plan: Plan, settings: Settings, stats: Stats) -> None:
        self._plan = plan
        self._prefix = settings.kafka.topic_prefix
        self._limits = settings.limits
        self._stats = stats

    def parcels(self, inputs: Iterable[RecordBatch | Pulse]) -> list[Addressed]:
        """The parcels for each key group; a group's deliveries are in the order of their records."""
        out: list[Addressed] = []
        for batch in inputs:
            if isinstance(batch, Pulse):
                out.extend((group, (group, batch)) for group in _EVERY_GROUP if batch is Pulse.START)
                continue
            groups: Runs = defaultdict(list)
            refused: list[Outgoing] = []
            if batch.topic == "control":
                self._sort_control(batch.messages, groups, refused)
            else:
                self._sort(batch.messages, groups, refused)
            self._stats.received[batch.topic] += len(batch.messages)
            origin = (self._prefix + batch.topic, batch.partition)
            out.extend((group, (group, (origin, runs))) for group, runs in groups.items())
            if refused:
                group = str(key_group(f"{batch.topic}-{batch.partition}"))
                out.append((group, (group, refused)))
        return out

    def _sort(self, messages: Sequence[Message], groups: Runs, refused: list[Outgoing]) -> None:
        for start in range(0, len(messages), _CHUNK):
            chunk = messages[start : start + _CHUNK]
            signals = self._read_together(chunk)
            if signals is None:
                chunk, signals = self._read_each(chunk, refused)
            self._address(chunk, signals, groups, refused)

    def _address(
        self, messages: Sequence[Message], signals: Sequence[Signal[Any]], groups: Runs, refused: list[Outgoing]
    ) -> None:
        """Split signals by who handles them: those of one kind of agent keep their order, whatever their types."""
        targets, types = self._plan.targets, list(map(_TYPE, signals))
        homeless: dict[int, tuple[Message, Signal[Any], Kind]] = {}
        if types and types.count(types[0]) == len(types) and (kinds := targets(types[0])):
            for kind in kinds:
                self._address_to(kind, messages, signals, groups, homeless)
        else:
            shares: dict[int, tuple[Kind, list[Message], list[Signal[Any]]]] = {}
            for type_, message, signal in zip(types, messages, signals, strict=True):
                kinds = targets(type_)
                if not kinds:
                    self._unhandled(signal, message, refused)
                for kind in kinds:
                    _, of_kind, signals_of_kind = shares.setdefault(kind.index, (kind, [], []))
                    of_kind.append(message)
                    signals_of_kind.append(signal)
            for kind, of_kind, signals_of_kind in shares.values():
                self._address_to(kind, of_kind, signals_of_kind, groups, homeless)
        for message, signal, kind in homeless.values():
            reason = f"{kind.name} has one agent per subject, and the signal has no subject"
            refused.append(self._refuse(message, "missing_subject", reason, signal))

    def _address_to(
        self,
        kind: Kind,
        messages: Sequence[Message],
        signals: Sequence[Signal[Any]],
        groups: Runs,
        homeless: dict[int, tuple[Message, Signal[Any], Kind]],
    ) -> None:
        """Address signals to agents of one kind; those without the subject that it takes go to `homeless`."""
        places = list(map(kind.places.get, map(_SUBJECT, signals)))
        if None in places:
            places = [kind.place(signal.subject, signal.id) for signal in signals]
        found: Groups = defaultdict(list)
        for place, message, signal in zip(places, messages, signals, strict=True):
            if place is not None:
                found[place[1]].append((place[0], signal, message.offset()))  # type: ignore[arg-type]  # it has one
            else:
                homeless.setdefault(message.offset() or 0, (message, signal, kind))
        for group, deliveries in found.items():
            groups[group].append((kind.index, deliveries))

    def _read_together(self, messages: Sequence[Message]) -> list[Signal[Any]] | None:
        values = [message.value() for message in messages]
        if None in values or max(map(len, values)) > self._limits.signal_bytes:  # type: ignore[arg-type]
            return None
        return decode_batch(values)  # type: ignore[arg-type]  # none of them is None

    def _read_each(
        self, messages: Sequence[Message], refused: list[Outgoing]
    ) -> tuple[list[Message], list[Signal[Any]]]:
        good: list[Message] = []
        signals: list[Signal[Any]] = []
        for message in messages:
            try:
                signals.append(self._read(message))
                good.append(message)
            except (MalformedSignal, _Refused) as error:
                refused.append(self._refuse(message, error.reason, str(error)))
        return good, signals

    def _read(self, message: Message) -> Signal[Any]:
        """Read one record in any form, with its headers and with its size in view."""
        value = message.value()
        if value is not None and len(value) > self._limits.signal_bytes:
            msg = f"the value has {len(value)} bytes; limits.signal_bytes allows {self._limits.signal_bytes}"
            raise _Refused(msg, reason="too_large")
        return decode(value, _headers(message))

    def _unhandled(self, signal: Signal[Any], message: Message, refused: list[Outgoing]) -> None:
        """Nobody handles the type. What we know, or made ourselves, may go unhandled; anything else is a mistake."""
        if is_shipped(signal.type) or signal.source.startswith("agent/"):
            self._stats.unmatched[signal.type if is_shipped(signal.type) else "derived"] += 1
        elif is_valid_type(signal.type):
            refused.append(self._refuse(message, "unknown_type", f"no agent handles {signal.type[:200]!r}", signal))
        else:
            reason = f"{signal.type[:200]!r} is not a type: segments of A-Z a-z 0-9 _ - joined by dots"
            refused.append(self._refuse(message, "invalid_type", reason, signal))

    def _sort_control(self, messages: Sequence[Message], groups: Runs, refused: list[Outgoing]) -> None:
        for message in messages:
            try:
                signal = self._read(message)
                agent_id = self._commanded(signal)
            except (MalformedSignal, _Refused) as error:
                refused.append(self._refuse(message, error.reason, str(error)))
                continue
            if agent_id is not None:
                run = (CONTROL, [(agent_id, signal, message.offset() or 0)])
                groups[str(key_group(agent_id))].append(run)

    def _commanded(self, signal: Signal[Any]) -> str | None:
        """The agent that a control signal is for; None if it is for somebody else."""
        try:
            match signal.type:
                case "control.agent.spawn":
                    spawn = AgentSpawn.model_validate(signal.data)
                    kind = self._plan.kind(spawn.agent_type)
                    return kind.agent_id(spawn.subject) if kind else spawn.agent_type
                case "control.agent.pause" | "control.agent.resume" | "control.agent.stop":
                    return AgentControl.model_validate(signal.data).agent_id
                case _:
                    return None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "data"
            msg = f"{place}: {first['msg']}"
            raise _Refused(msg, reason="invalid_payload") from None

    def _refuse(self, message: Message, reason: str, text: str, signal: Signal[Any] | None = None) -> Outgoing:
        self._stats.dead_letters[reason] += 1
        kind, milliseconds = message.timestamp()
        when = None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)
        return dead_letter(
            reason,
            text,
            where=Where(message.topic() or "", message.partition() or 0, message.offset() or 0),
            key=message.key(),
            value=message.value(),
            headers=_headers(message),
            limit_bytes=self._limits.dead_letter_bytes,
            # The record's own time, so that a repeated run makes the same record.
            now=when or datetime.now(UTC),
            timestamp=when,
            signal=signal,
        )


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else headers
