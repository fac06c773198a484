"""Runs actions with effects beside the dataflow: many at once, each as often as its policy and the journal allow.

One thread runs an asyncio loop; plain functions run in its pool of threads. Before a further attempt, and with the
outcome, a record goes to the topic `effects`, and counts only once the broker has it. What a drain or a crash cuts
short has no outcome there, and is run again by whoever reads the request next (`signalbox.actions.ledger`).
"""

import asyncio
import heapq
import itertools
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from pydantic import ValidationError

from schemas.payloads.actions import ActionAttempted, ActionCompleted, ActionFailed
from schemas.payloads.base import ErrorInfo
from schemas.signal import Signal, new_signal
from signalbox.actions.breaker import BreakerOpen, CircuitBreaker
from signalbox.actions.contract import Action, ActionContext, json_values
from signalbox.actions.ledger import ATTEMPTED, COMPLETED, FAILED, Instruction
from signalbox.actions.retry import ActionError
from signalbox.clock import Clock
from signalbox.config import ActionSettings
from signalbox.errors import ConfigError, described
from signalbox.ids import derived_id

log = logging.getLogger(__name__)


class Journal(Protocol):
    """Appends to the topic `effects`."""

    def append(self, partition: int, signal: Signal[Any]) -> "Future[None]":
        """Write a signal; the future is done when the broker has it."""
        ...

    def close(self) -> None:
        """Wait a little for what is under way, and let go."""
        ...


@dataclass(slots=True)
class _Spent:
    """What one instruction has used up so far."""

    attempts: int
    began_s: float
    in_action_s: float = 0.0


