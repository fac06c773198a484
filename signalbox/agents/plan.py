"""The compiled form of an app: which agents, by which handlers, get a signal of a given type.

Everything that can be decided before the first signal is decided here, once per process.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel

from schemas.signal import Signal
from signalbox.actions.ledger import OUTCOMES
from signalbox.agents.contract import Addressing, Agent, AgentState, Directives, Keyed, Pool, Singleton
from signalbox.agents.mounting import mounted, mounted_skills, state_type, with_actions
from signalbox.agents.skill import Skill
from signalbox.config import TOPICS, AgentSettings, Settings
from signalbox.errors import ConfigError
from signalbox.ids import KEY_GROUPS, key_group, stable_hash
from signalbox.routing import Condition, Route, Router

if TYPE_CHECKING:
    from signalbox.app import App

#: Subjects whose group is remembered per kind of agent before the memory is emptied and filled anew.
_GROUPS_REMEMBERED = 200_000
#: Likewise for signal types, which any sender can invent.
_TYPES_REMEMBERED = 10_000
_LONGEST_TYPE_REMEMBERED = 256

_GROUP_KEYS = [str(group) for group in range(KEY_GROUPS)]
_FLAT = (str, int, float, bool, type(None))

T = TypeVar("T")
"""What is remembered of a signal type."""

Place = tuple[str, str]
"""An instance's name within its kind, which is the subject it is keyed by or else its id, and its key group's key."""


@dataclass(frozen=True, slots=True)
class Handler:
    """One `@on` of one agent class, or of a skill that it mounts: its name then begins with the skill's."""

    kind: int
    agent: str
    name: str
    pattern: str
    priority: int
    when: Condition | None
    model: type[BaseModel] | None
    call: Callable[..., Directives]
    wants_context: bool
    plain: bool
    """Neither a condition, nor a payload model, nor the context: it can be called at once."""


