"""Actions: named, typed units of work that agents perform."""

from signalbox.actions.builtin import BUILTIN_ACTIONS
from signalbox.actions.contract import Action, ActionError, action

__all__ = ["BUILTIN_ACTIONS", "Action", "ActionError", "action"]
