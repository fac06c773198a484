"""The base of the agents that ship: it registers each instance and reports every action before and after.

Users' agents may derive from it to appear in the registry and in telemetry the same way.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgspec
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

import signalbox
from schemas.payloads.agents import AgentRegistered, AgentStopped
from schemas.payloads.base import ErrorInfo
from schemas.payloads.tasks import Delegation, TaskDelegated, TaskDelegatedFinished
from schemas.signal import Signal, encode
from signalbox.actions import ActionError
from signalbox.agents.contract import Agent, Context, Keyed, Singleton
from signalbox.agents.directives import Directive, Emit
from signalbox.errors import described, first_problem
from signalbox.ids import derived_id

Outcome = tuple[Any, ErrorInfo | None, float]
"""Result, error if it failed, and milliseconds spent."""
#: What an agent's metadata say if it has a handler of `task.delegated`.
TAKES_TASKS = "takes_tasks"
#: Room for what a signal says besides its data and what it copies from the signal that caused it, in bytes.
_FRAME_BYTES = 2_048


class FoundationAgent(Agent):
    """Registers itself with capabilities and metadata, and tells of each action when it starts and when it ends."""

    metadata: dict[str, Any] = {}  # noqa: RUF012 - read only, overridden by subclasses as a plain class attribute

    def started(self, state: Any, context: Context) -> Iterator[Directive]:
        """Put this instance into the registry."""
        addressing = self.addressing
        record = AgentRegistered(
            agent_id=context.agent_id,
            agent_type=self.name,
            kind="keyed"
            if isinstance(addressing, Keyed)
            else "singleton"
            if isinstance(addressing, Singleton)
            else "pool",
            capabilities=self.capabilities,
            metadata=self.registered_metadata(),
            node=context.node,
            version=signalbox.__version__,
            started_at=context.now,
        )
        yield Emit("agent.registered", record, subject=context.agent_id)

    def registered_metadata(self) -> dict[str, Any]:
        """What the registry says of every instance of this class besides its capabilities."""
        takes_tasks = {TAKES_TASKS: True} if _takes_tasks(self) else {}
        return {"description": self.description, **takes_tasks, **self.metadata}

    def stopped(self, state: Any, context: Context) -> Iterator[Directive]:
        """Mark this instance as gone in the registry."""
        yield Emit(
            "agent.stopped",
            AgentStopped(agent_id=context.agent_id, stopped_at=context.now),
            subject=context.agent_id,
        )

    def perform(self, context: Context, action: str, run: Callable[[], Any]) -> Generator[Directive, None, Outcome]:
        """Run `run` as the action `action`; use as `result, error, ms = yield from self.perform(...)`.

        Whatever `run` raises is the outcome's error, never the handler's.
        """
        instruction = yield from self.starting(context, action)
        began = context.monotonic()
        result, error = _attempt(run)
        duration_ms = (context.monotonic() - began) * 1000
        yield from self.finished(context, action, instruction, error, duration_ms)
        return result, error, duration_ms

    def fulfil(
        self, signal: Signal[TaskDelegated], context: Context, run: Callable[[], Any]
    ) -> Generator[Directive, None, None]:
        """Do a delegated task by `run`, and report what it returned or raised; for handlers of `task.delegated`.

        Each agent that has such a handler may see the tasks of others; those it leaves alone.
        """
        if signal.subject == context.agent_id:
            result, error, duration_ms = yield from self.perform(context, signal.data.action, lambda: _plain(run()))
            yield self.report(signal.data, signal, context, result=result, error=error, duration_ms=duration_ms)

    def report(
        self,
        delegation: Delegation,
        signal: Signal[Any],
        context: Context,
        *,
        result: Any = None,
        error: ErrorInfo | None = None,
        duration_ms: float = 0.0,
        attempts: int = 1,
    ) -> Directive:
        """Tell the coordinator how a delegated task ended.

        Args:
            delegation: the task, or what was kept of it.
            signal: the one being handled.
            context: as the handler got it.
            result: JSON values. What is too large to be sent becomes an error.
            error: why it was given up; None if it was done.
            duration_ms: milliseconds spent in the action.
            attempts: how often the action was run.
        """
        room = room_for_data(signal, min(context.signal_bytes, context.output_bytes))
        size = len(msgspec.json.encode([result, error and error.model_dump(mode="json")]))
        if size > room:
            message = f"the report has {size} bytes as JSON; limits.signal_bytes leaves {room} for it"
            result, error = None, ErrorInfo(type="result_too_large", message=message)
        finished = TaskDelegatedFinished(
            task_id=delegation.task_id,
            delegation_id=delegation.delegation_id,
            attempt=delegation.attempt,
            agent_id=context.agent_id,
            result=result,
            error=error,
            duration_ms=duration_ms,
            attempts=attempts,
        )
        return Emit("task.delegated.finished", finished, subject=delegation.coordinator)

    def starting(self, context: Context, action: str) -> Generator[Directive, None, str]:
        """Tell that an action starts; gives the id under which `finished` tells that it ended."""
        instruction = derived_id(context.cause_id, f"{context.agent_id}|{action}", 0)
        if context.telemetry:
            yield Emit("agent.action.starting", _starting(context.agent_id, action, instruction))
        return instruction

    def finished(
        self, context: Context, action: str, instruction: str, error: ErrorInfo | None, duration_ms: float
    ) -> Iterator[Directive]:
        """Tell that an action ended."""
        if context.telemetry:
            yield Emit("agent.action.finished", _finished(context.agent_id, action, instruction, error, duration_ms))


# Each task writes several of these, so they are made as the plain values of `ActionStarting` and `ActionFinished`: the
# models cost more than everything else about such a record.


def _starting(agent_id: str, action: str, instruction: str) -> dict[str, Any]:
    return {"agent_id": agent_id, "action": action, "instruction_id": instruction}


def _finished(
    agent_id: str, action: str, instruction: str, error: ErrorInfo | None, duration_ms: float
) -> dict[str, Any]:
    return {
        **_starting(agent_id, action, instruction),
        "status": "failed" if error else "completed",
        "duration_ms": duration_ms,
        "error": None if error is None else error.model_dump(mode="json"),
    }


def room_for_data(signal: Signal[Any], limit_bytes: int) -> int:
    """Bytes that are left for the data of a signal of so many bytes that `signal` causes."""
    # It repeats each attribute of its cause, and of them each at most twice.
    return max(0, limit_bytes - 2 * len(encode(msgspec.structs.replace(signal, data=None))) - _FRAME_BYTES)


def _takes_tasks(agent: Agent) -> bool:
    owners = (type(agent), *(type(skill) for skill in agent.skills))
    members = (getattr(owner, name) for owner in owners for name in dir(owner))
    return any(route.pattern == "task.delegated" for member in members for route in getattr(member, "routes", ()))


def _plain(result: Any) -> Any:
    """A result as JSON values. What has no JSON form must be the task's error, not the handler's."""
    values = to_jsonable_python(result)
    msgspec.json.encode(values)
    return values


def _attempt(run: Callable[[], Any]) -> tuple[Any, ErrorInfo | None]:
    try:
        return run(), None
    except ActionError as error:
        name, message = described(error)
        kind, retryable = error.type[:256] or name, bool(error.retryable)
        return None, ErrorInfo(type=kind, message=message, retryable=retryable, details=error.details)
    except ValidationError as error:
        return None, ErrorInfo(type="invalid_params", message=first_problem(error, "params"), retryable=False)
    except BaseException as error:  # noqa: BLE001 - an action may raise anything; it becomes the task's error
        name, message = described(error)
        return None, ErrorInfo(type=name, message=message, retryable=False)
