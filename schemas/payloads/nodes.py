"""What nodes tell about themselves on the `registry` topic, keyed by `node/<name>`, beside the agents they run."""

from pydantic import Field, NonNegativeInt, PositiveFloat

from schemas.payloads.base import Message, Name, Payload, Timestamp


class NodeHeartbeat(Payload):
    """A node lives. The registered agents of a node that falls silent are stale."""

    node: Name = Field(description="The node's name.")
    version: Name = Field(description="Version of the software that it runs.")
    started_at: Timestamp = Field(description="When its supervisor started, with a zone.")
    interval_s: PositiveFloat = Field(description="How soon the next heartbeat is to be expected, in seconds.")
    workers: NonNegativeInt = Field(description="Worker processes that run.")
    agents: NonNegativeInt | None = Field(None, description="Agents on them, registered or not; null while unknown.")


class NodeStopped(Payload):
    """A node has drained and ends. What it saved waits for its next start."""

    node: Name = Field(description="The node's name.")
    reason: Message = Field("", description="Why, for people; cut to 2,000 characters.")
    stopped_at: Timestamp = Field(description="When, with a zone.")
