"""Commands on the `control` topic. Anyone may send them with any Kafka client; the topic is also the audit log.

What a command does is up to `signalbox.agents`; an invalid one becomes a dead letter.
"""

from typing import Annotated

from pydantic import Field

from schemas.payloads.base import Identifier, Message, Name, Payload

Target = Annotated[str, Field(pattern=r"^(flow|pool)/[a-z][a-z0-9_]{0,63}$")]
"""What is scaled: the workers of a flow, or the agents of a pool."""


class AgentControl(Payload):
    """Pause, resume or stop one agent; the signal's type says which."""

    agent_id: Identifier = Field(description="The agent meant.")
    reason: Message = Field("", description="Why, for people and for the audit; cut to 2,000 characters.")


class AgentSpawn(Payload):
    """Make a keyed agent now instead of on its first signal."""

    agent_type: Name = Field(description="Name of a keyed agent class of the app.")
    subject: Identifier = Field(description="The subject that the new agent is for.")


class ScaleCommand(Payload):
    """Have so many workers in a flow, or agents in a pool. The latest command for a target is the one that counts."""

    target: Target = Field(description="`flow/<name>` or `pool/<name>`.")
    desired: int = Field(ge=0, le=100, description="Workers or agents there are to be; 0 for flows only.")
    reason: Message = Field(description="Why, for people and for the audit; cut to 2,000 characters.")
    decision_id: Name | None = Field(None, description="The decision that this carries out; none if a person did.")
    expected: int | None = Field(
        None, ge=0, description="How many there have to be for the command to hold; otherwise it is stale."
    )


class FlowControl(Payload):
    """Pause, resume or drain a flow; the signal's type says which."""

    flow: Name = Field(description="The flow meant.")
    reason: Message = Field("", description="Why, for people and for the audit; cut to 2,000 characters.")
