"""The app that the settings name, loaded and compiled as a node would."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signalbox.agents.plan import Plan
    from signalbox.config import Settings


def load_app(settings: "Settings") -> Any:
    """Import the app, looking in the present folder first, as `python -m` does.

    Raises:
        ConfigError: the import string names nothing, or something that is not an `App`.
    """
    from signalbox import plugins

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return plugins.load_app(settings.node.app)


def load_plan(settings: "Settings") -> "Plan":
    """The app compiled against the settings. Raises `ConfigError` as `load_app` and `Plan` do."""
    from signalbox.agents.plan import Plan

    return Plan(load_app(settings), settings)


def load_plans(settings: "Settings") -> "list[Plan]":
    """The same, and after it the plan of the shipped agents that have flows of their own.

    Raises:
        ConfigError: as `load_plan`, or settings of those agents or their skills are wrong.
    """
    from signalbox.agents.plan import Plan
    from signalbox.app import App

    app = load_app(settings)
    plans = [Plan(app, settings)]
    if elsewhere := app.agents_elsewhere:
        names = {agent.name for agent in elsewhere}
        theirs = {name: given for name, given in settings.agents.items() if name in names}
        own = settings.model_copy(update={"agents": theirs})
        plans.append(Plan(App(agents=elsewhere, builtins=False), own))
    return plans
