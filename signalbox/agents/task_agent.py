"""The task pool: each `task.submitted` is validated, processed and answered once on `results`."""

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel

from schemas.payloads.actions import ActionCompleted, ActionFailed
from schemas.payloads.base import ErrorInfo
from schemas.payloads.tasks import TaskCompleted, TaskFailed, TaskSubmitted
from schemas.signal import Signal, encode
from signalbox.actions import Action, ActionError
from signalbox.agents.contract import AgentState, Context, Pool, on
from signalbox.agents.directives import Directive, Reply, RunAction
from signalbox.agents.foundation_agent import FoundationAgent


class TaskAgent(FoundationAgent):
    """Processes tasks by the action they name."""

    capabilities = ("task_processing", "validation", "completion")
    addressing = Pool(size=5, max=100)

    class State(AgentState):
        """What the agent has done so far."""

        status: str = "idle"
        processed_count: int = 0
        error_count: int = 0
        last_task: dict[str, Any] = {}  # noqa: RUF012 - a struct gives each instance its own

    @on("task.submitted")
    def submitted(
        self, state: State, signal: Signal[TaskSubmitted], context: Context
    ) -> Generator[Directive, None, None]:
        """ValidateTask, ProcessTask, CompleteTask, one after another; an action with an effect ends later."""
        task = signal.data
        valid, error, _ = yield from self.perform(context, "validate_task", lambda: _validate(task, signal, context))
        result, duration_ms, attempts = None, 0.0, 0
        if error is None:
            action, params = valid
            if action.effect:
                yield from self._request(task, signal, context)
                return
            attempts = 1
            result, error, duration_ms = yield from self.perform(
                context, "process_task", lambda: _process(action, params, signal, context)
            )
        asked = {"task_id": task.task_id, "action": task.action}
        yield from self._answer(state, asked, context, result, error, duration_ms, attempts)

    @on("action.completed")
    def completed(
        self, state: State, signal: Signal[ActionCompleted], context: Context
    ) -> Generator[Directive, None, None]:
        """CompleteTask, with the result of its action."""
        outcome = signal.data
        yield from self.finished(context, "process_task", outcome.context["run"], None, outcome.duration_ms)
        yield from self._answer(
            state, outcome.context, context, outcome.result, None, outcome.duration_ms, outcome.attempts
        )

    @on("action.failed")
    def failed(self, state: State, signal: Signal[ActionFailed], context: Context) -> Generator[Directive, None, None]:
        """CompleteTask, with the error of its action."""
        outcome = signal.data
        yield from self.finished(context, "process_task", outcome.context["run"], outcome.error, outcome.duration_ms)
        yield from self._answer(
            state, outcome.context, context, None, outcome.error, outcome.duration_ms, outcome.attempts
        )

    def _request(self, task: TaskSubmitted, signal: Signal[Any], context: Context) -> Generator[Directive, None, None]:
        run = yield from self.starting(context, "process_task")
        yield RunAction(
            task.action,
            task.params,
            context={"task_id": task.task_id, "action": task.action, "run": run},
            deadline=_deadline(task, signal),
            priority=task.priority,
        )

    def _answer(  # noqa: PLR0917 - the parts of one answer
        self,
        state: State,
        asked: Mapping[str, str],
        context: Context,
        result: Any,
        error: ErrorInfo | None,
        duration_ms: float,
        attempts: int,
    ) -> Generator[Directive, None, None]:
        answer, _, _ = yield from self.perform(
            context,
            "complete_task",
            lambda: _complete(state, asked, context.agent_id, result, error, duration_ms, attempts),
        )
        yield answer


def _deadline(task: TaskSubmitted, signal: Signal[Any]) -> datetime | None:
    """The earlier of the task's own deadline and that of the signal that brought it."""
    return min((one for one in (task.deadline, signal.deadline) if one is not None), default=None)


def _validate(task: TaskSubmitted, signal: Signal[Any], context: Context) -> tuple[Action, BaseModel]:
    deadline = _deadline(task, signal)
    if deadline is not None and deadline <= context.now:
        msg = f"the deadline {deadline.isoformat()} has passed"
        raise ActionError(msg, type="deadline_exceeded")
    action: Action | None = context.actions.get(task.action)
    if action is None:
        known = ", ".join(sorted(context.actions))
        msg = f"there is no action {task.action!r}; there are: {known}"
        raise ActionError(msg, type="unknown_action")
    return action, action.validated(task.params)


def _process(action: Action, params: BaseModel, signal: Signal[Any], context: Context) -> Any:
    """Run the action, and see that its result can be sent: a task whose answer cannot be would get none."""
    result = action.perform(params)
    size = len(msgspec.json.encode(result))
    if size > context.output_bytes // 2:
        # The answer repeats each attribute of the task's signal, and of them each at most twice.
        room = context.output_bytes - 2 * len(encode(msgspec.structs.replace(signal, data=None))) - 2_048
        if size > room:
            msg = f"the result has {size} bytes as JSON; limits.output_bytes leaves {max(0, room)} for it"
            raise ActionError(msg, type="result_too_large")
    return result


def _complete(  # noqa: PLR0917 - the parts of one answer
    state: TaskAgent.State,
    asked: Mapping[str, str],
    agent_id: str,
    result: Any,
    error: ErrorInfo | None,
    duration_ms: float,
    attempts: int,
) -> Reply:
    state.processed_count += 1
    task_id = asked["task_id"]
    state.last_task = {"task_id": task_id, "action": asked["action"], "status": "failed" if error else "completed"}
    if error is not None:
        state.error_count += 1
        failed = TaskFailed(task_id=task_id, agent_id=agent_id, error=error, attempts=attempts)
        return Reply("task.failed", failed)
    completed = TaskCompleted(
        task_id=task_id, agent_id=agent_id, result=result, duration_ms=duration_ms, attempts=attempts
    )
    return Reply("task.completed", completed)
