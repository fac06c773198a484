"""What runs: the agents, actions and sensors of a system, listed explicitly.

A user's module holds `app = App(agents=[...])`, and `signalbox up --app module:app` runs it. The shipped agents,
actions and sensors are part of every app unless it says `builtins=False`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from signalbox.actions import BUILTIN_ACTIONS, Action
from signalbox.agents.contract import Agent
from signalbox.agents.coordinator_agent import CoordinatorAgent
from signalbox.agents.monitor_agent import MonitorAgent
from signalbox.agents.task_agent import TaskAgent
from signalbox.errors import ConfigError
from signalbox.skills.autoscaler_agent import AutoscalerAgent

if TYPE_CHECKING:
    from signalbox.sensors.contract import Sensor

BUILTIN_AGENTS: tuple[type[Agent], ...] = (TaskAgent, MonitorAgent, CoordinatorAgent)
#: Agents that have a flow of their own, whatever the app.
AGENTS_ELSEWHERE: tuple[type[Agent], ...] = (AutoscalerAgent,)


class App:
    """An explicit list of everything a system consists of.

    Raises:
        ConfigError: two agents, two actions or two sensors share a name.
    """

    def __init__(
        self,
        *,
        agents: Sequence[type[Agent]] = (),
        actions: Sequence[Action] = (),
        sensors: "Sequence[type[Sensor]]" = (),
        builtins: bool = True,
    ) -> None:
        self.shipped_agents = (*BUILTIN_AGENTS, *AGENTS_ELSEWHERE)
        self.agents_elsewhere = tuple(agent for agent in AGENTS_ELSEWHERE if agent not in agents)
        self.agents = (*(BUILTIN_AGENTS if builtins else ()), *agents)
        self.actions = (*(BUILTIN_ACTIONS if builtins else ()), *actions)
        self._sensors = tuple(sensors)
        self._builtins = builtins
        for what, names in (
            ("agent", [agent.name for agent in self.agents]),
            ("action", [action.name for action in self.actions]),
            ("sensor", [sensor.name for sensor in self._sensors]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                msg = f"the app lists more than one {what} called {', '.join(twice)}"
                raise ConfigError(msg, hint="give each a name of its own; builtins=False leaves the shipped ones out")

    @property
    def sensors(self) -> "tuple[type[Sensor], ...]":
        """The sensor classes; the shipped ones are imported only by the process that runs them."""
        if not self._builtins:
            return self._sensors
        from signalbox.sensors import BUILTIN_SENSORS  # noqa: PLC0415 - workers need neither psutil nor its start-up

        return (*BUILTIN_SENSORS, *self._sensors)


default_app = App()
