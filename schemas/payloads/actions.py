"""Actions with effects, as the topic `effects` records them: asked for, tried again, and how they ended.

The id of the signal `action.requested` is the instruction's id; all records of one instruction have the same key.
"""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from schemas.payloads.base import ErrorInfo, Identifier, Name, Payload, Timestamp


class ActionRequested(Payload):
    """An agent asks for an action. The signal's id is the instruction's."""

    agent_id: Identifier = Field(description="The agent that asks, and gets the outcome.")
    action: Name = Field(description="Name of the action.")
    params: dict[str, Any] = Field(description="The action's parameters.")
    context: Any = Field(None, description="What the agent wants back with the outcome.")
    deadline: Timestamp | None = Field(None, description="Not to be worked on after this time.")
    priority: int = Field(0, ge=-1000, le=1000, description="Higher goes first, where not all can run at once.")
    name: Name | None = Field(None, description="How the agent calls it, to cancel it by that name.")


class ActionCancel(Payload):
    """An agent no longer wants the actions that it asked for under a name."""

    agent_id: Identifier = Field(description="The agent that asked for them.")
    name: Name = Field(description="How it called them.")


class ActionAttempted(Payload):
    """An attempt begins, or is cut short by a drain.

    The first leaves a record only where somebody has to know after a crash whether it began.
    """

    instruction_id: Identifier = Field(description="The instruction that is tried.")
    attempt: PositiveInt = Field(description="The number of the attempt, from 1.")
    reason: Literal["start", "retry", "restart", "drain"] = Field(
        description="It is the first; it follows an error that may pass; the process ended in the middle of the one "
        "before; or a drain cuts it short."
    )


class ActionStepEnded(Payload):
    """A step of an action ended; when the action is repeated, the step is not."""

    instruction_id: Identifier = Field(description="The instruction whose step it is.")
    key: Name = Field(description="The step's key within the instruction.")
    action: Name = Field(description="Name of the action that the step ran.")
    result: Any = Field(None, description="What it returned, as JSON values.")
    error: ErrorInfo | None = Field(None, description="Why it failed; null if it did not.")


class _Outcome(Payload):
    instruction_id: Identifier = Field(description="The instruction that ended.")
    agent_id: Identifier = Field(description="The agent that asked for it.")
    action: Name = Field(description="Name of the action.")
    context: Any = Field(None, description="What the agent wanted back.")
    duration_ms: NonNegativeFloat = Field(description="Time spent in the action over all attempts, in milliseconds.")


class ActionCompleted(_Outcome):
    """An action succeeded."""

    result: Any = Field(None, description="What it returned, as JSON values.")
    attempts: NonNegativeInt = Field(
        description="How often it was tried; 0 if its fallback stood in before the first attempt."
    )


class ActionFailed(_Outcome):
    """An action was given up."""

    error: ErrorInfo = Field(description="The last attempt's error.")
    attempts: NonNegativeInt = Field(description="How often it was tried; 0 if it ended before the first attempt.")


class BreakerChanged(Payload):
    """A circuit breaker changed its state, in one worker process."""

    dependency: Name = Field(description="What it protects, such as `api.example.org:443`.")
    before: Literal["closed", "half_open", "open"] = Field(description="Its state until now.")
    after: Literal["closed", "half_open", "open"] = Field(description="Its state from now on.")
    node: Name = Field(description="The node whose process it is.")
