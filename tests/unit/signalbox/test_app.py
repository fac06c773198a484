"""The app: an explicit list of what a system consists of."""

import subprocess
import sys

import pytest
from pydantic import BaseModel

from signalbox.actions import BUILTIN_ACTIONS, action
from signalbox.agents import Agent
from signalbox.agents.coordinator_agent import CoordinatorAgent
from signalbox.agents.monitor_agent import MonitorAgent
from signalbox.agents.task_agent import TaskAgent
from signalbox.app import App, default_app
from signalbox.errors import ConfigError


class Own(Agent):
    """A user's agent."""


class Params(BaseModel):
    n: int = 0


@action(effect=False)
def own(params: Params) -> int:
    """A user's action."""
    return params.n


def test_the_shipped_ones_come_first() -> None:
    """An app has the shipped agents and actions, and then its own."""
    app = App(agents=[Own], actions=[own])
    assert app.agents == (TaskAgent, MonitorAgent, CoordinatorAgent, Own)
    assert app.actions == (*BUILTIN_ACTIONS, own)
    assert default_app.agents == (TaskAgent, MonitorAgent, CoordinatorAgent)


def test_the_shipped_ones_can_be_left_out() -> None:
    """With `builtins=False` an app is what it lists and nothing else."""
    app = App(agents=[Own], builtins=False)
    assert (app.agents, app.actions, app.sensors) == ((Own,), (), ())


def test_two_of_one_name_are_refused() -> None:
    """Agents, actions and sensors need names of their own, since settings and routes go by them."""
    other = type("Other", (Agent,), {"name": "task_agent"})
    with pytest.raises(ConfigError, match="more than one agent called task_agent"):
        App(agents=[other])
    assert App(agents=[other], builtins=False).agents == (other,)
    with pytest.raises(ConfigError, match="more than one action called echo"):
        App(actions=[action("echo")(own.run)])
    with pytest.raises(ConfigError, match="more than one agent called own"):
        App(agents=[Own, Own])


def test_workers_do_not_import_sensors() -> None:
    """An app is made without the sensors' libraries, which only the sensor process needs."""
    code = "import signalbox.app, sys; sys.exit('psutil' in sys.modules or 'signalbox.sensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert len(default_app.sensors) >= 2
