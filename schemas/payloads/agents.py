"""What agents tell about themselves: the registry's record, and telemetry before and after each action."""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from schemas.payloads.base import Copied, ErrorInfo, Identifier, Message, Name, Payload, Timestamp


class AgentRegistered(Payload):
    """An agent as the `registry` topic keeps it, keyed by its id; the latest record of an id is the valid one."""

    agent_id: Identifier = Field(description="Unique in the whole system.")
    agent_type: Name = Field(description="Name of its class in the app, such as `task_agent`.")
    kind: Literal["singleton", "pool", "keyed"] = Field(description="How signals find it.")
    capabilities: tuple[Name, ...] = Field((), max_length=100, description="What it offers to others.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Further facts, as JSON values.")
    node: Name = Field(description="The node that runs it.")
    version: Name = Field(description="Version of the software that runs it.")
    status: Literal["running", "paused"] = Field("running", description="Whether it handles signals now.")
    started_at: Timestamp = Field(description="When it came into being, with a zone.")


class AgentStopped(Payload):
    """An agent ended; its state is gone."""

    agent_id: Identifier = Field(description="The agent that ended.")
    reason: Message = Field("", description="Why, for people; cut to 2,000 characters.")
    stopped_at: Timestamp = Field(description="When, with a zone.")


class ActionStarting(Payload):
    """An agent is about to run an action."""

    agent_id: Identifier = Field(description="The agent that runs it.")
    action: Name = Field(description="Name of the action.")
    instruction_id: Identifier = Field(description="The same before and after one run.")


class ActionFinished(Payload):
    """An agent has run an action."""

    agent_id: Identifier = Field(description="The agent that ran it.")
    action: Name = Field(description="Name of the action.")
    instruction_id: Identifier = Field(description="The same before and after one run.")
    status: Literal["completed", "failed"] = Field(description="How it ended.")
    duration_ms: NonNegativeFloat = Field(description="Time spent in the action, in milliseconds.")
    error: ErrorInfo | None = Field(None, description="Why it failed; null if it did not.")


class AgentError(Payload):
    """A handler raised. The agent's state is as before the signal, and nothing that the handler asked for was done."""

    agent_id: Identifier = Field(description="The agent whose handler raised.")
    handler: Name = Field(description="Name of the handler.")
    signal_id: Copied = Field(description="The signal that was being handled; cut to 500 characters.")
    signal_type: Copied = Field(description="That signal's type; cut to 500 characters.")
    error: ErrorInfo = Field(description="What was raised.")
    error_count: PositiveInt = Field(description="Errors of this agent so far, this one included.")
