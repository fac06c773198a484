"""Decisions as they are recorded on the `scaling` topic, and whether a record can be made again from its inputs."""

from datetime import UTC, datetime
from typing import Any

from schemas.payloads.scaling import ScalingDecision
from signalbox.scaling.controller import replay
from signalbox.scaling.model import Decision


def to_payload(decision: Decision) -> ScalingDecision:
    """The record of a decision.

    Raises:
        ValidationError: of pydantic; the target is neither `flow/<name>` nor `pool/<name>`.
    """
    return ScalingDecision(
        decision_id=decision.id,
        target=decision.target,
        decided_at=datetime.fromtimestamp(decision.at, UTC),
        current=decision.units,
        desired=decision.desired,
        reason=decision.reason,
        message=decision.message,
        terms=decision.terms,
        inputs=decision.inputs,
    )


def from_payload(payload: ScalingDecision) -> Decision:
    """The decision that a record tells of."""
    return Decision(
        id=payload.decision_id,
        target=payload.target,
        at=payload.decided_at.timestamp(),
        units=payload.current,
        desired=payload.desired,
        verdict="hold" if payload.desired == payload.current else "scale",
        reason=payload.reason,
        message=payload.message,
        terms=payload.terms,
        inputs=payload.inputs,
    )


def differences(payload: ScalingDecision) -> dict[str, dict[str, Any]]:
    """What is otherwise when a recorded decision is made again: the recorded and the new value by field; none if equal.

    Raises:
        SignalboxError: its inputs are not those of a decision.
    """
    recorded, again = (one.model_dump(mode="json") for one in (payload, to_payload(replay(payload.inputs))))
    return {
        name: {"recorded": value, "replayed": again[name]} for name, value in recorded.items() if value != again[name]
    }
