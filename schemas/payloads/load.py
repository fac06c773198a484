"""Payloads about load: what the load sensor measures of flows and pools, and the words by which anyone may tell of it.

What is measured may be partly unknown, and is null then: a reader that needs it has to do without, not to guess.
"""

from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from schemas.control import Target
from schemas.payloads.base import Message, Name, Payload, Ratio, Timestamp, Word

Load = Annotated[float, Field(ge=0, strict=True)]
"""Load as a share of what can be borne; above 1 is overload. A number: text is not taken for one."""


class LoadLevel(Payload):
    """The load has become high, or low; the signal's type says which. Whoever sends it need only say how high."""

    load: Load = Field(description="Load as a share of what can be borne: 0.93 of the slots, the time, or the like.")
    pool: Word | None = Field(None, description="The pool whose agents are to share it; none is the usual one.")
    target: Target | None = Field(None, description="What was measured, if the node's own sensor did.")
    timestamp: Timestamp | None = Field(None, description="When it was measured; none is the time of the signal.")


class QueueOverflow(Payload):
    """More waits for a pool than it should."""

    pool: Word | None = Field(None, description="The pool; none is the usual one.")
    queued: NonNegativeInt | None = Field(None, description="How much waits.")
    limit: NonNegativeInt | None = Field(None, description="How much may.")
    timestamp: Timestamp | None = Field(None, description="When it was measured; none is the time of the signal.")

    @model_validator(mode="before")
    @classmethod
    def _may_be_left_out(cls, data: Any) -> Any:
        """A signal of this type says enough by itself."""
        return {} if data is None else data


class LoadMetrics(Payload):
    """One look at the load of a flow or pool. The signal's subject names it: `flow/<name>` or `pool/<name>`."""

    units: NonNegativeInt = Field(description="Worker processes of the flow, or agents of the pool.")
    arrivals: NonNegativeFloat | None = Field(None, description="Records per second that came in, by topics' ends.")
    processed: NonNegativeFloat | None = Field(None, description="Records per second that were worked off.")
    lag: NonNegativeFloat | None = Field(None, description="Records that wait, or what is queued for the pool.")
    busy: NonNegativeFloat | None = Field(None, description="Share of its slots that the average unit has occupied.")
    service_s: NonNegativeFloat | None = Field(None, description="Seconds that one takes, 95th percentile.")
    throttled: NonNegativeFloat = Field(0.0, description="Answers per second that asked for patience (429).")
    memory: NonNegativeFloat | None = Field(None, description="Memory of the fullest unit as a share of its limit.")
    partitions: NonNegativeInt | None = Field(None, description="Partitions that carry load; none if any number may.")
    hottest: Ratio | None = Field(None, description="Share of the lag that lies in the fullest partition.")
    hot_key: Name | None = Field(None, description="A subject that makes up most of the fullest partition.")
    stuck: NonNegativeInt = Field(0, description="Partitions whose position stands although records wait.")
    stuck_lag: NonNegativeFloat | None = Field(None, description="Records that wait in those.")
    pauses: tuple[NonNegativeFloat, ...] = Field(
        (), max_length=5, description="Seconds that the last changes paused it, the latest last."
    )
    changing: bool = Field(False, description="Whether a change is under way.")
    unknown: Message | None = Field(None, description="Why something could not be measured, if so.")
    timestamp: Timestamp | None = Field(None, description="When it was measured; none is the time of the signal.")
