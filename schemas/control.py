"""Commands on the `control` topic. Anyone may send them with any Kafka client; the topic is also the audit log.

What a command does is up to `signalbox.agents`; an invalid one becomes a dead letter.
"""

from pydantic import Field

from schemas.payloads.base import Identifier, Message, Name, Payload


class AgentControl(Payload):
    """Pause, resume or stop one agent; the signal's type says which."""

    agent_id: Identifier = Field(description="The agent meant.")
    reason: Message = Field("", description="Why, for people and for the audit; cut to 2,000 characters.")


class AgentSpawn(Payload):
    """Make a keyed agent now instead of on its first signal."""

    agent_type: Name = Field(description="Name of a keyed agent class of the app.")
    subject: Identifier = Field(description="The subject that the new agent is for.")
