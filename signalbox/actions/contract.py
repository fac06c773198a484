"""The contract of an action: a named function with a pydantic model in, and a validated result out.

An action with an effect may wait, fail and be tried again; it runs beside the dataflow (`signalbox.actions.executor`).
A pure one (`effect=False`) only computes; it runs within its agent's handler.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, get_type_hints

from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from schemas.payloads.base import ErrorInfo
from signalbox.actions.dependency import Dependency
from signalbox.actions.retry import NO_RETRY, ActionError, Retry
from signalbox.actions.services import Services
from signalbox.errors import ConfigError

Function: TypeAlias = Callable[..., Any]
OnUnknown: TypeAlias = Literal["rerun", "reconcile", "compensate", "fail"]


class Call(Protocol):
    """Runs another action as a step of this one; see `ActionContext.call`."""

    async def __call__(self, action: str, params: Mapping[str, Any], *, key: str, cleanup: bool = False) -> Any:
        """Run it, or give what the step came to before the process ended in the middle of this action."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action with an effect may know and use besides its parameters."""

    idempotency_key: str
    """The same for every attempt, before and after a crash: hand it on, so that the other side can tell a repeat."""
    agent_id: str
    attempt: int
    """From 1."""
    deadline: datetime | None
    correlation_id: str | None
    log: logging.LoggerAdapter[logging.Logger]
    services: Services
    """What the actions of a worker process share."""
    call: Call
    """`await context.call("charge", {...}, key="charge")` runs another action as a step of this one, in an `async def`.

    How a step ended is journaled under its key before this returns, so a repeat of this action gets it from there and
    does not run the step again. A step has its own idempotency key, timeout and breaker. Its retry policy holds unless
    this action has one itself: attempts must not multiply. A step that fails raises `ActionError` with its type. With
    `cleanup` it is run even when the deadline has passed or the action was cancelled.
    """
    heartbeat: Callable[[], None] = lambda: None
    """Say that it still goes on: for `heartbeat_s`, and so that tokens from pools are not lost. Any thread may."""

    def now(self) -> datetime:
        """The time, in UTC, by the clock that the deadline is read against."""
        return self.services.clock.now()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A function with its name, the model of its parameters, and how it is to be run. Made by `action`."""

    name: str
    description: str
    params: type[BaseModel]
    run: Function
    result: TypeAdapter[Any]
    """What the function's return annotation says; a result that does not fit is an error of the action."""
    effect: bool = True
    """Whether it does more than compute."""
    timeout_s: float | None = None
    """Longest that one attempt may take."""
    heartbeat_s: float | None = None
    """Longest that an attempt may go without `ActionContext.heartbeat`."""
    retry: Retry = NO_RETRY
    limit: int | None = None
    """Most that run at once in one worker process."""
    uses: Dependency | Callable[[Any], Dependency] | None = None
    """What it depends on, or a function that tells this from the validated parameters."""
    resources: Mapping[str, int] = field(default_factory=dict)
    """Tokens that each attempt takes from the pools of `resources.pools`, by the pool's name."""
    on_unknown: OnUnknown = "rerun"
    """What happens when the process ended in the middle of it, and nobody knows how far it came."""
    reconcile: Function | None = None
    """Finds out what became of it: gives the result, or None if it has to be run."""
    compensation: Function | None = None
    """Undoes it; takes what the action takes, and must accept that there is nothing to undo."""
    fallback: Callable[[Any, ErrorInfo], Any] | None = None
    """Gives a result in place of an error that may pass but did not in time; None lets the error stand."""
    ends_itself: bool = False
    """Whether a deadline or a cancellation does not end it, but its steps, so that it can clean up behind itself."""

    @property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""
        return inspect.iscoroutinefunction(self.run)

    def __call__(self, params: dict[str, Any]) -> Any:
        """Validate and run a pure action; see `validated` and `perform` for what they raise."""
        return self.perform(self.validated(params))

    def validated(self, params: Mapping[str, Any]) -> BaseModel:
        """The parameters as the function wants them.

        Raises:
            pydantic.ValidationError: they do not fit.
        """
        return self.params.model_validate(params)

    def perform(self, params: BaseModel) -> Any:
        """Run a pure action with validated parameters, and give the result as JSON values.

        Raises:
            ActionError: the action refused, or its result does not fit.
            Exception: the action raised it.
        """
        return self.json_values(self.run(params))

    def json_values(self, result: Any) -> Any:
        """A result, checked against the return annotation, as JSON values.

        Raises:
            ActionError: it does not fit, or has no JSON form.
        """
        try:
            return self.result.dump_python(self.result.validate_python(result), mode="json", warnings="error")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(("result", *(str(part) for part in first["loc"])))
            msg = f"{place}: {first['msg']}"
            raise ActionError(msg, type="invalid_result") from None
        except ValueError as error:  # pydantic's own error for what it cannot write is one, too
            msg = f"the result has no JSON form: {error}"
            raise ActionError(msg, type="invalid_result") from None

    def dependency(self, params: BaseModel) -> Dependency | None:
        """What a call with these parameters depends on."""
        return self.uses(params) if callable(self.uses) else self.uses