class Kind:
    """One agent class in one app, with its place rules and its state's codec."""

    def __init__(self, index: int, agent: Agent, settings: AgentSettings, node: str) -> None:
        self.index = index
        self.agent = agent
        self.name = agent.name
        self.node = node
        self.addressing = _sized(agent.addressing, settings)
        self.idle_ttl_ms = _idle_ttl_ms(agent, settings)
        self.skills = _skills(agent, settings)
        self.skill_versions = {skill.name: skill.state_version for skill in self.skills}
        self.state_type = state_type(agent, self.skills)
        self.groups: dict[str | None, str] = {}
        """Key groups of keyed instances by subject, as far as remembered; look here before calling `place`."""
        self._members = [(member, str(key_group(member))) for member in self._all_members()]
        """Of a pool all members that it can have, whatever its size."""
        self._named = {place[0]: place for place in self._members}
        self._by_group: dict[str, list[tuple[int, str]]] = {}
        for number, (member, key) in enumerate(self._members, 1):
            self._by_group.setdefault(key, []).append((number, member))
        self._size = len(self.declared())
        self.encode_state = msgspec.msgpack.Encoder().encode
        self.decode_state: Callable[[bytes], AgentState] = msgspec.msgpack.Decoder(self.state_type).decode
        self.reread = not _is_flat(self.state_type)
        """Whether a state is read back from its encoding after each handler. That finds what could be written but not
        be read, and severs the state from what handlers still hold of it. A flat one shares nothing, and is checked
        when it is saved."""
        self.initial_state = self.encode_state(_initial_state(agent.name, self.state_type, settings))
        _require_readable(self)
        self.has_started = type(agent).started is not Agent.started
        self._router: Router[Handler] | None = None
        self.known_handlers: dict[str, tuple[Handler, ...]] = {}
        """Handlers by type, as far as remembered; look here before calling `handlers`."""

    def declared(self) -> list[str]:
        """The ids that exist whether or not a signal came: a singleton's, or a pool's members in order."""
        match self.addressing:
            case Singleton(id=one):
                return [one]
            case Pool(size=size):
                return [f"{self.name}_{number}" for number in range(1, size + 1)]
            case _:
                return []

    def _all_members(self) -> list[str]:
        if isinstance(self.addressing, Pool):
            return [f"{self.name}_{number}" for number in range(1, self.addressing.max + 1)]
        return self.declared()

    def named(self) -> list[str]:
        """The ids that are this kind's alone: a singleton's, or those of all members that a pool can have."""
        return list(self._named)

    def members_of(self, group: str) -> list[tuple[int, str]]:
        """Of the ids that are this kind's alone, those that belong to a key group, with their numbers from 1."""
        return self._by_group.get(group, [])

    def place(self, subject: str | None, fallback: str, size: int = 0) -> Place | None:
        """Which instance a signal goes to, or None if it lacks the subject that names one.

        Args:
            subject: of the signal. One that is the id of a pool's member means that member, whatever the size.
            fallback: text that decides between the members of a pool when there is no subject.
            size: how many members of a pool signals are spread over; 0 is as many as are declared.
        """
        if self._members:
            if len(self._members) == 1:
                return self._members[0]
            if subject is not None and (named := self._named.get(subject)):
                return named
            return self._members[stable_hash(subject or fallback) % (size or self._size)]
        if subject is None:
            return None
        group = self.groups.get(subject)
        if group is None:
            if len(self.groups) >= _GROUPS_REMEMBERED:
                self.groups.clear()
            # All subjects of a group share one text, which stays in the processor's cache.
            group = self.groups[subject] = _GROUP_KEYS[key_group(self.agent_id(subject))]
        return subject, group

    def agent_id(self, name: str) -> str:
        """The id of the instance of this name: of keyed ones the subject, of others the id itself."""
        if not isinstance(self.addressing, Keyed):
            return name
        return self.addressing.node_id if self.addressing.node_id and name == self.node else f"{self.name}:{name}"

    def subject(self, agent_id: str) -> str:
        """The subject of an instance: what it is keyed by, else its own id."""
        if not isinstance(self.addressing, Keyed):
            return agent_id
        return self.node if agent_id == self.addressing.node_id else agent_id.removeprefix(f"{self.name}:")

    def bind(self, router: Router[Handler]) -> None:
        """Take the app's complete router, once."""
        self._router = router

    def handlers(self, type: str) -> tuple[Handler, ...]:
        """This kind's handlers for a type, in order."""
        found = self.known_handlers.get(type)
        if found is None:
            assert self._router is not None
            routes = self._router.route(type)
            found = _each_once(route.target for route in routes if route.target.kind == self.index)
            _remember(self.known_handlers, type, found)
        return found

    def owns(self, agent_id: str) -> bool:
        """Whether an id is one of this kind's."""
        if isinstance(self.addressing, Keyed):
            return agent_id == self.addressing.node_id or agent_id.startswith(f"{self.name}:")
        if isinstance(self.addressing, Singleton):
            return agent_id == self.addressing.id
        # By form, not by present size: a member of a pool that has shrunk is still one of its own.
        return agent_id.startswith(f"{self.name}_") and agent_id[len(self.name) + 1 :].isdigit()


