"""One thing that is tried until it succeeds or may not be tried again: an action, a step of one, or its compensation.

Each attempt waits for its places and for its dependency, has its own time limit, and its result is checked. What an
attempt raises, whatever it is, becomes the effort's error.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from pydantic import BaseModel, ValidationError

from schemas.payloads.base import ErrorInfo
from signalbox.actions.breaker import BreakerOpen, CircuitBreaker
from signalbox.actions.contract import Action, ActionContext, Call, Function, takes_context
from signalbox.actions.dependency import Dependencies, Dependency
from signalbox.actions.queue import ActionQueue, Key, Waiting
from signalbox.actions.retry import ActionError, Retry
from signalbox.actions.services import Services
from signalbox.actions.threads import ThreadPool
from signalbox.errors import described, first_problem
from signalbox.resources import ResourceExhausted, Token

Reason: TypeAlias = Literal["start", "retry", "restart", "drain"]
"""See `ActionAttempted.reason`."""


class Outcome(NamedTuple):
    """How an effort ended."""

    result: Any
    error: ErrorInfo | None = None


@dataclass(slots=True, eq=False)
class Effort:
    """What is tried, and what it has used up so far."""

    action: Action
    function: Function
    params: BaseModel
    retry: Retry
    idempotency_key: str
    agent_id: str
    deadline: datetime | None
    correlation_id: str | None
    call: Call
    began_s: float
    """When the first attempt might have begun, by the monotonic clock."""
    priority: int = 0
    limits: tuple[tuple[Key, int], ...] = ()
    """The limits that it counts against, besides its dependency's."""
    is_step: bool = False
    note: Callable[["Effort"], Awaitable[None]] | None = None
    """Called before an attempt that has a `reason`; None where no word of attempts is left."""
    reason: Reason | None = None
    """Why the next attempt is to be noted."""
    tokens: Sequence[Token] = ()
    """What the attempt that runs has from pools."""
    attempts: int = 1
    has_begun: bool = False
    """Whether an attempt began in this process."""
    in_action_s: float = 0.0


