"""Tasks: work asked for by name, handed on to whoever can do it, and the one answer that each gets."""

from typing import Any, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from schemas.payloads.base import ErrorInfo, Identifier, Message, Name, Payload, Timestamp, Word

Strategy: TypeAlias = Literal["round_robin", "least_loaded", "capability_match", "random", "rendezvous"]
"""How a coordinator chooses among the agents that can do a task."""


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
    attempts: NonNegativeInt = Field(
        description="How often the action was run; 0 if its fallback stood in before the first attempt."
    )


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


class TaskDistribute(TaskSubmitted):
    """A task for a coordinator, which lets an agent that can do it do it, and answers it."""

    required_capability: tuple[Name, ...] = Field(
        min_length=1, max_length=20, description="What the agent has to offer: all of these."
    )
    strategy: Strategy | None = Field(None, description="How to choose; null leaves it to the coordinator.")
    subject: Identifier | None = Field(None, description="What the task is about; its answer has the same subject.")


class Delegation(Payload):
    """What an agent needs to know of a delegated task to report on it."""

    task_id: Name = Field(description="The id under which it was submitted.")
    delegation_id: Identifier = Field(description="Names this delegation; the report repeats it.")
    attempt: PositiveInt = Field(description="How many agents the task has been given to, this one included.")
    coordinator: Identifier = Field(description="The agent to report to, which is the report's subject.")


class TaskDelegated(TaskSubmitted, Delegation):
    """A task for one agent, which is the signal's subject. It reports to the coordinator and does not answer."""


class TaskDelegatedFinished(Payload):
    """An agent has done a delegated task, or has given it up. Says `error` or `result`."""

    task_id: Name = Field(description="The id under which it was submitted.")
    delegation_id: Identifier = Field(description="The delegation that this reports on.")
    attempt: PositiveInt = Field(description="Its number among the delegations of the task.")
    agent_id: Identifier = Field(description="The agent that reports.")
    result: Any = Field(None, description="What the action returned, as JSON values.")
    error: ErrorInfo | None = Field(None, description="Why it was given up; null if it was done.")
    duration_ms: NonNegativeFloat = Field(description="Time spent in the action over all attempts, in milliseconds.")
    attempts: NonNegativeInt = Field(description="How often the action was run.")
