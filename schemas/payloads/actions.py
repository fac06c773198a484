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


class ActionAttempted(Payload):
    """An action is tried again. The first attempt leaves no record of its own."""

    instruction_id: Identifier = Field(description="The instruction that is tried.")
    attempt: PositiveInt = Field(description="The number of the attempt that begins, from 2.")
    reason: Literal["retry", "restart"] = Field(
        description="After an error that may pass, or because the process ended in the middle of the attempt before."
    )


class _Outcome(Payload):
    instruction_id: Identifier = Field(description="The instruction that ended.")
    agent_id: Identifier = Field(description="The agent that asked for it.")
    action: Name = Field(description="Name of the action.")
    context: Any = Field(None, description="What the agent wanted back.")
    duration_ms: NonNegativeFloat = Field(description="Time spent in the action over all attempts, in milliseconds.")


class ActionCompleted(_Outcome):
    """An action succeeded."""

    result: Any = Field(None, description="What it returned, as JSON values.")
    attempts: PositiveInt = Field(description="How often it was tried.")


class ActionFailed(_Outcome):
    """An action was given up."""

    error: ErrorInfo = Field(description="The last attempt's error.")
    attempts: NonNegativeInt = Field(description="How often it was tried; 0 if it ended before the first attempt.")
