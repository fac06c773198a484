"""The contract of an action: a named function with a pydantic model in, and JSON values or a model out.

An action with an effect may wait, fail and be tried again; it runs beside the dataflow (`signalbox.actions.executor`).
A pure one (`effect=False`) only computes; it runs within its agent's handler.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, get_type_hints

from pydantic import BaseModel, TypeAdapter

from signalbox.actions.breaker import Breaker
from signalbox.actions.retry import NO_RETRY, Retry
from signalbox.errors import ConfigError

_to_json_values = TypeAdapter(Any).dump_python
Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action with an effect may know besides its parameters."""

    idempotency_key: str
    """The same for every attempt, before and after a crash: hand it on, so that the other side can tell a repeat."""
    agent_id: str
    attempt: int
    """From 1."""
    deadline: datetime | None
    correlation_id: str | None
    log: logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True, slots=True)
class Action:
    """A function with its name, the model of its parameters, and how it is to be run."""

    name: str
    description: str
    params: type[BaseModel]
    run: Function
    effect: bool = True
    """Whether it does more than compute."""
    timeout_s: float | None = None
    """Longest that one attempt may take."""
    retry: Retry = NO_RETRY
    limit: int | None = None
    """Most that run at once in one worker process."""
    breaker: Breaker | None = None
    """The circuit breaker of what it depends on."""
    wants_context: bool = False

    @property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""
        return inspect.iscoroutinefunction(self.run)

    def __call__(self, params: dict[str, Any]) -> Any:
        """Validate and run a pure action; see `validated` and `perform` for what they raise."""
        return self.perform(self.validated(params))

    def validated(self, params: dict[str, Any]) -> BaseModel:
        """The parameters as the function wants them.

        Raises:
            pydantic.ValidationError: they do not fit.
        """
        return self.params.model_validate(params)

    def perform(self, params: BaseModel) -> Any:
        """Run a pure action with validated parameters, and give the result as JSON values.

        Raises:
            ActionError: the action refused.
            Exception: the action raised it, or its result has no JSON form.
        """
        return json_values(self.run(params))

    def call(self, params: BaseModel, context: ActionContext) -> Awaitable[Any] | Any:
        """Begin one attempt: the result, or of an `async def` the coroutine."""
        return self.run(params, context) if self.wants_context else self.run(params)


def json_values(result: Any) -> Any:
    """A result as JSON values.

    Raises:
        ValueError: it has no JSON form.
    """
    return _to_json_values(result, mode="json")


def action(
    name: str | None = None,
    *,
    effect: bool = True,
    timeout_s: float | None = None,
    retry: Retry = NO_RETRY,
    limit: int | None = None,
    breaker: Breaker | None = None,
) -> Callable[[Function], Action]:
    """Make an action of a function whose first parameter is annotated with a pydantic model.

    A second parameter gets the `ActionContext`. Without `effect` the function has to be a plain `def` that computes.
    """

    def make(function: Function) -> Action:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters)
        model = hints.get(parameters[0]) if parameters else None
        wants_context = len(parameters) == 2 and effect and hints.get(parameters[1]) is ActionContext
        if not (isinstance(model, type) and issubclass(model, BaseModel) and len(parameters) == 1 + wants_context):
            msg = f"the action {function.__name__!r} needs one parameter, annotated with a pydantic model"
            raise ConfigError(
                msg, hint="write def my_action(params: MyParams) -> ..., and context: ActionContext second if need be"
            )
        if not effect and inspect.iscoroutinefunction(function):
            msg = f"the action {function.__name__!r} is an async def, and effect=False"
            raise ConfigError(msg, hint="leave effect=False out: what waits runs beside the dataflow")
        description = (inspect.getdoc(function) or "").partition("\n")[0]
        return Action(
            name or function.__name__,
            description,
            model,
            function,
            effect=effect,
            timeout_s=timeout_s,
            retry=retry,
            limit=limit,
            breaker=breaker,
            wants_context=wants_context,
        )

    return make
