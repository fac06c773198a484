"""How skills become part of an agent: their settings, their slices of its state, and their handlers.

A mounted handler looks to the runtime like one of the agent's own, so that agents without skills pay nothing. What a
skill is: `skill.py`; who calls this: `plan.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from signalbox.actions import Action
from signalbox.agents.contract import Agent, AgentState, Directives, as_directives
from signalbox.agents.directives import Directive, Emit, Reply
from signalbox.agents.skill import Skill
from signalbox.errors import ConfigError
from signalbox.routing import Pattern

if TYPE_CHECKING:
    from signalbox.agents.plan import Handler


class UndeclaredOutput(TypeError):
    """A skill emits a type that its `outputs` do not name."""


def mounted_skills(agent: Agent, settings: Mapping[str, Mapping[str, Any]]) -> tuple[Skill, ...]:
    """The skills of an agent with their settings.

    Args:
        agent: whose `skills` they are.
        settings: what `agents.<agent>.skills` says, by the skill's name.

    Raises:
        ConfigError: one is no skill, two share a name, a name is that of a field of the state, or a setting is wrong.
    """
    skills = tuple(agent.skills)
    names = [_named(agent, skill) for skill in skills]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"{agent.name} mounts more than one skill called {', '.join(twice)}"
        raise ConfigError(msg, hint="mount each once, or derive a class with another name")
    if clashes := sorted(set(names) & set(agent.State.__struct_fields__)):
        msg = f"{agent.name}.State has a field {', '.join(clashes)}, where the skill of that name keeps its slice"
        raise ConfigError(msg, hint="rename the field, or derive a skill with another name")
    if unknown := settings.keys() - set(names):
        msg = f"agents.{agent.name}.skills names skills that are not mounted: {', '.join(sorted(unknown))}"
        raise ConfigError(msg, hint=f"its skills: {', '.join(names) or 'none'}")
    return tuple(
        skill.configured(settings.get(skill.name, {}), where=f"agents.{agent.name}.skills.{skill.name}")
        for skill in skills
    )


def state_type(agent: Agent, skills: Sequence[Skill]) -> type[AgentState]:
    """The agent's state with a field for the slice of each skill; without skills the very class it declares.

    Raises:
        ConfigError: a slice is no `AgentState`, or one of its fields has no default or one that does not fit.
    """
    if not skills:
        return agent.State
    for skill in skills:
        if not (isinstance(skill.State, type) and issubclass(skill.State, AgentState)):
            msg = f"the State of the skill {skill.name} is not an AgentState"
            raise ConfigError(msg, hint="write class State(AgentState): ...")
        try:
            msgspec.convert({}, skill.State)
        except msgspec.ValidationError as error:
            msg = f"the State of the skill {skill.name}: {error}"
            raise ConfigError(msg, hint="every field of a state needs a default") from None
    slices = [(skill.name, skill.State, msgspec.field(default_factory=skill.State)) for skill in skills]
    whole = msgspec.defstruct(agent.State.__name__, slices, bases=(agent.State,), module=agent.State.__module__)
    return cast("type[AgentState]", whole)


def with_actions(actions: Iterable[Action], skills: Iterable[Skill]) -> dict[str, Action]:
    """The app's actions by name, and those that skills bring.

    Raises:
        ConfigError: a skill brings what is no action, or one whose name another one has.
    """
    found = {action.name: action for action in actions}
    for skill in skills:
        for action in skill.actions:
            if not isinstance(action, Action):
                msg = f"the skill {skill.name} holds {action!r}, which is no action"
                raise ConfigError(msg, hint="make one of a function with @action()")
            if found.setdefault(action.name, action) is not action:
                msg = f"the skill {skill.name} brings an action {action.name!r}, and there is another one of that name"
                raise ConfigError(msg, hint="rename one of the two actions")
    return found


def mounted(handler: "Handler", skill: Skill) -> "Handler":
    """A skill's handler as one of the agent: it is given the slice, and its condition looks at the slice.

    Raises:
        ConfigError: the skill's inputs do not cover its pattern, or an input or output is no pattern.
    """
    inputs, outputs = (tuple(Pattern.parse(text) for text in declared) for declared in (skill.inputs, skill.outputs))
    pattern = Pattern.parse(handler.pattern)
    if not any(one.covers(pattern) for one in inputs):
        msg = f"{handler.agent}.{skill.name}.{handler.name} handles {handler.pattern!r}, which lies outside its inputs"
        raise ConfigError(msg, hint=f"declare it; its inputs: {', '.join(skill.inputs) or 'none'}")
    return replace(
        handler,
        name=f"{skill.name}.{handler.name}",
        when=None if handler.when is None else handler.when.on_slice(skill.name),
        call=_on_slice(handler.call, skill.name, outputs),
    )


def _on_slice(
    call: Callable[..., Directives], name: str, outputs: tuple[Pattern, ...]
) -> Callable[..., list[Directive] | None]:
    def handle(state: Any, *arguments: Any) -> list[Directive] | None:
        result = call(getattr(state, name), *arguments)
        if result is None:
            return None
        directives = as_directives(result)
        for directive in directives:
            if isinstance(directive, Emit | Reply) and not any(one.matches(directive.type) for one in outputs):
                msg = f"the skill {name} emits {directive.type!r}, which its outputs do not name"
                raise UndeclaredOutput(msg)
        return directives

    return handle


def _named(agent: Agent, skill: object) -> str:
    if isinstance(skill, Skill):
        return skill.name
    msg = f"{agent.name}.skills holds {skill!r}, which is no skill"
    hint = "mount an instance, with parentheses" if isinstance(skill, type) else "derive a class from Skill"
    raise ConfigError(msg, hint=hint)
