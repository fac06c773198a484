"""The first step of the agents flow: records of a poll become deliveries, grouped by key group.

This is the hottest loop of the project: it runs once per record. What can be remembered per type or per subject is
remembered by `signalbox.agents.plan`; what is wrong with a record becomes a dead letter and travels along.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from connectors.kafka.source import CaughtUp, RecordBatch, Resized
from schemas.catalog import is_shipped
from schemas.signal import MalformedSignal, Signal, decode, decode_batch
from signalbox.agents.admission import Refused, awaiting, commanded, homeless, unhandled
from signalbox.agents.group import CONTROL, OUTCOME, Delivery, Origin, Run
from signalbox.agents.plan import Kind, Plan
from signalbox.agents.stats import Stats
from signalbox.config import EFFECTS_TOPIC, Settings
from signalbox.dead_letters import Where, dead_letter
from signalbox.ids import KEY_GROUPS, key_group
from signalbox.ports import Outgoing

#: Records decoded at once. So few stay in the processor's cache until they are addressed.
_CHUNK = 500
_EVERY_GROUP = [str(group) for group in range(KEY_GROUPS)]
_TYPE = attrgetter("type")
_SUBJECT = attrgetter("subject")
_OFFSET: Callable[[Message], int] = Message.offset  # type: ignore[assignment]  # a record that was read has one


class Pulse(Enum):
    """What makes a flow move without records."""

    START = "start"
    """Once per execution: declared agents come into being."""
    BEAT = "beat"
    """Now and then: every output partition saves how far its topic has got."""


Input = RecordBatch | Resized | CaughtUp | Pulse
Parcel = tuple[Origin, list[Run]] | list[Outgoing] | Resized | CaughtUp | Pulse
"""What a key group is given: deliveries, ready records that only pass through, or word of an input or of the flow."""
Inboxes = defaultdict[str, list[Delivery]]
"""Deliveries to agents of one kind, by key group."""
Found = defaultdict[int, Inboxes]
"""The same, by kind."""
Runs = defaultdict[str, list[Run]]
"""The same, by key group and then by kind."""
Addressed = tuple[str, tuple[str, Parcel]]
"""A parcel under its group's key, which is repeated because the engine keeps the key to itself."""


