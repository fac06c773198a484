"""From directives to effects: what an agent asked for becomes records to write and timers to keep.

Everything is encoded before anything takes effect, so a directive that cannot be encoded fails its handler as a whole.
Derived ids rest on the cause and the position among the handler's directives, so a replay makes the same ids again.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from schemas.control import AgentSpawn
from schemas.signal import Signal, encode
from signalbox.agents import directives as d
from signalbox.agents.contract import Pool
from signalbox.agents.records import Instance, Timer
from signalbox.ids import derived_id
from signalbox.ports import Outgoing
from signalbox.routing import Router


class Cause(NamedTuple):
    """What an agent's output derives from."""

    id: str
    """Unique among causes: source and id of a signal, or the id of a timer or a start."""
    signal_id: str
    correlation_id: str | None = None
    traceparent: str | None = None
    subject: str | None = None

    @classmethod
    def of(cls, signal: Signal[Any]) -> "Cause":
        """A signal as the cause of what its handlers do."""
        return cls(
            f"{signal.source}|{signal.id}",
            signal.id,
            signal.correlationid or signal.id,
            signal.traceparent,
            signal.subject,
        )


class Effects:
    """What one call of one handler asked for, encoded and ready to be committed."""

    __slots__ = (
        "_cause",
        "_emitter",
        "_index",
        "_instance",
        "_limit",
        "_now",
        "_subject",
        "_topics",
        "outgoing",
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
        self._cause = cause
        self._now = now
        self._topics = topics
        self._limit = limit
        self._index = 0
        self.outgoing: list[Outgoing] = []
        self.timers: dict[str, Timer | None] = {}
        """Timers to set, or, as None, to forget."""
        self.stop: str | None = None

    def add(self, directives: Iterable[d.Directive]) -> None:
        """Encode directives.

        Raises:
            TypeError: something among them is no directive, or its data cannot be encoded.
        """
        for directive in directives:
            match directive:
                case d.Emit(type=type, data=data, subject=subject, topic=topic):
                    self._emit(type, data, subject or self._subject, topic)
                case d.Reply(type=type, data=data):
                    self._emit(type, data, self._cause.subject or self._subject, None)
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
        for name, timer in self.timers.items():
            if timer is None:
                self._instance.timers.pop(name, None)
            else:
                self._instance.timers[name] = timer

    def _next_id(self) -> str:
        self._index += 1
        return derived_id(self._cause.id, self._emitter, self._index)

    def _emit(self, type: str, data: Any, subject: str, topic: str | None) -> None:
        signal: Signal[Any] = Signal(
            id=self._next_id(),
            source=f"agent/{self._instance.agent_id}",
            type=type,
            subject=subject,
            time=self._now,
            data=data,
            correlationid=self._cause.correlation_id,
            causationid=self._cause.signal_id,
            traceparent=self._cause.traceparent,
        )
        if topic is None:
            routes = self._topics.route(type)
            if not routes:
                msg = f"no topic for signals of type {type!r}: it matches no pattern of kafka.routes"
                raise TypeError(msg)
            topic = routes[0].target
        value = encode(signal)
        if len(value) > self._limit:
            msg = f"the signal {type!r} has {len(value)} bytes; limits.output_bytes allows {self._limit}"
            raise ValueError(msg)
        self.outgoing.append(Outgoing(topic, subject, signal.id, type, value))

    def _schedule(self, directive: d.Schedule) -> None:
        data = directive.data
        if isinstance(data, BaseModel):
            data = data.model_dump(mode="json")
        # At least a millisecond, so that a handler that reschedules itself at once cannot hold up its group.
        msgspec.msgpack.encode(data)  # what cannot be saved must fail here, not in a snapshot
        due_ms = int(self._now.timestamp() * 1000) + max(1, int(directive.after.total_seconds() * 1000))
        name = directive.timer or directive.type
        self.timers[name] = Timer(
            due_ms, self._next_id(), directive.type, msgspec.to_builtins(data), self._cause.correlation_id
        )


def type_name(value: object) -> str:
    """The name of a value's class, for messages."""
    return value.__class__.__name__
