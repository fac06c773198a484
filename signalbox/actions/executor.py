"""Runs actions with effects beside the dataflow: many at once, each as often as its policy and the journal allow.

One thread runs an asyncio loop; plain functions run in a pool of threads. Before a further attempt, after each step and
with the outcome, a record goes to the topic `effects`, and counts only once the broker has it. What a drain or a crash
cuts short has no outcome there, and is taken up by whoever reads the request next (`signalbox.actions.ledger`).
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import ValidationError

from schemas.payloads.actions import (
    ActionAttempted,
    ActionCompleted,
    ActionFailed,
    ActionStepEnded,
    BreakerChanged,
)
from schemas.signal import Signal, new_signal
from signalbox.actions.breaker import CircuitBreaker, State
from signalbox.actions.contract import Action
from signalbox.actions.dependency import Dependencies, Dependency
from signalbox.actions.effort import CANCELLED, Effort, Outcome, Striver, failed, invalid_params
from signalbox.actions.ledger import ATTEMPTED, COMPLETED, FAILED, STEP_ENDED, Instruction
from signalbox.actions.mailbox import Mailbox
from signalbox.actions.queue import ActionQueue, Key
from signalbox.actions.services import Services
from signalbox.actions.steps import Steps
from signalbox.actions.tally import Tally
from signalbox.actions.threads import ThreadPool
from signalbox.config import Settings
from signalbox.errors import ConfigError
from signalbox.ids import derived_id

log = logging.getLogger(__name__)

Acknowledged = Callable[[BaseException | None], None]
"""Told once what became of a record: None when the broker has it."""


class Journal(Protocol):
    """Appends to topics."""

    def append(self, partition: int, signal: Signal[Any], acknowledged: Acknowledged) -> None:
        """Write to a partition of `effects`; `acknowledged` may be called from any thread."""
        ...

    def announce(self, topic: str, signal: Signal[Any]) -> None:
        """Write to another topic, where nothing depends on it."""
        ...

    def close(self) -> None:
        """Wait a little for what is under way, and let go."""
        ...


@dataclass(slots=True, eq=False)
class _Run:
    """One instruction on its way to its outcome."""

    instruction: Instruction
    task: "asyncio.Task[None] | None" = None
    effort: Effort | None = None
    steps: Steps | None = None
    is_ending: bool = False
    """Whether it is settled how it ends, so that it cannot be cancelled any more."""


class Executor:
    """The actions of one worker process. One thread starts and stops it; the counts may be read from any."""

    def __init__(
        self,
        actions: Mapping[str, Action],
        journal: Journal,
        services: Services,
        tally: Tally | None = None,
        members: Callable[[str], int] = lambda _pool: 1,
    ) -> None:
        """Args:
        actions: by name.
        journal: appends to topics.
        services: for actions, and the settings.
        tally: counts what pools ask for.
        members: how many agents a pool has now; say `resized` when that changes.
        """
        self.services = services
        self.tally = tally or Tally()
        self._members = members
        self._actions = actions
        self._journal = journal
        self._settings = services.settings.actions
        self._mail = Mailbox()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._threads = ThreadPool(self._settings.threads, self._mail.post)
        self._dependencies = Dependencies(services.clock.monotonic, self._breaker_changed)
        _require_pools(actions, services.settings)
        for dependency in _known_dependencies(actions):
            self._dependencies.shared(dependency)
        queue = ActionQueue(self._settings.max_running)
        self._striver = Striver(services, self._dependencies, queue, self._threads)
        self._runs: dict[str, _Run] = {}
        self._started = 0
        self._ended = 0
        self.finished: Counter[tuple[str, str]] = Counter()
        """Ended instructions by action and `completed` or `failed`, since the start of the process."""
        self.recovered: Counter[str] = Counter()
        """Those among the completed ones that needed more than one attempt, by action."""

    @property
    def in_flight(self) -> int:
        """Instructions that were started and have no outcome yet."""
        return self._started - self._ended

    @property
    def attempts(self) -> Counter[str]:
        """Attempts by action, since the start of the process."""
        return self._striver.attempts

    @property
    def throttled(self) -> int:
        """Attempts that ended with the other side asking for patience, since the start of the process."""
        return self._striver.throttled

    @property
    def lost_threads(self) -> int:
        """Threads that are held by actions which did not come back in time."""
        return self._threads.lost

    @property
    def breakers(self) -> dict[str, CircuitBreaker]:
        """The circuit breakers of this process, by the name of the dependency."""
        return self._dependencies.breakers()

    def announce(self, topic: str, signal: Signal[Any]) -> None:
        """Write a signal of this process's own to a topic. Any thread may."""
        self._journal.announce(topic, signal)

    def is_full(self) -> bool:
        """Whether further requests had better wait on their topics."""
        return self.in_flight >= self._settings.max_in_flight

    def start(self, instruction: Instruction) -> None:
        """See `signalbox.actions.ledger.Runner`."""
        self._started += 1
        self.tally.asked(instruction.request.agent_id)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._mail.open(self._loop)
            self._thread = threading.Thread(target=self._run_loop, args=(self._loop,), name="actions", daemon=True)
            self._thread.start()
        self._mail.post(self._begin, instruction)

    def cancel(self, instruction: Instruction) -> None:
        """See `signalbox.actions.ledger.Runner`."""
        self._mail.post(self._cancel, instruction.id)

    def resized(self, pool: str) -> None:
        """A pool has another number of members. Any thread may say so."""
        if (most := self._settings.max_running_per_agent) is not None:
            self._mail.post(self._striver.limit, ("pool", pool), most * self._members(pool))

    def stop(self, grace_s: float) -> None:
        """Give what runs so long to end, and leave the rest for the next start."""
        if self._loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._wind_down(grace_s), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._journal.close()

    # In the loop's thread.

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._striver.stopping:
            try:
                loop.run_forever()
            except BaseException:  # a task that an action left behind may end with anything
                log.exception("an action's task ended the event loop, which goes on")

    async def _wind_down(self, grace_s: float) -> None:
        self._striver.stopping = True
        tasks = {run.task for run in self._runs.values() if run.task is not None}
        self._striver.dismiss()
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=grace_s)
            for task in unfinished:
                task.cancel()
            if unfinished:
                log.info("%d actions are left for the next start", len(unfinished))
                await asyncio.wait(unfinished, timeout=1.0)
        self._threads.close()
        await self.services.close()

    def _begin(self, instruction: Instruction) -> None:
        run = self._runs[instruction.id] = _Run(instruction)
        run.task = asyncio.get_running_loop().create_task(self._see_through(run))
        run.task.add_done_callback(lambda task: self._forget(instruction.id, task))

    def _forget(self, id: str, task: "asyncio.Task[None]") -> None:
        run = self._runs.pop(id, None)
        self._ended += 1
        if run is not None:
            self.tally.ended(run.instruction.request.agent_id, run.effort.in_action_s if run.effort else 0.0)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an action's outcome could not be written", exc_info=error)

    def _cancel(self, id: str) -> None:
        run = self._runs.get(id)
        # Without an effort its task has not begun, and will see by itself that it was cancelled; ended before its first
        # step, it would leave no outcome.
        if run is None or run.task is None or run.effort is None or run.is_ending:
            return
        if run.steps is not None and run.effort.action.ends_itself and run.effort.has_begun:
            run.steps.cancel()
        else:
            run.task.cancel()

    async def _see_through(self, run: _Run) -> None:
        """Try an instruction until it ends, and write down how."""
        instruction = run.instruction
        try:
            action = self._actions.get(instruction.request.action)
            if action is None:
                name = instruction.request.action
                outcome = failed("unknown_action", f"there is no action {name!r}")
            elif instruction.is_cancelled and not (action.ends_itself and instruction.steps):
                outcome = CANCELLED
            else:
                run.steps = self._steps(instruction, action)
                run.effort = self._effort(instruction, action, run.steps)
                outcome = await self._outcome(instruction, run.effort)
        except ValidationError as invalid:
            outcome = Outcome(None, invalid_params(invalid))
        except asyncio.CancelledError:
            if self._striver.stopping or not instruction.is_cancelled:
                if run.effort is not None and run.effort.has_begun:
                    run.effort.reason = "drain"
                    await self._note_attempt(instruction, run.effort)
                raise
            outcome = CANCELLED
        run.is_ending = True
        await self._write_outcome(instruction, run.effort, outcome)

    def _effort(self, instruction: Instruction, action: Action, steps: Steps) -> Effort:
        """The effort that an instruction asks for.

        Raises:
            ValidationError: its parameters do not fit.
        """
        request = instruction.request
        return Effort(
            action=action,
            function=action.run,
            params=action.validated(request.params),
            retry=action.retry,
            idempotency_key=instruction.id,
            agent_id=request.agent_id,
            deadline=None if action.ends_itself else request.deadline,
            correlation_id=instruction.correlation_id,
            call=steps,
            began_s=self._striver.monotonic(),
            priority=request.priority,
            limits=self._limits(instruction, action),
            note=lambda effort: self._note_attempt(instruction, effort),
            attempts=max(1, instruction.attempts),
        )

    def _steps(self, instruction: Instruction, action: Action) -> Steps:
        async def journal(ended: ActionStepEnded) -> None:
            await self._append(instruction, STEP_ENDED, ended, ended.key)

        return Steps(self._actions, self._striver, instruction, journal, retried=action.retry.max_attempts > 1)

    def _limits(self, instruction: Instruction, action: Action) -> tuple[tuple[Key, int], ...]:
        found: list[tuple[Key, int]] = []
        if action.limit is not None:
            found.append((("action", action.name), action.limit))
        if not action.is_async:
            found.append((("threads", None), self._settings.threads))
        if self._settings.max_running_per_agent is not None:
            found.extend(self._limits_of_agent(instruction, self._settings.max_running_per_agent))
        if instruction.restarts:
            # One action that ends its process takes all others with it. Each time, those cut short run in smaller
            # company, until the one at fault runs by itself and alone is counted against.
            company = max(1, self._settings.max_running >> 4 * instruction.restarts)
            found.append((("restarts", instruction.restarts), company))
        return tuple(found)

    def _limits_of_agent(self, instruction: Instruction, most: int) -> tuple[tuple[Key, int], ...]:
        agent_id = instruction.request.agent_id
        if (pool := self.tally.pool_of(agent_id)) is None:
            return ((("agent", agent_id), most),)
        # Members share their places, so one that is new helps with what waits for others. What concerns one subject
        # runs no more at once, and so in no other order, than with a single member.
        return ((("subject", (pool, instruction.subject)), most), (("pool", pool), most * self._members(pool)))

    async def _outcome(self, instruction: Instruction, effort: Effort) -> Outcome:
        action = effort.action
        noted = instruction.attempts > 0
        if instruction.is_recovered and (noted or action.on_unknown == "rerun"):
            if instruction.restarts >= self._settings.max_restarts:
                return failed("poisoned", f"the process has ended {instruction.restarts + 1} times in the middle of it")
            if (known := await self._recovered(effort)) is not None:
                return known
            effort.attempts += 1
            effort.reason = "retry" if instruction.is_drained else "restart"
        elif action.on_unknown != "rerun":
            effort.reason = "start"
        return await self._striver.outcome(effort)

    async def _recovered(self, effort: Effort) -> Outcome | None:
        """What its `on_unknown` policy makes of an effort that was cut short, or None to run it again."""
        action = effort.action
        match action.on_unknown:
            case "rerun":
                return None
            case "fail":
                return failed("unknown_outcome", "the process ended in the middle of it")
            case "reconcile":
                found = await self._striver.outcome(_instead(effort, action.reconcile, ""))
                return found if found.error is not None or found.result is not None else None
            case "compensate":
                undone = await self._striver.outcome(_instead(effort, action.compensation, ":undo"))
                if undone.error is not None:
                    return failed("compensation_failed", f"{undone.error.type}: {undone.error.message}")
                return failed("compensated", "the process ended in the middle of it, and it was undone")

    # The journal.

    async def _note_attempt(self, instruction: Instruction, effort: Effort) -> None:
        assert effort.reason is not None, "else there is nothing to note"
        record = ActionAttempted(instruction_id=instruction.id, attempt=effort.attempts, reason=effort.reason)
        await self._append(instruction, ATTEMPTED, record, f"{effort.attempts}|{effort.reason}")

    async def _write_outcome(self, instruction: Instruction, effort: Effort | None, outcome: Outcome) -> None:
        name = instruction.request.action
        # Anyone can ask for actions that are not there, so in the metrics those share one name.
        label = name if name in self._actions else "unknown"
        begun = effort is not None and effort.has_begun
        common: dict[str, Any] = {
            "instruction_id": instruction.id,
            "agent_id": instruction.request.agent_id,
            "action": name,
            "context": instruction.request.context,
            "duration_ms": effort.in_action_s * 1000 if effort else 0.0,
            "attempts": effort.attempts if effort and (begun or instruction.attempts) else 0,
        }
        self.finished[label, "failed" if outcome.error else "completed"] += 1
        if outcome.error is None:
            self.recovered[label] += common["attempts"] > 1
            await self._append(instruction, COMPLETED, ActionCompleted(**common, result=outcome.result))
        else:
            await self._append(instruction, FAILED, ActionFailed(**common, error=outcome.error))

    async def _append(self, instruction: Instruction, type: str, data: Any, scope: str = "") -> None:
        record = new_signal(
            type,
            data,
            source=f"executor/{instruction.request.action}",
            subject=instruction.subject,
            id=derived_id(instruction.id, f"{type}|{scope}", 0),
            time=self.services.clock.now(),
            correlationid=instruction.correlation_id,
            causationid=instruction.id,
            traceparent=instruction.traceparent,
        )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._journal.append(instruction.partition, record, lambda error: self._mail.post(_acknowledge, future, error))
        await future

    def _breaker_changed(self, name: str, before: State, after: State) -> None:
        log.warning("the circuit breaker of %s is %s", name, after.value.replace("_", " "))
        node = self.services.settings.node.name
        change = BreakerChanged(dependency=name, before=before.value, after=after.value, node=node)
        self._journal.announce("telemetry", new_signal("breaker.changed", change, source=f"node/{node}", subject=name))


def _instead(effort: Effort, function: Callable[..., Any] | None, suffix: str) -> Effort:
    """The same with another function."""
    assert function is not None, "seen to when the action was made"
    return replace(effort, function=function, note=None, idempotency_key=effort.idempotency_key + suffix, attempts=1)


def _acknowledge(future: "asyncio.Future[None]", error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _known_dependencies(actions: Mapping[str, Action]) -> Iterable[Dependency]:
    found: dict[str, Dependency] = {}
    for policy in (action.uses for action in actions.values() if isinstance(action.uses, Dependency)):
        if found.setdefault(policy.name, policy) != policy:
            msg = f"two actions describe the dependency {policy.name!r} differently"
            raise ConfigError(msg, hint="write Dependency(...) once, and give both actions that one")
    return found.values()


def _require_pools(actions: Mapping[str, Action], settings: Settings) -> None:
    for action in actions.values():
        for pool in action.resources.keys() - settings.resources.pools.keys():
            msg = f"the action {action.name!r} takes tokens of a pool {pool!r} that the settings do not have"
            raise ConfigError(msg, hint=f"set resources.pools.{pool}.tokens")
