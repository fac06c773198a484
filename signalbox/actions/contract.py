"""The contract of an action: a pure function with a pydantic model in and JSON values or a model out.

An action here computes and returns; it does not wait and has no effect outside. A task names one by `action`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel

from signalbox.errors import ConfigError


class ActionError(Exception):
    """An action's own refusal.

    Attributes:
        type: a short, stable word for the caller.
        retryable: whether the same call may succeed later.
    """

    def __init__(self, message: str, *, type: str = "refused", retryable: bool = False) -> None:
        super().__init__(message)
        self.type = type
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Action:
    """A function with its name and the model of its parameters."""

    name: str
    description: str
    params: type[BaseModel]
    run: Callable[[Any], Any]

    def __call__(self, params: dict[str, Any]) -> Any:
        """Validate and run.

        Raises:
            pydantic.ValidationError: the parameters do not fit.
            ActionError: the action refused.
        """
        result = self.run(self.params.model_validate(params))
        return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def action(name: str | None = None) -> Callable[[Callable[[Any], Any]], Action]:
    """Make an action of a function with one parameter that is annotated with a pydantic model."""

    def make(function: Callable[[Any], Any]) -> Action:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters)
        model = hints.get(parameters[0]) if len(parameters) == 1 else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            msg = f"the action {function.__name__!r} needs one parameter, annotated with a pydantic model"
            raise ConfigError(msg, hint="write def my_action(params: MyParams) -> ...")
        description = (inspect.getdoc(function) or "").partition("\n")[0]
        return Action(name or function.__name__, description, model, function)

    return make
