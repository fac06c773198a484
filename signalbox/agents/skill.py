"""What a user writes once and mounts on several agents: a `Skill` of handlers, a slice of state, settings, actions.

An agent lists its skills: `skills = (AutoScalingSkill(max_agents=50),)`. A skill declares which signal types it takes
and which it emits; it reaches neither the agent's own state nor that of other skills. Those that ship are in
`signalbox.skills`; how they become part of an agent is in `mounting.py`.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from signalbox.actions import Action
from signalbox.agents.contract import AgentState
from signalbox.errors import ConfigError, first_problem

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Skill:
    """Base of every skill. Handlers are marked with `@on` as those of an agent are, and get the skill's own slice.

    An instance holds settings and nothing that changes: one instance may be mounted on any number of agents.

    >>> class Autoscaler(Agent):
    ...     skills = (AutoScalingSkill(max_agents=50),)
    """

    name: ClassVar[str] = ""
    """Names the slice in the agent's state, and the settings; by default the class's name without `Skill`."""
    description: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]] = ()
    """Patterns of the types it takes: each of its routes lies within one of them."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Patterns of the types it emits: a handler that emits another one fails."""
    actions: ClassVar[tuple[Action, ...]] = ()
    """What the app can do besides, if the skill is mounted."""
    state_version: ClassVar[int] = 1

    class Settings(BaseModel):
        """Extend this with the skill's own settings, each with a default where one makes sense."""

        model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    class State(AgentState):
        """A slice that remembers nothing. Every field needs a default."""

    settings: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            name = cls.__name__.removesuffix("Skill") or cls.__name__
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        if not _NAME.fullmatch(cls.name):
            msg = f"{cls.name!r} is not the name of a skill"
            raise ConfigError(msg, hint="use lower-case letters, digits and underscores")
        if "description" not in cls.__dict__ and cls.__doc__:
            cls.description = cls.__doc__.strip().splitlines()[0]

    def __init__(self, **options: Any) -> None:
        """Take settings that differ from the defaults. Those that nobody gives yet may be missing until mounted.

        Args:
            options: fields of `Settings`. Those of `agents.<agent>.skills.<name>` come on top.
        """
        self._options = options

    def configured(self, given: Mapping[str, Any], *, where: str) -> Self:
        """This skill with its settings: those given here, else those it was made with, else the defaults.

        Args:
            given: fields of `Settings` as a settings file has them.
            where: names the place in messages, such as `agents.autoscaler.skills.auto_scaling`.

        Raises:
            ConfigError: a setting is unknown, missing, or does not fit.
        """
        made = copy.copy(self)
        try:
            made.settings = self.Settings.model_validate({**self._options, **given})
        except ValidationError as error:
            msg = f"{where}: {first_problem(error, 'settings')}"
            fields = ", ".join(self.Settings.model_fields) or "none"
            raise ConfigError(msg, hint=f"the settings of the skill {self.name} are: {fields}") from None
        return made

    @classmethod
    def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        """Turn the fields of a slice saved as `version` into those of `state_version`. Called only when they differ."""
        return state
