"""Alerts: one per episode of trouble, told again whenever it changes."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from schemas.payloads.base import Identifier, Message, Name, Payload, Timestamp

#: Readings that an alert carries at most; an episode's full history is on the input topic.
EVIDENCE_READINGS = 50


class Reading(Payload):
    """One measured value."""

    at: Timestamp = Field(description="When it was measured, with a zone.")
    value: float = Field(description="The value, in the metric's own unit.")
    signal_id: Identifier | None = Field(None, description="The signal that brought it.")


class Alert(Payload):
    """The present state of an alert; the signal's type is `alert.<state>`, its subject the troubled entity."""

    alert_id: Identifier = Field(description="The same for all signals of one episode, from raised to resolved.")
    dedup_key: Identifier = Field(description="The same for all episodes of this subject and metric.")
    subject: Identifier = Field(description="The entity in trouble.")
    metric: Name = Field(description="What is out of bounds, such as `memory_usage`.")
    severity: Literal["info", "warning", "critical"] = Field(description="How bad it is now.")
    state: Literal["raised", "escalated", "resolved", "acknowledged"] = Field(description="What happened to the alert.")
    value: float = Field(description="The latest reading, in the metric's own unit.")
    threshold: float | None = Field(None, description="The bound that was crossed; null if none is a number.")
    evidence: tuple[Reading, ...] = Field(
        (), max_length=EVIDENCE_READINGS, description="Recent readings, oldest first; at most 50."
    )
    raised_at: Timestamp = Field(description="When the episode began, with a zone.")
    updated_at: Timestamp = Field(description="When it last changed, with a zone.")
    message: Message = Field("", description="The trouble in a sentence, for people; cut to 2,000 characters.")
    count: PositiveInt = Field(1, description="Readings out of bounds in this episode so far.")
    acknowledged_by: Name | None = Field(None, description="Who has taken charge, if anybody.")


class AlertAck(Payload):
    """Somebody takes charge of an alert. Names it by `alert_id` (this episode) or `dedup_key` (whichever is open)."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}} for name in ("alert_id", "dedup_key")
            ]
        }
    )

    alert_id: Identifier | None = Field(None, description="The episode.")
    dedup_key: Identifier | None = Field(None, description="The subject and metric.")
    by: Name = Field(description="Who takes charge.")
    note: Message = Field("", description="Why, or what is being done; cut to 2,000 characters.")

    @model_validator(mode="after")
    def _names_an_alert(self) -> Self:
        if self.alert_id is None and self.dedup_key is None:
            msg = "give `alert_id` or `dedup_key`: nothing says which alert is meant"
            raise ValueError(msg)
        return self
