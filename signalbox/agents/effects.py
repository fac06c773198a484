"""From directives to effects: what an agent asked for becomes records to write and timers to keep.

Everything is encoded before anything takes effect, so a directive that cannot be encoded fails its handler as a whole.
Derived ids rest on the cause and the position among the handler's directives for the same topic, so a replay makes the
same ids again, whether or not telemetry is on meanwhile.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from schemas.control import AgentSpawn
from schemas.payloads.actions import ActionCancel, ActionRequested
from schemas.signal import Signal, decode, encode
from signalbox.actions.ledger import CANCEL, REQUESTED
from signalbox.agents import directives as d
from signalbox.agents.contract import Pool
from signalbox.agents.records import Instance, Timer
from signalbox.config import EFFECTS_TOPIC, TOPICS
from signalbox.ids import derived_id
from signalbox.ports import Outgoing
from signalbox.routing import Router, is_valid_type

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode_timer = msgspec.msgpack.Encoder().encode
_decode_timer = msgspec.msgpack.Decoder(tuple[str, Timer]).decode


class Cause(NamedTuple):
    """What an agent's output derives from."""

    id: str
    """Unique among causes: source and id of a signal, or the id of a timer or a start."""
    signal_id: str
    correlation_id: str | None = None
    traceparent: str | None = None
    subject: str | None = None
    deadline: datetime | None = None

    @classmethod
    def of(cls, signal: Signal[Any]) -> "Cause":
        """A signal as the cause of what its handlers do."""
        return cls(
            f"{signal.source}\0{signal.id}",
            signal.id,
            signal.correlationid or signal.id,
            signal.traceparent,
            signal.subject,
            signal.deadline,
        )


class Effects:
    """What one call of one handler asked for, encoded and ready to be committed."""

    __slots__ = (
        "_emitter",
        "_indexes",
        "_instance",
        "_limit",
        "_now",
        "_subject",
        "_topics",
        "cause",
        "outgoing",
        "requested",
        "stop",
        "timers",
    )

    def __init__(
        self, instance: Instance, cause: Cause, scope: str, *, now: datetime, topics: Router[str], limit: int
    ) -> None:
        pooled = isinstance(instance.kind.addressing, Pool)
        # A pool's member is chosen by the pool's present size; ids must not depend on it.
        self._emitter = f"{instance.kind.name if pooled else instance.agent_id}|{scope}"
        self._instance = instance
        self._subject = instance.subject
        self.cause = cause
        self._now = now
        self._topics = topics
        self._limit = limit
        self._indexes: dict[str, int] = {}
        self.outgoing: list[Outgoing] = []
        self.timers: dict[str, Timer | None] = {}
        """Timers to set, or, as None, to forget."""
        self.requested: list[str] = []
        """Ids of the actions asked for."""
        self.stop: str | None = None

    def add(self, directives: Iterable[d.Directive]) -> None:
        """Encode directives.

        Raises:
            Exception: something among them is no directive, or cannot be encoded, sent or kept as it is.
        """
        for directive in directives:
            match directive:
                case d.Emit(type=type, data=data, subject=subject, topic=topic):
                    self._emit(type, data, subject or self._subject, topic)
                case d.Reply(type=type, data=data):
                    self._emit(type, data, self.cause.subject or self._subject, None)
                case d.RunAction():
                    self._request(directive)
                case d.CancelAction(name=name):
                    wish = ActionCancel(agent_id=self._instance.agent_id, name=name)
                    self._emit(CANCEL, wish, self._subject, EFFECTS_TOPIC)
                case d.Schedule():
                    self._schedule(directive)
                case d.CancelTimer(timer=timer):
                    self.timers[timer] = None
                case d.Spawn(agent=agent, subject=subject):
                    self._emit("control.agent.spawn", AgentSpawn(agent_type=agent, subject=subject), subject, "control")
                case d.Stop(reason=reason):
                    self.stop = reason
                case _:
                    msg = f"a handler gave {type_name(directive)}, which is not a directive"
                    raise TypeError(msg)

    def commit(self, out: list[Outgoing]) -> None:
        """Let the effects take place; nothing here can fail."""
        out.extend(self.outgoing)
        self._instance.await_outcomes(self.requested)
        for name, timer in self.timers.items():
            self._instance.set_timer(name, timer)

    def _next_id(self, scope: str) -> str:
        index = self._indexes[scope] = self._indexes.get(scope, 0) + 1
        return derived_id(self.cause.id, f"{self._emitter}|{scope}", index)

    def _request(self, directive: d.RunAction) -> None:
        request = ActionRequested(
            agent_id=self._instance.agent_id,
            action=directive.action,
            params=directive.params or {},
            context=directive.context,
            deadline=min((one for one in (directive.deadline, self.cause.deadline) if one is not None), default=None),
            priority=directive.priority,
            name=directive.name,
        )
        # The wish to cancel it must be read after it, and by the same worker.
        subject = self._subject if directive.name else self.cause.subject or self._subject
        self.requested.append(self._emit(REQUESTED, request, subject, EFFECTS_TOPIC))

    def _emit(self, type: str, data: Any, subject: str, topic: str | None) -> str:
        if topic is None:
            routes = self._topics.route(type)
            if not routes:
                msg = f"no topic for signals of type {type!r}: it matches no pattern of kafka.routes"
                raise TypeError(msg)
            topic = routes[0].target
        elif topic not in TOPICS or not is_valid_type(type):
            msg = f"cannot send {type!r} to topic {topic!r}: one of them is not valid; topics: {', '.join(TOPICS)}"
            raise ValueError(msg)
        signal: Signal[Any] = Signal(
            id=self._next_id(topic),
            source=f"agent/{self._instance.agent_id}",
            type=type,
            subject=subject,
            time=self._now,
            data=data,
            correlationid=self.cause.correlation_id,
            causationid=self.cause.signal_id,
            traceparent=self.cause.traceparent,
        )
        value = encode(signal)
        if not subject.isprintable():  # stricter than what a reader of ours refuses, and much quicker to see
            decode(value)
        size = len(value)
        if size > self._limit // 2:  # the key, too, counts for the broker
            size += len(subject.encode())
        if size > self._limit:
            msg = f"the signal {type!r} has {size} bytes with its key; limits.output_bytes allows {self._limit}"
            raise ValueError(msg)
        self.outgoing.append(Outgoing(topic, subject, signal.id, type, value))
        return signal.id

    def _schedule(self, directive: d.Schedule) -> None:
        if not is_valid_type(directive.type):
            msg = f"cannot schedule {directive.type!r}: it is not a signal type"
            raise ValueError(msg)
        data = directive.data
        if isinstance(data, BaseModel):
            data = data.model_dump(mode="json")
        # At least a millisecond, so that a handler that reschedules itself at once cannot hold up its group.
        due = self._now + max(directive.after, timedelta(milliseconds=1))
        timer = Timer(
            -((_EPOCH - due) // timedelta(milliseconds=1)),  # rounded up: not before its time
            self._next_id("timer"),
            directive.type,
            msgspec.to_builtins(data),
            self.cause.correlation_id,
        )
        # What cannot be saved, or not be read again, must fail here and not in a snapshot.
        name, timer = _decode_timer(_encode_timer((directive.timer or directive.type, timer)))
        self.timers[name] = timer


def type_name(value: object) -> str:
    """The name of a value's class, for messages."""
    return value.__class__.__name__