class Executor:
    """The actions of one worker process. One thread starts and stops it; the counts may be read from any."""

    def __init__(self, actions: Mapping[str, Action], journal: Journal, settings: ActionSettings, clock: Clock) -> None:
        self._actions = actions
        self._journal = journal
        self._settings = settings
        self._clock = clock
        self.breakers = _breakers(actions.values(), clock)
        """The circuit breakers of this process, by the name of the dependency."""
        self._chance = random.Random()  # noqa: S311 - spreads retries
        self._waiting: list[tuple[int, int, Instruction]] = []
        """A heap: the more urgent and then the older first."""
        self._order = itertools.count()
        self._running: Counter[str] = Counter()
        self._company: Counter[int] = Counter()
        """How many run by how often a process has ended in their middle."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.finished: Counter[tuple[str, str]] = Counter()
        """Ended instructions by action and `completed` or `failed`, since the start of the process."""
        self.attempts: Counter[str] = Counter()
        """Attempts by action."""
        self._started = 0
        self._finished = 0

    @property
    def in_flight(self) -> int:
        """Instructions that were started and have no outcome yet."""
        return self._started - self._finished

    def is_full(self) -> bool:
        """Whether further requests had better wait on their topics."""
        return self.in_flight >= self._settings.max_in_flight

    def start(self, instruction: Instruction) -> None:
        """Run an instruction as soon as there is room for it."""
        self._started += 1
        self._running_loop().call_soon_threadsafe(self._enqueue, instruction)

    def stop(self, grace_s: float) -> None:
        """Give what runs so long to end, and leave the rest for the next start."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._wind_down(grace_s), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
        self._journal.close()

    # In the loop's thread.

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_default_executor(ThreadPoolExecutor(self._settings.threads, thread_name_prefix="action"))
            self._thread = threading.Thread(target=self._loop.run_forever, name="actions", daemon=True)
            self._thread.start()
        return self._loop

    async def _wind_down(self, grace_s: float) -> None:
        self._stopping = True
        self._waiting.clear()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in unfinished:
                task.cancel()
            if unfinished:
                log.info("%d actions are left for the next start", len(unfinished))
                await asyncio.wait(unfinished, timeout=1.0)

    def _enqueue(self, instruction: Instruction) -> None:
        heapq.heappush(self._waiting, (-instruction.request.priority, next(self._order), instruction))
        self._fill()

    def _fill(self) -> None:
        """Begin what there is room for, in order; what waits for its own action's limit lets others pass."""
        held: list[tuple[int, int, Instruction]] = []
        while self._waiting and len(self._tasks) < self._settings.max_running and not self._stopping:
            entry = heapq.heappop(self._waiting)
            instruction = entry[2]
            action = self._actions.get(instruction.request.action)
            if not self._has_room(instruction, action):
                held.append(entry)
                continue
            self._running[instruction.request.action] += 1
            self._company[instruction.restarts] += 1
            task = asyncio.get_running_loop().create_task(self._see_through(instruction, action))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        for entry in held:
            heapq.heappush(self._waiting, entry)

    def _has_room(self, instruction: Instruction, action: Action | None) -> bool:
        if action is not None and action.limit is not None and self._running[action.name] >= action.limit:
            return False
        # One action that ends its process takes all others with it. Each time, those cut short run in smaller company,
        # until the one at fault runs by itself and alone is counted against.
        return self._company[instruction.restarts] < max(1, self._settings.max_running >> 4 * instruction.restarts)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an action's outcome could not be written", exc_info=error)
        self._fill()

    async def _see_through(self, instruction: Instruction, action: Action | None) -> None:
        """Attempt an instruction until it ends, and write down how."""
        try:
            spent = _Spent(instruction.attempts, self._clock.monotonic())
            result, error = await self._outcome(instruction, action, spent)
            await self._write_outcome(instruction, spent, result, error)
        finally:
            self._finished += 1
            self._running[instruction.request.action] -= 1
            self._company[instruction.restarts] -= 1

    async def _outcome(
        self, instruction: Instruction, action: Action | None, spent: _Spent
    ) -> tuple[Any, ErrorInfo | None]:
        request = instruction.request
        if action is None:
            return None, ErrorInfo(type="unknown_action", message=f"there is no action {request.action!r}")
        try:
            params = action.validated(request.params)
        except ValidationError as invalid:
            return None, _invalid(invalid)
        if spent.attempts:
            if instruction.restarts >= self._settings.max_restarts:
                msg = f"the process has ended {instruction.restarts + 1} times in the middle of it"
                return None, ErrorInfo(type="poisoned", message=msg)
            await self._note_attempt(instruction, spent, "restart")
        else:
            spent.attempts = 1
        return await self._try(instruction, action, params, spent)

    async def _try(
        self, instruction: Instruction, action: Action, params: Any, spent: _Spent
    ) -> tuple[Any, ErrorInfo | None]:
        """Attempt it until it succeeds or may not be tried again."""
        while True:
            try:
                return await self._attempt(instruction, action, params, spent), None
            except BreakerOpen as refusal:
                # Nothing was attempted, so this does not count; who would try again waits until it is worth it.
                wait_s = refusal.retry_after_s * (1 + 0.2 * self._chance.random())
                if not self._may_wait(instruction, action, spent, wait_s):
                    return None, ErrorInfo(type="breaker_open", message=str(refusal), retryable=True)
                await asyncio.sleep(wait_s)
                continue
            except BaseException as error:
                if self._stopping and isinstance(error, asyncio.CancelledError):
                    raise
                failure = error  # an action may raise anything; it becomes the outcome
            elapsed_s = self._clock.monotonic() - spent.began_s
            wait_s = action.retry.wait_s(failure, attempts=spent.attempts, chance=self._chance)
            if (
                not isinstance(failure, Exception)
                or not action.retry.allows(failure, attempts=spent.attempts, elapsed_s=elapsed_s)
                or self._is_too_late(instruction, wait_s)
            ):
                return None, _error_info(failure, action)
            await asyncio.sleep(wait_s)
            await self._note_attempt(instruction, spent, "retry")

    async def _attempt(self, instruction: Instruction, action: Action, params: Any, spent: _Spent) -> Any:
        limit_s = self._limit_s(instruction, action)
        if limit_s is not None and limit_s <= 0:
            msg = f"the deadline {instruction.request.deadline} has passed"
            raise ActionError(msg, type="deadline_exceeded")
        context = ActionContext(
            idempotency_key=instruction.id,
            agent_id=instruction.request.agent_id,
            attempt=spent.attempts,
            deadline=instruction.request.deadline,
            correlation_id=instruction.correlation_id,
            log=logging.LoggerAdapter(
                logging.getLogger(f"signalbox.action.{action.name}"),
                {"agent_id": instruction.request.agent_id, "action": action.name},
            ),
        )
        breaker = self.breakers[action.breaker.name] if action.breaker else None
        permit = breaker.admit() if breaker else 0
        self.attempts[action.name] += 1
        ok: bool | None = None
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(limit_s):
                if action.is_async:
                    result = await action.call(params, context)
                else:
                    result = await asyncio.to_thread(action.call, params, context)
            ok = True
            return json_values(result)
        except ActionError as error:
            ok = not error.retryable  # a definite answer is a sign of health
            raise
        except TimeoutError as error:
            ok = False
            if str(error):
                raise
            msg = f"it took longer than {limit_s:g} s"
            raise TimeoutError(msg) from error
        except BaseException:
            ok = None if self._stopping else ok or False
            raise
        finally:
            spent.in_action_s += time.perf_counter() - began_s
            if breaker is not None:
                breaker.record(permit, ok=ok)

    def _limit_s(self, instruction: Instruction, action: Action) -> float | None:
        """Seconds that an attempt may take: what the action allows or what is left until the deadline."""
        deadline = instruction.request.deadline
        left_s = None if deadline is None else (deadline - self._clock.now()).total_seconds()
        return min((one for one in (action.timeout_s, left_s) if one is not None), default=None)

    def _may_wait(self, instruction: Instruction, action: Action, spent: _Spent, wait_s: float) -> bool:
        """Whether an action that may be tried again at all can wait so long for its dependency."""
        retry, elapsed_s = action.retry, self._clock.monotonic() - spent.began_s
        in_time = retry.max_elapsed_s is None or elapsed_s + wait_s < retry.max_elapsed_s
        return retry.max_attempts > 1 and in_time and not self._is_too_late(instruction, wait_s)

    def _is_too_late(self, instruction: Instruction, wait_s: float) -> bool:
        deadline = instruction.request.deadline
        return deadline is not None and (deadline - self._clock.now()).total_seconds() <= wait_s

    # The journal.

    async def _note_attempt(self, instruction: Instruction, spent: _Spent, reason: Any) -> None:
        spent.attempts += 1
        record = ActionAttempted(instruction_id=instruction.id, attempt=spent.attempts, reason=reason)
        await self._append(instruction, ATTEMPTED, record, spent.attempts)

    async def _write_outcome(
        self, instruction: Instruction, spent: _Spent, result: Any, error: ErrorInfo | None
    ) -> None:
        size = len(msgspec.json.encode(result))
        if error is None and size > self._settings.result_bytes:
            msg = f"the result has {size} bytes as JSON; actions.result_bytes allows {self._settings.result_bytes}"
            error = ErrorInfo(type="result_too_large", message=msg)
        common: dict[str, Any] = {
            "instruction_id": instruction.id,
            "agent_id": instruction.request.agent_id,
            "action": instruction.request.action,
            "context": instruction.request.context,
            "duration_ms": spent.in_action_s * 1000,
            "attempts": spent.attempts,
        }
        self.finished[self._label(instruction), "failed" if error else "completed"] += 1
        if error is None:
            await self._append(instruction, COMPLETED, ActionCompleted(**common, result=result), 0)
        else:
            await self._append(instruction, FAILED, ActionFailed(**common, error=error), 0)

    def _label(self, instruction: Instruction) -> str:
        """The action's name for metrics. Anyone can ask for actions that are not there, so those share one."""
        name = instruction.request.action
        return name if name in self._actions else "unknown"

    async def _append(self, instruction: Instruction, type: str, data: Any, index: int) -> None:
        record = new_signal(
            type,
            data,
            source=f"executor/{instruction.request.action}",
            subject=instruction.subject,
            id=derived_id(instruction.id, type, index),
            time=self._clock.now(),
            correlationid=instruction.correlation_id,
            causationid=instruction.id,
            traceparent=instruction.traceparent,
        )
        await asyncio.wrap_future(self._journal.append(instruction.partition, record))


def _breakers(actions: Iterable[Action], clock: Clock) -> dict[str, CircuitBreaker]:
    found: dict[str, CircuitBreaker] = {}
    for policy in (action.breaker for action in actions if action.breaker is not None):
        known = found.setdefault(policy.name, CircuitBreaker(policy, clock.monotonic))
        if known.policy != policy:
            msg = f"two actions describe the breaker {policy.name!r} differently"
            raise ConfigError(msg, hint="write Breaker(...) once, and give both actions that one")
    return found


def _error_info(error: BaseException, action: Action) -> ErrorInfo:
    name, message = described(error)
    if isinstance(error, ActionError):
        name = error.type[:256] or name
    return ErrorInfo(type=name, message=message, retryable=action.retry.is_passing(error))


def _invalid(error: ValidationError) -> ErrorInfo:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "params"
    return ErrorInfo(type="invalid_params", message=f"{place}: {first['msg']}")
