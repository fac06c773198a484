"""Payloads about scaling: decisions, the steps of a rescale, and agents of pools that come and go."""

from typing import Any, Literal

from pydantic import Field

from schemas.control import Target
from schemas.payloads.base import Identifier, Message, Name, Payload, Timestamp, Word


class ScalingDecision(Payload):
    """One decision about a target; with its inputs, so that it can be made again (`signalbox scale explain`)."""

    decision_id: Name = Field(description="Names the decision.")
    target: Target = Field(description="`flow/<name>` or `pool/<name>`.")
    decided_at: Timestamp = Field(description="When, by the sample it rests on.")
    current: int = Field(ge=0, description="How many workers or agents there were.")
    desired: int = Field(ge=0, description="How many there should be.")
    reason: Word = Field(description="Why, as a stable word.")
    message: Message = Field(description="Why, as a sentence with figures.")
    terms: dict[str, float | int | str | None] = Field(description="The terms of the formula by name.")
    inputs: dict[str, Any] = Field(description="The policy, the memory and the sample that it was made of.")


class Rescale(Payload):
    """A change of the number of workers of a flow: that it starts, goes a step on, is completed, or failed."""

    rescale_id: Name = Field(description="Names the change; the same in all its records.")
    target: Target = Field(description="`flow/<name>` or `pool/<name>`.")
    generation: int = Field(ge=0, description="The generation of workers that the change ends or begins with.")
    before: int = Field(ge=0, description="Workers before.")
    desired: int = Field(ge=0, description="Workers after.")
    step: Literal["plan", "warm", "drain", "reap", "save", "start", "confirm", "done", "rollback", "superseded"] = (
        Field(description="How far it is.")
    )
    reason: Message = Field("", description="Why it was asked for.")
    decision_id: Name | None = Field(None, description="The decision behind it; none if a person asked.")
    error: Message | None = Field(None, description="What went wrong, if something did.")
    duration_s: float | None = Field(None, ge=0, description="Seconds since it started.")
    pause_s: float | None = Field(None, ge=0, description="Seconds in which nothing was processed.")
    workers: int = Field(ge=0, description="Workers that there are now.")
    note: Message | None = Field(None, description="What else there is to say, such as that some workers read nothing.")


class Autoscaling(Payload):
    """The autoscaler's decisions are no longer obeyed, or are again; the signal's type says which."""

    reason: Message = Field("", description="Why, for people.")


class AgentScaled(Payload):
    """An agent of a pool that came into being, or is ended, because the pool was resized."""

    agent_id: Identifier = Field(description="The agent.")
    pool: Word = Field(description="Name of the pool's agent class.")
    reason: Word = Field(description="Why, such as `high_load`, `low_load`, `queue_overflow`.")
    total_agents: int = Field(ge=0, description="Agents of the pool after this one.")
    decision_id: Name | None = Field(None, description="The decision behind it; none if a person asked.")


class PoolResized(Payload):
    """A pool that has another number of agents from now on."""

    pool: Word = Field(description="Name of the pool's agent class.")
    size: int = Field(ge=1, description="Agents that there are.")
    before: int = Field(ge=0, description="Agents that there were.")
    reason: Message = Field("", description="Why, for people.")
    decision_id: Name | None = Field(None, description="The decision behind it; none if a person asked.")
