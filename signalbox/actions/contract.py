"""The contract of an action: a pure function with a pydantic model in and JSON values or a model out.

An action here computes and returns; it does not wait and has no effect outside. A task names one by `action`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter

from signalbox.errors import ConfigError

_to_json_values = TypeAdapter(Any).dump_python


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
        """Validate and run; see `validated` and `perform` for what they raise."""
        return self.perform(self.validated(params))

    def validated(self, params: dict[str, Any]) -> BaseModel:
        """The parameters as the function wants them.

        Raises:
            pydantic.ValidationError: they do not fit.
        """
        return self.params.model_validate(params)

    def perform(self, params: BaseModel) -> Any:
        """Run with validated parameters, and give the result as JSON values.

        Raises:
            ActionError: the action refused.
            Exception: the action raised it, or its result has no JSON form.
        """
        return _to_json_values(self.run(params), mode="json")


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