def action(
    name: str | None = None,
    *,
    effect: bool = True,
    timeout_s: float | None = None,
    heartbeat_s: float | None = None,
    retry: Retry = NO_RETRY,
    limit: int | None = None,
    uses: Dependency | Callable[[Any], Dependency] | None = None,
    resources: Mapping[str, int] | None = None,
    on_unknown: OnUnknown = "rerun",
    reconcile: Function | None = None,
    compensation: Function | None = None,
    fallback: Callable[[Any, ErrorInfo], Any] | None = None,
    ends_itself: bool = False,
) -> Callable[[Function], Action]:
    """Make an action of a function whose first parameter is annotated with a pydantic model.

    A second parameter gets the `ActionContext`; `reconcile` and `compensation` are functions of the same form, and
    `fallback` takes the parameters and the error. Without `effect` the function has to be a plain `def` that computes.
    """

    def make(function: Function) -> Action:
        params, result = _signature(function, effect)
        if not effect and inspect.iscoroutinefunction(function):
            msg = f"the action {function.__name__!r} is an async def, and effect=False"
            raise ConfigError(msg, hint="leave effect=False out: what waits runs beside the dataflow")
        for policy, helper in (("reconcile", reconcile), ("compensate", compensation)):
            if on_unknown == policy and helper is None:
                msg = f"the action {function.__name__!r} has on_unknown={policy!r}, and nothing that does it"
                raise ConfigError(
                    msg, hint="give it reconcile=... or compensation=..., an async def or def like itself"
                )
        return Action(
            name=name or function.__name__,
            description=(inspect.getdoc(function) or "").partition("\n")[0],
            params=params,
            run=function,
            result=result,
            effect=effect,
            timeout_s=timeout_s,
            heartbeat_s=heartbeat_s,
            retry=retry,
            limit=limit,
            uses=uses,
            resources=resources or {},
            on_unknown=on_unknown,
            reconcile=reconcile,
            compensation=compensation,
            fallback=fallback,
            ends_itself=ends_itself,
        )

    return make


@functools.cache
def takes_context(function: Function) -> bool:
    """Whether a function's second parameter gets the `ActionContext`."""
    return len(inspect.signature(function).parameters) == 2


def _signature(function: Function, effect: bool) -> tuple[type[BaseModel], TypeAdapter[Any]]:
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    model = hints.get(parameters[0]) if parameters else None
    wants_context = len(parameters) == 2 and effect and hints.get(parameters[1]) is ActionContext
    if not (isinstance(model, type) and issubclass(model, BaseModel) and len(parameters) == 1 + wants_context):
        msg = f"the action {function.__name__!r} needs one parameter, annotated with a pydantic model"
        raise ConfigError(
            msg, hint="write def my_action(params: MyParams) -> ..., and context: ActionContext second if need be"
        )
    annotation = hints.get("return", Any)
    try:
        return model, TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        msg = f"the action {function.__name__!r} returns {annotation}, which has no JSON form"
        raise ConfigError(msg, hint="return a pydantic model, or JSON values") from None