class Intake:
    """Decodes records and finds the agents they are for."""

    strict = True
    """Whether what is wrong with a record, or is for nobody, becomes a dead letter; one flow of a system sees to it."""

    def __init__(self, plan: Plan, settings: Settings, stats: Stats) -> None:
        self._plan = plan
        self._prefix = settings.kafka.topic_prefix
        self._limits = settings.limits
        self._stats = stats

    def parcels(self, inputs: Iterable[Input]) -> list[Addressed]:
        """The parcels for each key group; a group's deliveries are in the order of their records."""
        out: list[Addressed] = []
        for batch in inputs:
            if not isinstance(batch, RecordBatch):
                out.extend((group, (group, batch)) for group in _EVERY_GROUP if batch is not Pulse.BEAT)
                continue
            groups: Runs = defaultdict(list)
            refused: list[Outgoing] = []
            self._stats.received[batch.topic] += len(batch.messages)
            if batch.topic == "control":
                self._sort_control(batch.messages, groups, refused)
            elif batch.topic == EFFECTS_TOPIC:
                self._sort_effects(batch.messages, groups, refused)
            else:
                self._sort(batch.messages, batch.sizes, groups, refused)
            origin = (self._prefix + batch.topic, batch.partition)
            out.extend((group, (group, (origin, runs))) for group, runs in groups.items())
            if refused and self.strict:
                group = str(key_group(f"{batch.topic}-{batch.partition}"))
                out.append((group, (group, refused)))
        return out

    def _sort(self, messages: list[Message], sizes: Mapping[str, int], groups: Runs, refused: list[Outgoing]) -> None:
        found: Found = defaultdict(_new_inboxes)
        chunks: list[Sequence[Message]] = [messages[at : at + _CHUNK] for at in range(0, len(messages), _CHUNK)]
        chunks.reverse()
        messages.clear()  # so that a chunk is freed while it still is in the processor's cache
        while chunks:
            chunk = chunks.pop()
            signals = self._read_together(chunk)
            if signals is None:
                chunk, signals = self._read_each(chunk, refused)
            self._address(chunk, signals, sizes, found, refused)
        for kind_index, inboxes in found.items():
            for group, deliveries in inboxes.items():
                groups[group].append((kind_index, deliveries))

    def _address(
        self,
        messages: Sequence[Message],
        signals: Sequence[Signal[Any]],
        sizes: Mapping[str, int],
        found: Found,
        refused: list[Outgoing],
    ) -> None:
        """Split signals by who handles them: those of one kind of agent keep their order, whatever their types."""
        targets, types = self._plan.targets, list(map(_TYPE, signals))
        lost: dict[int, tuple[Message, Signal[Any], Kind]] = {}
        if types and types.count(types[0]) == len(types) and (kinds := targets(types[0])):
            for kind in kinds:
                _address_to(kind, sizes.get(kind.name, 0), messages, signals, found[kind.index], lost)
        else:
            shares: dict[int, tuple[Kind, list[Message], list[Signal[Any]]]] = {}
            for type_, message, signal in zip(types, messages, signals, strict=True):
                kinds = targets(type_)
                if not kinds:
                    self._leave(signal, message, refused)
                for kind in kinds:
                    _, of_kind, signals_of_kind = shares.setdefault(kind.index, (kind, [], []))
                    of_kind.append(message)
                    signals_of_kind.append(signal)
            for kind, of_kind, signals_of_kind in shares.values():
                _address_to(kind, sizes.get(kind.name, 0), of_kind, signals_of_kind, found[kind.index], lost)
        for message, signal, kind in lost.values():
            refused.append(self._refuse(message, homeless(kind), signal))

    def _read_together(self, messages: Sequence[Message]) -> list[Signal[Any]] | None:
        values = list(map(Message.value, messages))
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
            except (MalformedSignal, Refused) as error:
                refused.append(self._refuse(message, error))
        return good, signals

    def _read(self, message: Message, limit: int | None = None) -> Signal[Any]:
        """Read one record in any form, with its headers and with its size in view."""
        value, limit = message.value(), limit or self._limits.signal_bytes
        if value is not None and len(value) > limit:
            msg = f"the value has {len(value)} bytes; limits.signal_bytes allows {limit}"
            raise Refused(msg, reason="too_large")
        return decode(value, _headers(message))

    def _sort_control(self, messages: Sequence[Message], groups: Runs, refused: list[Outgoing]) -> None:
        for message in messages:
            signal: Signal[Any] | None = None
            try:
                signal = self._read(message)
                agent_id = commanded(self._plan, signal)
            except (MalformedSignal, Refused) as error:
                refused.append(self._refuse(message, error, signal))
                continue
            if agent_id is not None and self._is_ours(agent_id):
                run = (CONTROL, [(agent_id, signal, message.offset() or 0)])
                groups[str(key_group(agent_id))].append(run)

    def _is_ours(self, agent_id: str) -> bool:
        """Whether a command is for an agent of this flow; what is for none of any flow is for the strict one."""
        return agent_id not in self._plan.elsewhere and (self.strict or self._plan.kind_of(agent_id) is not None)

    def _leave(self, signal: Signal[Any], message: Message, refused: list[Outgoing]) -> None:
        """Nobody handles it: either that is in order, or it becomes a dead letter."""
        if (refusal := unhandled(signal)) is not None:
            refused.append(self._refuse(message, refusal, signal))
        else:
            self._stats.unmatched[signal.type if is_shipped(signal.type) else "derived"] += 1

    def _sort_effects(self, messages: Sequence[Message], groups: Runs, refused: list[Outgoing]) -> None:
        """Hand outcomes to the agents that wait for them; what else is on the topic is for the ledger."""
        for message in messages:
            try:
                # What an agent may emit and an action may return, which somebody waits for, is let in again.
                signal = self._read(message, max(self._limits.signal_bytes, self._limits.output_bytes))
                agent_id = awaiting(signal)
            except (MalformedSignal, Refused) as error:
                refused.append(self._refuse(message, error))
                continue
            if agent_id is not None:
                groups[str(key_group(agent_id))].append((OUTCOME, [(agent_id, signal, _OFFSET(message))]))

    def _refuse(
        self, message: Message, error: MalformedSignal | Refused, signal: Signal[Any] | None = None
    ) -> Outgoing:
        self._stats.dead_letters[error.reason] += 1
        when = _time(message)
        return dead_letter(
            error.reason,
            str(error),
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


def _new_inboxes() -> Inboxes:
    return defaultdict(list)


def _address_to(  # noqa: PLR0917 - called in one place
    kind: Kind,
    size: int,
    messages: Sequence[Message],
    signals: Sequence[Signal[Any]],
    inboxes: Inboxes,
    lost: dict[int, tuple[Message, Signal[Any], Kind]],
) -> None:
    """Address signals to agents of one kind; those without the subject that it takes go to `lost`."""
    subjects = list(map(_SUBJECT, signals))
    groups = list(map(kind.groups.get, subjects))
    if all(groups):
        for group, subject, signal, offset in zip(groups, subjects, signals, map(_OFFSET, messages), strict=True):
            inboxes[group].append((subject, signal, offset))  # type: ignore[index]  # none of them is None
        return
    for signal, message in zip(signals, messages, strict=True):
        place = kind.place(signal.subject, signal.id, size)
        if place is not None:
            inboxes[place[1]].append((place[0], signal, _OFFSET(message)))
        else:
            lost.setdefault(_OFFSET(message), (message, signal, kind))


def _time(message: Message) -> datetime | None:
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # the sender chose a time that no calendar has
        return None


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else headers
