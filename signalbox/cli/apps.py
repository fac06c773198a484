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