class Plan:
    """An app compiled against settings.

    Raises:
        ConfigError: a route, a handler's signature or an agent's settings are wrong; the message names which.
    """

    def __init__(self, app: "App", settings: Settings) -> None:
        self.node = settings.node.name
        self.flows = frozenset(type(settings.flows).model_fields)
        """The names of the flows that there can be."""
        self.kinds: list[Kind] = []
        self.router: Router[Handler] = Router()
        # The profiles set up shipped agents; an app may leave those out.
        unknown = settings.agents.keys() - {agent.name for agent in (*app.agents, *app.shipped_agents)}
        if unknown:
            msg = f"there are settings for agents that the app does not have: {', '.join(sorted(unknown))}"
            raise ConfigError(msg, hint=f"its agents: {', '.join(agent.name for agent in app.agents)}")
        for index, agent_class in enumerate(app.agents):
            kind = Kind(index, agent_class(), settings.agents.get(agent_class.name, AgentSettings()), self.node)
            self.kinds.append(kind)
            for handler in _handlers(kind):
                self._add(handler)
        _require_distinct(self.kinds)
        places = (agent.addressing for agent in app.agents_elsewhere)
        self.elsewhere = frozenset(place.id for place in places if isinstance(place, Singleton))
        """Ids of the agents that other flows run."""
        self.actions = with_actions(app.actions, (skill for kind in self.kinds for skill in kind.skills))
        self.has_effects = any(action.effect for action in self.actions.values())
        for kind in self.kinds:
            kind.bind(self.router)
        self.known_targets: dict[str, tuple[Kind, ...]] = {}
        """Who handles a type, as far as remembered; look here before calling `targets`."""
        self._by_name = {kind.name: kind for kind in self.kinds}

    def kind(self, name: str) -> Kind | None:
        """The kind of this name."""
        return self._by_name.get(name)

    def kind_of(self, agent_id: str) -> Kind | None:
        """The kind that an agent id belongs to."""
        return next((kind for kind in self.kinds if kind.owns(agent_id)), None)

    def pool_of(self, agent_id: str) -> str | None:
        """The name of the pool that an agent id belongs to, if it belongs to one."""
        kind = self.kind_of(agent_id)
        return kind.name if kind is not None and isinstance(kind.addressing, Pool) else None

    def pools(self) -> dict[str, Pool]:
        """The pools by the name of their agent class."""
        return {kind.name: kind.addressing for kind in self.kinds if isinstance(kind.addressing, Pool)}

    def targets(self, type: str) -> tuple[Kind, ...]:
        """The kinds of agent that handle a type, each once."""
        found = self.known_targets.get(type)
        if found is None:
            # An outcome reaches the agent that asked for the action, and no other; see `AgentGroup`.
            routes = () if type in OUTCOMES else self.router.route(type)
            indexes = dict.fromkeys(route.target.kind for route in routes)
            found = tuple(self.kinds[index] for index in indexes)
            _remember(self.known_targets, type, found)
        return found

    def routes(self) -> Iterable[Route[Handler]]:
        """Every route in the order in which routes are tried."""
        return self.router.routes()

    def _add(self, handler: Handler) -> None:
        try:
            self.router.add(handler.pattern, handler, priority=handler.priority)
        except ConfigError as error:
            msg = f"{handler.agent}.{handler.name}: {error}"
            raise ConfigError(msg, hint=error.hint) from None


def topic_router(routes: Mapping[str, str]) -> Router[str]:
    """The router from signal type to output topic of `kafka.routes`.

    Raises:
        ConfigError: a pattern is not valid, or there is no such topic.
    """
    router: Router[str] = Router()
    for pattern, topic in routes.items():
        if topic not in TOPICS:
            msg = f"kafka.routes sends {pattern!r} to {topic!r}, which is no topic of this system"
            raise ConfigError(msg, hint=f"its topics: {', '.join(TOPICS)}")
        router.add(pattern, topic)
    return router


def _handlers(kind: Kind) -> Iterable[Handler]:
    yield from _handlers_of(kind, kind.agent, kind.name)
    for skill in kind.skills:
        for handler in _handlers_of(kind, skill, f"{kind.name}.{skill.name}"):
            yield mounted(handler, skill)


def _handlers_of(kind: Kind, source: Agent | Skill, owner: str) -> Iterable[Handler]:
    for name, function in _methods(source):
        wants_context = _wants_context(owner, function)
        for spec in getattr(function, "routes", ()):
            model = _payload_model(owner, function)
            yield Handler(
                kind=kind.index,
                agent=kind.name,
                name=name,
                pattern=spec.pattern,
                priority=spec.priority,
                when=spec.when,
                model=model,
                call=function,
                wants_context=wants_context,
                plain=spec.when is None and model is None and not wants_context,
            )


def _each_once(handlers: Iterable[Handler]) -> tuple[Handler, ...]:
    """Handlers that are found by several of their patterns run once, at the first place, if any condition holds."""
    by_name: dict[str, Handler] = {}
    for handler in handlers:
        known = by_name.get(handler.name)
        if known is None:
            by_name[handler.name] = handler
        elif known.when is not None:
            either = None if handler.when is None else known.when | handler.when
            by_name[handler.name] = replace(known, when=either)
    return tuple(by_name.values())


def _methods(source: Agent | Skill) -> list[tuple[str, Callable[..., Directives]]]:
    """The methods in the order in which they are written, those of base classes first."""
    names = dict.fromkeys(name for part in reversed(type(source).__mro__) for name in vars(part))
    found = ((name, inspect.getattr_static(source, name)) for name in names)
    return [(name, getattr(source, name)) for name, member in found if hasattr(member, "routes")]


