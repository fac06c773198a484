"""What an agent asks for: effects as plain data. Only the runtime (`signalbox.agents.group`) acts on them.

A directive never changes state by itself, so a handler's whole decision can be compared in a test.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec


class Directive(msgspec.Struct, frozen=True):
    """Base of all directives."""


class Emit(Directive, frozen=True):
    """Send a signal. Its topic follows from `kafka.routes` unless named; its subject defaults to the agent's own."""

    type: str
    data: Any = None
    subject: str | None = None
    topic: str | None = None


class Reply(Directive, frozen=True):
    """Send a signal about the same subject, as an answer to the one being handled."""

    type: str
    data: Any = None


class RunAction(Directive, frozen=True):
    """Run an action with an effect, even if the process dies in between. The outcome comes back to this very agent.

    It comes as `action.completed` or `action.failed`, with `context` as it is given here. It is not worked on after
    `deadline`, nor after that of the signal being handled. A `name` is for `CancelAction`.
    """

    action: str
    params: Any = None
    context: Any = None
    deadline: datetime | None = None
    priority: int = 0
    name: str | None = None


class CancelAction(Directive, frozen=True):
    """Cancel the actions that this agent asked for under a name and that have not ended: they fail as `cancelled`.

    One that ends meanwhile ends as it does; what it has done to the world is not undone.
    """

    name: str


class Schedule(Directive, frozen=True):
    """Deliver a signal of this type to this very agent after a while, even if the process dies in between.

    Scheduling again under the same `timer` (default: the type) moves the one that is pending.
    """

    type: str
    after: timedelta
    data: Any = None
    timer: str | None = None


class CancelTimer(Directive, frozen=True):
    """Forget a scheduled delivery; one that is not pending is forgotten already."""

    timer: str


class Spawn(Directive, frozen=True):
    """Create the keyed agent of class `agent` for `subject` now, instead of on its first signal."""

    agent: str
    subject: str


class Stop(Directive, frozen=True):
    """End this agent: state and timers are dropped. A later signal for its subject begins a new one."""

    reason: str = "stopped by itself"


def seconds(count: float) -> timedelta:
    """A duration of so many seconds."""
    return timedelta(seconds=count)


def minutes(count: float) -> timedelta:
    """A duration of so many minutes."""
    return timedelta(minutes=count)
