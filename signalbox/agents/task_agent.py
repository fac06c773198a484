"""The task pool: each `task.submitted` is validated, processed and answered once on `results`.

A `task.delegated` is worked on in the same way, and what comes of it goes to the coordinator that delegated it. A task
whose action hands it over (`signalbox.actions.distribute_task`) is answered by whoever takes it over.
"""

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel

from schemas.payloads.actions import ActionCompleted, ActionFailed
from schemas.payloads.base import ErrorInfo
from schemas.payloads.tasks import Delegation, TaskCompleted, TaskDelegated, TaskFailed, TaskSubmitted
from schemas.signal import Signal
from signalbox.actions import Action, ActionError
from signalbox.actions.complex_workflow import NamesActions
from signalbox.actions.distribute_task import HandOver
from signalbox.agents.contract import AgentState, Context, Pool, on
from signalbox.agents.directives import Directive, Emit, Reply, RunAction
from signalbox.agents.foundation_agent import FoundationAgent, room_for_data

Asked = Mapping[str, Any]
"""What has to be known of a task until it ends: `task_id`, `action` and, if it was delegated, `delegation`."""


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
        yield from self._work(state, signal, context)

    @on("task.delegated")
    def delegated(
        self, state: State, signal: Signal[TaskDelegated], context: Context
    ) -> Generator[Directive, None, None]:
        """The same for a task that a coordinator gave to this very agent."""
        if signal.subject == context.agent_id:
            yield from self._work(state, signal, context)

    @on("action.completed")
    def completed(
        self, state: State, signal: Signal[ActionCompleted], context: Context
    ) -> Generator[Directive, None, None]:
        """CompleteTask, with the result of its action."""
        yield from self._ended(state, signal, context, signal.data.result, None)

    @on("action.failed")
    def failed(self, state: State, signal: Signal[ActionFailed], context: Context) -> Generator[Directive, None, None]:
        """CompleteTask, with the error of its action."""
        yield from self._ended(state, signal, context, None, signal.data.error)

    def _work(
        self, state: State, signal: Signal[TaskSubmitted] | Signal[TaskDelegated], context: Context
    ) -> Generator[Directive, None, None]:
        task = signal.data
        asked = _asked(task)
        valid, error, _ = yield from self.perform(context, "validate_task", lambda: _validate(task, signal, context))
        result, duration_ms, attempts = None, 0.0, 0
        if error is None:
            action, params = valid
            if action.effect:
                yield from self._request(task, asked, signal, context)
                return
            attempts = 1
            result, error, duration_ms = yield from self.perform(
                context, "process_task", lambda: _process(action, params, signal, context)
            )
            if isinstance(result, Emit):
                _count(state, asked, "handed_over")
                yield result
                return
        yield from self._answer(state, asked, signal, context, result, error, duration_ms, attempts)

    def _ended(
        self,
        state: State,
        signal: Signal[ActionCompleted] | Signal[ActionFailed],
        context: Context,
        result: Any,
        error: ErrorInfo | None,
    ) -> Generator[Directive, None, None]:
        outcome = signal.data
        yield from self.finished(context, "process_task", outcome.context["run"], error, outcome.duration_ms)
        yield from self._answer(
            state, outcome.context, signal, context, result, error, outcome.duration_ms, outcome.attempts
        )

    def _request(
        self, task: TaskSubmitted, asked: Asked, signal: Signal[Any], context: Context
    ) -> Generator[Directive, None, None]:
        run = yield from self.starting(context, "process_task")
        yield RunAction(
            task.action,
            task.params,
            context={**asked, "run": run},
            deadline=_deadline(task, signal),
            priority=task.priority,
        )

    def _answer(  # noqa: PLR0917 - the parts of one answer
        self,
        state: State,
        asked: Asked,
        signal: Signal[Any],
        context: Context,
        result: Any,
        error: ErrorInfo | None,
        duration_ms: float,
        attempts: int,
    ) -> Generator[Directive, None, None]:
        def complete() -> Directive:
            _count(state, asked, "failed" if error else "completed")
            if (delegation := asked.get("delegation")) is None:
                return _reply(asked["task_id"], context.agent_id, result, error, duration_ms, attempts)
            return self.report(
                Delegation.model_validate(delegation),
                signal,
                context,
                result=result,
                error=error,
                duration_ms=duration_ms,
                attempts=attempts,
            )

        answer, _, _ = yield from self.perform(context, "complete_task", complete)
        yield answer


def _asked(task: TaskSubmitted | TaskDelegated) -> Asked:
    asked: dict[str, Any] = {"task_id": task.task_id, "action": task.action}
    if isinstance(task, TaskDelegated):
        asked["delegation"] = task.model_dump(mode="json", include=set(Delegation.model_fields))
    return asked


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
        raise _unknown(task.action, context)
    params = action.validated(task.params)
    if isinstance(params, NamesActions) and (unknown := params.named_actions() - context.actions.keys()):
        raise _unknown(min(unknown), context)
    return action, params


def _unknown(name: str, context: Context) -> ActionError:
    known = ", ".join(sorted(context.actions))
    return ActionError(f"there is no action {name!r}; there are: {known}", type="unknown_action")


def _process(action: Action, params: BaseModel, signal: Signal[Any], context: Context) -> Any:
    """Run the action, and see that its result can be sent: a task whose answer cannot be would get none."""
    result = action.run(params)
    if isinstance(result, HandOver):
        return _handed_over(result, signal, context)
    result = action.json_values(result)
    size = len(msgspec.json.encode(result))
    if size > context.output_bytes // 2:
        room = room_for_data(signal, context.output_bytes)
        if size > room:
            msg = f"the result has {size} bytes as JSON; limits.output_bytes leaves {room} for it"
            raise ActionError(msg, type="result_too_large")
    return result


def _handed_over(over: HandOver, signal: Signal[TaskSubmitted], context: Context) -> Emit:
    """The signal by which somebody else gets the task."""
    task = signal.data
    if isinstance(task, TaskDelegated):
        msg = f"a delegated task has to be done, and {task.action!r} hands it over"
        raise ActionError(msg, type="delegated_already")
    deadlines = [one for one in (over.deadline, _deadline(task, signal)) if one is not None]
    data = {
        **over.data,
        "task_id": task.task_id,
        "subject": signal.subject,
        "deadline": min(deadlines, default=None),
        "priority": task.priority,
    }
    size, room = len(msgspec.json.encode(data)), room_for_data(signal, min(context.signal_bytes, context.output_bytes))
    if size > room:
        msg = f"the task has {size} bytes as JSON; limits.signal_bytes leaves {room} to hand it over"
        raise ActionError(msg, type="task_too_large")
    return Emit(over.type, data, subject=over.subject)


def _count(state: TaskAgent.State, asked: Asked, status: str) -> None:
    state.processed_count += 1
    state.error_count += status == "failed"
    state.last_task = {"task_id": asked["task_id"], "action": asked["action"], "status": status}


def _reply(  # noqa: PLR0917 - the parts of one answer
    task_id: str, agent_id: str, result: Any, error: ErrorInfo | None, duration_ms: float, attempts: int
) -> Reply:
    if error is not None:
        return Reply("task.failed", TaskFailed(task_id=task_id, agent_id=agent_id, error=error, attempts=attempts))
    completed = TaskCompleted(
        task_id=task_id, agent_id=agent_id, result=result, duration_ms=duration_ms, attempts=attempts
    )
    return Reply("task.completed", completed)