def _wants_context(owner: str, function: Callable[..., Directives]) -> bool:
    if inspect.iscoroutinefunction(function):
        msg = f"{owner}.{function.__name__} is async"
        raise ConfigError(msg, hint="a handler decides and does not wait: write def, and yield directives")
    count = len(inspect.signature(function).parameters)
    if count not in (2, 3):
        msg = f"{owner}.{function.__name__} takes {count} arguments besides self"
        raise ConfigError(
            msg, hint="a handler is def name(self, state, signal) or def name(self, state, signal, context)"
        )
    return count == 3


def _payload_model(owner: str, function: Callable[..., Directives]) -> type[BaseModel] | None:
    try:
        hints = get_type_hints(function)
    except NameError as error:
        msg = f"{owner}.{function.__name__} has an annotation that cannot be resolved: {error}"
        raise ConfigError(msg, hint="import the payload model at run time, not under TYPE_CHECKING") from None
    parameter = list(inspect.signature(function).parameters)[1]
    annotation = hints.get(parameter)
    arguments = get_args(annotation) if get_origin(annotation) is Signal else ()
    model = arguments[0] if arguments else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _sized(addressing: Addressing, settings: AgentSettings) -> Addressing:
    if isinstance(addressing, Pool) and not 1 <= addressing.size <= addressing.max:
        msg = f"a pool cannot have a size of {addressing.size} and a maximum of {addressing.max}"
        raise ConfigError(msg, hint="write addressing = Pool(size, max) with 1 <= size <= max")
    if isinstance(addressing, Pool) and settings.size is not None:
        if settings.size > addressing.max:
            msg = f"a pool of {settings.size} is larger than its maximum of {addressing.max}"
            raise ConfigError(msg, hint="lower agents.<name>.size")
        return Pool(settings.size, addressing.max)
    return addressing


def _idle_ttl_ms(agent: Agent, settings: AgentSettings) -> int | None:
    if not isinstance(agent.addressing, Keyed):
        return None
    if settings.idle_ttl_s is not None:
        return int(settings.idle_ttl_s * 1000)
    return None if agent.idle_ttl is None else int(agent.idle_ttl.total_seconds() * 1000)


def _skills(agent: Agent, settings: AgentSettings) -> tuple[Skill, ...]:
    if not issubclass(agent.State, AgentState):
        msg = f"{agent.name}.State is not an AgentState"
        raise ConfigError(msg, hint="write class State(AgentState): ...")
    return mounted_skills(agent, settings.skills)


def _initial_state(name: str, state: type[AgentState], settings: AgentSettings) -> AgentState:
    unknown = settings.state.keys() - set(state.__struct_fields__)
    if unknown:
        msg = f"agents.{name}.state has no field {', '.join(sorted(unknown))}"
        raise ConfigError(msg, hint=f"its fields: {', '.join(state.__struct_fields__)}")
    try:
        return msgspec.convert(settings.state, state, strict=False)
    except msgspec.ValidationError as error:
        msg = f"agents.{name}.state: {error}"
        raise ConfigError(msg, hint="every field of a state needs a default") from None


def _require_readable(kind: Kind) -> None:
    """Check the defaults of a state: the library that reads states does not."""
    try:
        kind.decode_state(kind.initial_state)
    except msgspec.ValidationError as error:
        msg = f"{kind.name}.State has a default that does not fit its type: {error}"
        raise ConfigError(msg, hint="change the default or the annotation") from None


def _require_distinct(kinds: Iterable[Kind]) -> None:
    """Check that no two classes would share an agent."""
    owners: dict[str, str] = {}
    for kind in kinds:
        node_id = [kind.addressing.node_id] if isinstance(kind.addressing, Keyed) else []
        for agent_id in filter(None, [*kind.named(), *node_id]):
            if (other := owners.setdefault(agent_id, kind.name)) != kind.name:
                msg = f"{other} and {kind.name} both have an agent with the id {agent_id!r}"
                raise ConfigError(msg, hint="give one of them another id")


def _remember(memo: dict[str, T], type: str, found: T) -> None:
    if len(memo) >= _TYPES_REMEMBERED:
        memo.clear()
    if len(type) <= _LONGEST_TYPE_REMEMBERED:
        memo[type] = found


def _is_flat(state_type: type[AgentState]) -> bool:
    """Whether all fields are plain numbers and texts."""
    fields = get_type_hints(state_type).values()
    unions = (Union, UnionType)
    parts = (part for field in fields for part in (get_args(field) if get_origin(field) in unions else (field,)))
    return all(part in _FLAT for part in parts)
