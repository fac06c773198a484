"""Which handlers get a signal: patterns over its type, a router over patterns, conditions on data and state."""

from signalbox.routing.conditions import Condition, ConditionError, InvalidCondition, Operand, data, state
from signalbox.routing.pattern import InvalidPattern, Pattern, is_valid_type
from signalbox.routing.router import Route, Router

__all__ = [
    "Condition",
    "ConditionError",
    "InvalidCondition",
    "InvalidPattern",
    "Operand",
    "Pattern",
    "Route",
    "Router",
    "data",
    "is_valid_type",
    "state",
]
