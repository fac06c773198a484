"""What a user writes: an `Agent` with a typed state and pure handlers, `@on(pattern)`.

A handler gets a state to change and a signal to read, and returns directives. It does no I/O and reads time only from
its context, so it runs the same in a dataflow, in a test and in a replay. How agents are run: `signalbox.agents.group`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import msgspec

from signalbox.agents.directives import Directive
from signalbox.errors import ConfigError
from signalbox.routing import Condition

if TYPE_CHECKING:
    from signalbox.agents.skill import Skill

Directives: TypeAlias = Iterable[Directive] | Directive | None
Handler = TypeVar("Handler", bound=Callable[..., Directives])
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class AgentState(msgspec.Struct):
    """Base of an agent's state: typed fields with defaults, persisted by name.

    Fields may be added with a default and removed freely; for any other change raise `Agent.state_version` and write
    `Agent.migrate`.
    """


@dataclass(frozen=True, slots=True)
class Keyed:
    """One instance per subject, made on its first signal, called `<agent name>:<subject>`.

    `node_id` is the short name of the instance whose subject is this node.
    """

    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Singleton:
    """The one instance, by its id."""

    id: str


@dataclass(frozen=True, slots=True)
class Pool:
    """`size` equal instances, `<agent name>_1` and up. Signals of one subject go to the same member.

    A subject that is a member's id means that member.
    """

    size: int
    max: int = 100


Addressing: TypeAlias = Keyed | Singleton | Pool


@dataclass(slots=True)
class Context:
    """What a handler may know besides state and signal. It is valid during the call only."""

    agent_id: str
    now: datetime
    node: str
    subject: str = ""
    """What the agent is about: the subject it is keyed by, else its own id."""
    cause_id: str = ""
    """Id of the signal being handled."""
    monotonic: Callable[[], float] = field(default=lambda: 0.0)
    actions: Any = None
    """The app's actions by name."""
    output_bytes: int = 900_000
    """The largest signal that may be emitted, its key included (`limits.output_bytes`)."""
    signal_bytes: int = 262_144
    """The largest signal that agents read (`limits.signal_bytes`)."""
    telemetry: bool = True
    """Whether actions are reported before and after (`telemetry.actions`)."""


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One `@on` as written."""

    pattern: str
    when: Condition | None
    priority: int


def on(pattern: str, *, when: Condition | None = None, priority: int = 0) -> Callable[[Handler], Handler]:
    """Handle signals whose type matches `pattern`, if `when` holds.

    The more specific pattern runs first; `priority` (-1000..1000) decides among equally specific ones. Annotate the
    signal as `Signal[Model]` and `signal.data` is that pydantic model, already validated.
    """

    def mark(handler: Handler) -> Handler:
        routes = [*getattr(handler, "routes", ()), RouteSpec(pattern, when, priority)]
        handler.routes = tuple(routes)  # type: ignore[attr-defined]
        return handler

    return mark


class Agent:
    """Base of every agent. Subclasses name their handlers with `@on`; instances differ only in id and state."""

    name: ClassVar[str] = ""
    """Lower-case with underscores; by default made from the class's name."""
    description: ClassVar[str] = ""
    capabilities: ClassVar[tuple[str, ...]] = ()
    addressing: ClassVar[Addressing] = Keyed()
    state_version: ClassVar[int] = 1
    skills: "ClassVar[tuple[Skill, ...]]" = ()
    """What it can do besides its own handlers. Each has a field of its name in the state."""
    idle_ttl: ClassVar[timedelta | None] = None
    """Evict an instance that got no signal for so long; None keeps it."""

    class State(AgentState):
        """An agent that remembers nothing."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if not _NAME.fullmatch(cls.name):
            msg = f"{cls.name!r} is not an agent name"
            raise ConfigError(msg, hint="use lower-case letters, digits and underscores")
        if "description" not in cls.__dict__ and cls.__doc__:
            cls.description = cls.__doc__.strip().splitlines()[0]

    def started(self, state: Any, context: Context) -> Directives:
        """Called when an instance comes into being, and for singletons and pools at every start of the flow."""
        return None

    def stopped(self, state: Any, context: Context) -> Directives:
        """Called when an instance is stopped or evicted; changes to the state are lost."""
        return None

    @classmethod
    def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        """Turn the fields of a state saved as `version` into those of `state_version`. Called only when they differ.

        The fields of its skills' names are theirs: they are migrated by `Skill.migrate` afterwards.
        """
        return state


def as_directives(result: Directives) -> list[Directive]:
    """What a handler returned, as a list. A generator runs to its end here."""
    if result is None:
        return []
    if isinstance(result, Directive):
        return [result]
    return list(result)
