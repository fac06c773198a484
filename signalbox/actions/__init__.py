"""Actions: named, typed units of work that agents perform."""

from signalbox.actions.breaker import Breaker
from signalbox.actions.builtin import BUILTIN_ACTIONS
from signalbox.actions.contract import Action, ActionContext, action
from signalbox.actions.dependency import Dependency, Rate
from signalbox.actions.retry import ActionError, Retry

__all__ = [
    "BUILTIN_ACTIONS",
    "Action",
    "ActionContext",
    "ActionError",
    "Breaker",
    "Dependency",
    "Rate",
    "Retry",
    "action",
]
