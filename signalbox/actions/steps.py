"""Actions that run other actions as their steps; see `ActionContext.call`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import ValidationError

from schemas.payloads.actions import ActionStepEnded
from signalbox.actions.contract import Action
from signalbox.actions.effort import CANCELLED, Effort, Outcome, Striver, failed, invalid_params
from signalbox.actions.ledger import Instruction
from signalbox.actions.retry import NO_RETRY, ActionError


class Steps:
    """Runs the steps of one instruction; see `ActionContext.call`."""

    def __init__(
        self,
        actions: Mapping[str, Action],
        striver: Striver,
        instruction: Instruction,
        journal: Callable[[ActionStepEnded], Awaitable[None]],
        *,
        retried: bool,
    ) -> None:
        """Args:
        actions: by name, those that can be steps.
        striver: sees steps through.
        instruction: whose steps these are.
        journal: writes down that a step ended, and returns when the broker has it.
        retried: whether the action itself is tried again, and with it a step whose error is retryable.
        """
        self._actions = actions
        self._striver = striver
        self._instruction = instruction
        self._journal = journal
        self._retried = retried
        self._under_way: asyncio.Task[Outcome] | None = None

    def cancel(self) -> None:
        """End the step that is under way, unless it cleans up; further ones will not begin."""
        if self._under_way is not None:
            self._under_way.cancel()

    async def __call__(self, action: str, params: Mapping[str, Any], *, key: str, cleanup: bool = False) -> Any:
        ended = self._instruction.steps.get(key)
        if ended is None:
            if self._instruction.is_cancelled and not cleanup:
                raise _raised(CANCELLED)
            ended = await self._run(action, params, key, cleanup=cleanup)
        if ended.error is not None:
            raise _raised(Outcome(None, ended.error))
        return ended.result

    async def _run(self, name: str, params: Mapping[str, Any], key: str, *, cleanup: bool) -> ActionStepEnded:
        effort = self._effort(name, params, key, cleanup=cleanup)
        outcome = await self._striver.outcome(effort) if cleanup else await self._cancellable(effort)
        ended = ActionStepEnded(
            instruction_id=self._instruction.id, key=key, action=name, result=outcome.result, error=outcome.error
        )
        if outcome.error is None or not (self._retried and outcome.error.retryable):
            await self._journal(ended)
            self._instruction.steps[key] = ended
        return ended

    async def _cancellable(self, effort: Effort) -> Outcome:
        """In a task of its own, so that a wish to cancel ends the step and leaves the action to clean up."""
        self._under_way = asyncio.get_running_loop().create_task(self._striver.outcome(effort))
        try:
            return await self._under_way
        except asyncio.CancelledError:
            self._under_way.cancel()
            if self._instruction.is_cancelled and not self._striver.stopping:
                return CANCELLED
            raise
        finally:
            self._under_way = None

    def _effort(self, name: str, params: Mapping[str, Any], key: str, *, cleanup: bool) -> Effort:
        action = self._actions.get(name)
        if action is None:
            raise _raised(failed("unknown_action", f"there is no action {name!r}"))
        try:
            validated = action.validated(params)
        except ValidationError as invalid:
            raise _raised(Outcome(None, invalid_params(invalid))) from None
        return Effort(
            action=action,
            function=action.run,
            params=validated,
            retry=NO_RETRY if self._retried else action.retry,
            idempotency_key=f"{self._instruction.id}:{key}",
            agent_id=self._instruction.request.agent_id,
            deadline=None if cleanup else self._instruction.request.deadline,
            correlation_id=self._instruction.correlation_id,
            call=no_steps,
            began_s=self._striver.monotonic(),
            is_step=True,
        )


def _raised(outcome: Outcome) -> ActionError:
    """The error of an outcome, to be raised."""
    error = outcome.error
    assert error is not None, "it failed"
    return ActionError(error.message, type=error.type, retryable=error.retryable, details=error.details)


async def no_steps(action: str, params: Mapping[str, Any], *, key: str, cleanup: bool = False) -> Any:
    """Refuse steps, where there can be none."""
    msg = f"{action!r} cannot be run as a step here: steps have no steps of their own"
    raise ActionError(msg, type="nested_step")
