"""The base of the agents that ship: it registers each instance and reports every action before and after.

Users' agents may derive from it to appear in the registry and in telemetry the same way.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Any

from pydantic import ValidationError

import signalbox
from schemas.payloads.agents import ActionFinished, ActionStarting, AgentRegistered, AgentStopped
from schemas.payloads.base import ErrorInfo
from signalbox.actions import ActionError
from signalbox.agents.contract import Agent, Context, Keyed, Singleton
from signalbox.agents.directives import Directive, Emit
from signalbox.errors import described
from signalbox.ids import derived_id

Outcome = tuple[Any, ErrorInfo | None, float]
"""Result, error if it failed, and milliseconds spent."""


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
            metadata={"description": self.description, **self.metadata},
            node=context.node,
            version=signalbox.__version__,
            started_at=context.now,
        )
        yield Emit("agent.registered", record, subject=context.agent_id)

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

    def starting(self, context: Context, action: str) -> Generator[Directive, None, str]:
        """Tell that an action starts; gives the id under which `finished` tells that it ended."""
        instruction = derived_id(context.cause_id, f"{context.agent_id}|{action}", 0)
        if context.telemetry:
            starting = ActionStarting(agent_id=context.agent_id, action=action, instruction_id=instruction)
            yield Emit("agent.action.starting", starting)
        return instruction

    def finished(
        self, context: Context, action: str, instruction: str, error: ErrorInfo | None, duration_ms: float
    ) -> Iterator[Directive]:
        """Tell that an action ended."""
        if context.telemetry:
            finished = ActionFinished(
                agent_id=context.agent_id,
                action=action,
                instruction_id=instruction,
                status="failed" if error else "completed",
                duration_ms=duration_ms,
                error=error,
            )
            yield Emit("agent.action.finished", finished)


def _attempt(run: Callable[[], Any]) -> tuple[Any, ErrorInfo | None]:
    try:
        return run(), None
    except ActionError as error:
        name, message = described(error)
        return None, ErrorInfo(type=error.type[:256] or name, message=message, retryable=bool(error.retryable))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "params"
        return None, ErrorInfo(type="invalid_params", message=f"{place}: {first['msg']}", retryable=False)
    except BaseException as error:  # noqa: BLE001 - an action may raise anything; it becomes the task's error
        name, message = described(error)
        return None, ErrorInfo(type=name, message=message, retryable=False)
