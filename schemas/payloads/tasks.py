"""Tasks: work asked for by name, and the one answer that each gets."""

from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from schemas.payloads.base import ErrorInfo, Identifier, Message, Name, Payload, Timestamp, Word


class TaskSubmitted(Payload):
    """A task to perform. Send it with a subject to keep tasks of one entity in order."""

    task_id: Name = Field(description="Chosen by the sender; a task is answered once per id.")
    action: Name = Field(description="Name of the action to run.")
    params: dict[str, Any] = Field(description="The action's parameters; the action validates them.")
    deadline: Timestamp | None = Field(None, description="Not to be worked on after this time.")
    priority: int = Field(0, ge=-1000, le=1000, description="Higher is more urgent, where an agent has a choice.")


class TaskCompleted(Payload):
    """A task was done."""

    task_id: Name = Field(description="The id under which it was submitted.")
    agent_id: Identifier = Field(description="The agent that did it.")
    result: Any = Field(description="What the action returned, as JSON values.")
    duration_ms: NonNegativeFloat = Field(description="Time spent in the action over all attempts, in milliseconds.")
    attempts: PositiveInt = Field(description="How often the action was run.")


class TaskFailed(Payload):
    """A task was tried and given up."""

    task_id: Name = Field(description="The id under which it was submitted.")
    agent_id: Identifier = Field(description="The agent that gave up.")
    error: ErrorInfo = Field(description="The last attempt's error.")
    attempts: NonNegativeInt = Field(description="How often the action was run; 0 if it ended before the first.")


class TaskRejected(Payload):
    """A task was refused without being tried; sending the same again gets the same answer."""

    task_id: Name = Field(description="The id under which it was submitted.")
    agent_id: Identifier | None = Field(None, description="The agent that refused it.")
    reason: Word = Field(description="A stable word, such as `unknown_action` or `invalid_params`.")
    message: Message = Field("", description="What is wrong with the task, for people; cut to 2,000 characters.")