class Striver:
    """Sees efforts through, in the actions' event loop."""

    def __init__(self, services: Services, dependencies: Dependencies, queue: ActionQueue, threads: ThreadPool) -> None:
        self._services = services
        self.monotonic = services.clock.monotonic
        self._dependencies = dependencies
        self._queue = queue
        self._threads = threads
        self._chance = random.Random()  # noqa: S311 - spreads retries
        self._admitted: dict[Waiting, asyncio.Future[None]] = {}
        self._pauses: set[asyncio.Future[None]] = set()
        self._rate_timer: asyncio.TimerHandle | None = None
        self.attempts: Counter[str] = Counter()
        """Attempts by action, since the start of the process."""
        self.throttled = 0
        """Attempts that ended with the other side asking for patience."""
        self.stopping = False
        """Set it, and what is cancelled or would wait is given up with `CancelledError` and without an outcome."""

    async def outcome(self, effort: Effort) -> Outcome:
        """Try until it succeeds or may not be tried again.

        Raises:
            CancelledError: this was cancelled, and not by the action itself.
        """
        while True:
            try:
                return Outcome(await self._in_place(effort))
            except BreakerOpen as refusal:
                # Nothing was attempted, so this does not count; who may try again waits until it is worth it.
                failure, wait_s = ErrorInfo(type="breaker_open", message=str(refusal), retryable=True), None
                if effort.retry.max_attempts > 1:
                    wait_s = self._affordable(effort, refusal.retry_after_s * (1 + 0.2 * self._chance.random()))
                counts = False
            except BaseException as error:
                if _is_cancelled_from_outside(error) or (self.stopping and isinstance(error, asyncio.CancelledError)):
                    raise
                failure, counts = _error_info(error, effort.retry), True
                self.throttled += _asks_for_patience(error)
                wait_s = self._next_wait_s(effort, error)
            if wait_s is None:
                return self._given_up(effort, failure)
            if self.stopping:
                raise asyncio.CancelledError
            await self._pause(wait_s)
            if counts:
                effort.attempts += 1
                effort.reason = "retry"

    def dismiss(self) -> None:
        """Let go of all that do not run but wait, for a place or before a further attempt."""
        for future in (*self._admitted.values(), *self._pauses):
            future.cancel()

    def limit(self, key: Key, places: int) -> None:
        """Let so many efforts run under `key` from now on."""
        self._queue.limit(key, places)
        self._admit()

    async def _pause(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(wait_s, _wake, future)
        self._pauses.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._pauses.discard(future)

    def _next_wait_s(self, effort: Effort, error: BaseException) -> float | None:
        elapsed_s = self.monotonic() - effort.began_s
        if not isinstance(error, Exception):
            return None
        if not effort.retry.allows(error, attempts=effort.attempts, elapsed_s=elapsed_s):
            return None
        return self._affordable(effort, effort.retry.wait_s(error, attempts=effort.attempts, chance=self._chance))

    def _affordable(self, effort: Effort, wait_s: float) -> float | None:
        """`wait_s`, or None if after it there would be no time left for a further attempt."""
        elapsed_s = self.monotonic() - effort.began_s
        limit_s = effort.retry.max_elapsed_s
        left_s = self._left_s(effort.deadline)
        in_time = (limit_s is None or elapsed_s + wait_s < limit_s) and (left_s is None or wait_s < left_s)
        return wait_s if in_time else None

    def _given_up(self, effort: Effort, failure: ErrorInfo) -> Outcome:
        """The error, or what the action has in its place."""
        if effort.action.fallback is not None and effort.function is effort.action.run and failure.retryable:
            try:
                result = effort.action.fallback(effort.params, failure)
                if result is not None:
                    return Outcome(self._checked(effort.action.json_values(result)))
            except Exception as error:  # noqa: BLE001 - users wrote it; it becomes the outcome
                return Outcome(None, _error_info(error, effort.retry))
        return Outcome(None, failure)

    # Places.

    async def _in_place(self, effort: Effort) -> Any:
        dependency = effort.action.dependency(effort.params)
        shared = dependency and self._dependencies.shared(dependency)
        waiting = Waiting(
            _limits(effort, dependency),
            shared.bucket if shared else None,
            effort.priority,
            is_step=effort.is_step,
        )
        await self._admission(waiting, effort.deadline)
        try:
            async with AsyncExitStack() as holding:
                effort.tokens = [
                    await self._hold(holding, effort, pool, count)
                    for pool, count in sorted(effort.action.resources.items())
                ]
                return await self._guarded(effort, shared.breaker if shared else None)
        finally:
            self._queue.release(waiting)
            self._admit()

    async def _hold(self, holding: AsyncExitStack, effort: Effort, pool: str, count: int) -> Token:
        """Tokens of a pool, waited for until the deadline, and held until `holding` ends."""
        left_s = self._left_s(effort.deadline)
        try:
            return await holding.enter_async_context(
                self._services.resources.hold(pool, count, holder=effort.agent_id, wait_s=left_s)
            )
        except ResourceExhausted as error:
            raise ActionError(str(error), type="insufficient_resources", retryable=error.retryable) from None

    async def _guarded(self, effort: Effort, breaker: CircuitBreaker | None) -> Any:
        """Attempt it if its circuit breaker lets it, which is told how it went."""
        if breaker is None:
            return await self._attempt(effort)
        permit = breaker.admit()
        ok: bool | None = None
        try:
            result = await self._attempt(effort)
            ok = True
            return result
        except ActionError as error:
            ok = not error.retryable  # a definite answer is a sign of health
            raise
        except BaseException as error:
            # The end of this process, or somebody's wish, says nothing about the dependency.
            ok = None if self.stopping or _is_cancelled_from_outside(error) else False
            raise
        finally:
            breaker.record(permit, ok=ok)

    async def _admission(self, waiting: Waiting, deadline: datetime | None) -> None:
        self._queue.push(waiting)
        future = self._admitted[waiting] = asyncio.get_running_loop().create_future()
        self._admit()
        if future.done():
            return
        try:
            async with asyncio.timeout(self._left_s(deadline)):
                await future
        except BaseException as error:
            if self._admitted.pop(waiting, None) is not None:
                self._queue.withdraw(waiting)
            elif not future.cancelled():
                self._queue.release(waiting)
            self._admit()
            if isinstance(error, TimeoutError):
                raise _too_late(deadline) from None
            raise

    def _admit(self) -> None:
        for waiting in self._queue.admitted():
            future = self._admitted.pop(waiting)
            if future.cancelled():  # whoever waited has not noticed yet
                self._queue.release(waiting)
            else:
                future.set_result(None)
        wait_s = self._queue.wait_s()
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        if wait_s is not None:
            self._rate_timer = asyncio.get_running_loop().call_later(max(wait_s, 0.001), self._admit)

    # One attempt.

    async def _attempt(self, effort: Effort) -> Any:
        left_s = self._left_s(effort.deadline)
        if left_s is not None and left_s <= 0:
            raise _too_late(effort.deadline)
        if effort.reason is not None:
            if effort.note is not None:
                await effort.note(effort)
            effort.reason = None
        action = effort.action
        self.attempts[action.name] += 1
        effort.has_begun = True
        limit_s = min((one for one in (action.timeout_s, left_s) if one is not None), default=None)
        began_s = time.perf_counter()
        try:
            result = await self._limited(effort, limit_s)
            if effort.function is action.compensation or (result is None and effort.function is action.reconcile):
                return None
            return self._checked(action.json_values(result))
        finally:
            effort.in_action_s += time.perf_counter() - began_s

    async def _limited(self, effort: Effort, limit_s: float | None) -> Any:
        """Run it, at most so long, and no longer than it shows signs of life."""
        watch = _Watch(limit_s, effort.action.heartbeat_s)

        def heartbeat() -> None:
            for token in effort.tokens:
                self._services.resources.renew(token)
            watch.heard()

        context = self._context(effort, heartbeat) if takes_context(effort.function) else None
        arguments = (effort.params,) if context is None else (effort.params, context)
        try:
            async with watch.timeout:
                if asyncio.iscoroutinefunction(effort.function):
                    result = await effort.function(*arguments)
                else:
                    result = await self._threads.run(effort.function, *arguments)
        except TimeoutError as error:
            if not watch.timeout.expired():
                raise
            raise watch.overdue() from error
        if watch.timeout.expired():  # it was told, and took no notice
            raise watch.overdue()
        return result

    def _context(self, effort: Effort, heartbeat: Callable[[], None]) -> ActionContext:
        return ActionContext(
            idempotency_key=effort.idempotency_key,
            agent_id=effort.agent_id,
            attempt=effort.attempts,
            deadline=effort.deadline,
            correlation_id=effort.correlation_id,
            log=logging.LoggerAdapter(
                logging.getLogger(f"signalbox.action.{effort.action.name}"),
                {"agent_id": effort.agent_id, "action": effort.action.name},
            ),
            services=self._services,
            call=effort.call,
            heartbeat=heartbeat,
        )

    def _checked(self, result: Any) -> Any:
        allowed = self._services.settings.actions.result_bytes
        try:
            size = len(msgspec.json.encode(result))
        except (TypeError, ValueError) as error:  # such as half a character, which has no form in UTF-8
            msg = f"the result has no JSON form: {error}"
            raise ActionError(msg, type="invalid_result") from None
        if size > allowed:
            msg = f"the result has {size} bytes as JSON; actions.result_bytes allows {allowed}"
            raise ActionError(msg, type="result_too_large")
        return result

    def _left_s(self, deadline: datetime | None) -> float | None:
        return None if deadline is None else (deadline - self._services.clock.now()).total_seconds()


class _Watch:
    """Bounds the time of one attempt: all of it, and that from one sign of life to the next."""

    def __init__(self, limit_s: float | None, silence_s: float | None) -> None:
        self._limit_s = limit_s
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._end_s = math.inf if limit_s is None else self._loop.time() + limit_s
        self.timeout = asyncio.timeout_at(self._next_s())

    def heard(self) -> None:
        """It lives. Any thread may say so."""
        if self._silence_s is not None:
            self._loop.call_soon_threadsafe(self._put_off)

    def overdue(self) -> TimeoutError:
        """What the end of the time is told as."""
        if self._loop.time() < self._end_s:
            return TimeoutError(f"it gave no sign of life for {self._silence_s:g} s")
        return TimeoutError(f"it took longer than {self._limit_s:g} s")

    def _put_off(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is over
            self.timeout.reschedule(self._next_s())

    def _next_s(self) -> float | None:
        silence_s = math.inf if self._silence_s is None else self._silence_s
        next_s = min(self._end_s, self._loop.time() + silence_s)
        return None if next_s == math.inf else next_s


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _limits(effort: Effort, dependency: Dependency | None) -> tuple[tuple[Key, int], ...]:
    if dependency is None or dependency.limit is None:
        return effort.limits
    return (*effort.limits, (("dependency", dependency.name), dependency.limit))


def _is_cancelled_from_outside(error: BaseException) -> bool:
    """Whether somebody cancelled our task; an action may raise the same of its own accord."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _too_late(deadline: datetime | None) -> ActionError:
    return ActionError(f"the deadline {deadline} has passed", type="deadline_exceeded")


def _asks_for_patience(error: BaseException) -> bool:
    """Whether it is an answer such as 429, or any that says when to come again."""
    return isinstance(error, ActionError) and (error.type == "http_429" or error.retry_after_s is not None)


def _error_info(error: BaseException, retry: Retry) -> ErrorInfo:
    name, message = described(error)
    details = None
    if isinstance(error, ActionError):
        name, details = error.type[:256] or name, error.details
    return ErrorInfo(type=name, message=message, retryable=retry.is_passing(error), details=details)


def invalid_params(error: ValidationError) -> ErrorInfo:
    """A validation error as the error of a task."""
    return ErrorInfo(type="invalid_params", message=first_problem(error, "params"))


def failed(type: str, message: str) -> Outcome:
    """An effort that ended with an error of this type."""
    return Outcome(None, ErrorInfo(type=type, message=message))


CANCELLED = failed("cancelled", "the agent that asked for it cancelled it")
