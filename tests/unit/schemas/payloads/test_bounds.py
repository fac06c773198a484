"""Bounds of the single payloads: what is out of range is refused."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas.catalog import PAYLOADS
from schemas.payloads.alerts import EVIDENCE_READINGS
from tests.support.payloads import AT, EXAMPLES

MODELS: dict[str, type[BaseModel]] = {model.__name__: model for model in PAYLOADS.values()}


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("SystemHealth", {"cpu_usage": 1.01}),
        ("SystemHealth", {"memory_usage": -0.1}),
        ("SystemHealth", {"disk_usage": float("nan")}),
        ("SystemHealth", {"process_count": -1}),
        ("SystemHealth", {"timestamp": "2026-01-01T00:00:00"}),
        ("SystemHealth", {"level": "fine"}),
        ("ResourceUsage", {"cpu_ratio": float("inf")}),
        ("ResourceUsage", {"pid": 0}),
        ("TaskSubmitted", {"task_id": ""}),
        ("TaskSubmitted", {"task_id": "x" * 257}),
        ("TaskSubmitted", {"task_id": 7}),
        ("TaskSubmitted", {"params": None}),
        ("TaskSubmitted", {"priority": 1001}),
        ("TaskSubmitted", {"deadline": "2026-01-01T00:00:00"}),
        ("TaskCompleted", {"attempts": -1}),
        ("TaskCompleted", {"duration_ms": -1}),
        ("TaskFailed", {"attempts": -1}),
        ("TaskRejected", {"reason": "Not a word"}),
        ("Alert", {"severity": "bad"}),
        ("Alert", {"value": float("nan")}),
        ("Alert", {"evidence": [{"at": AT, "value": 1}] * (EVIDENCE_READINGS + 1)}),
        ("AgentRegistered", {"kind": "herd"}),
        ("AgentError", {"error_count": 0}),
        ("AgentControl", {"agent_id": ""}),
        ("AgentSpawn", {"subject": ""}),
        ("DeadLetter", {"sha256": "abc"}),
        ("DeadLetter", {"origin": {"topic": "signals", "partition": -1, "offset": 0}}),
    ],
    ids=str,
)
def test_values_out_of_bounds_are_refused(model: str, change: dict[str, Any]) -> None:
    """A value that its description rules out does not get in."""
    with pytest.raises(ValidationError):
        MODELS[model].model_validate(EXAMPLES[model][0] | change)


@pytest.mark.parametrize("names", [{}, {"alert_id": None}, {"alert_id": None, "dedup_key": None}], ids=str)
def test_acknowledgement_must_name_an_alert(names: dict[str, Any]) -> None:
    """An acknowledgement of nothing in particular is refused with the two ways to name an alert."""
    with pytest.raises(ValidationError, match="`alert_id` or `dedup_key`"):
        MODELS["AlertAck"].model_validate({"by": "ann"} | names)


@pytest.mark.parametrize("name", ["alert_id", "dedup_key"])
def test_acknowledgement_names_an_alert_either_way(name: str) -> None:
    """An alert can be named by its episode or by its key."""
    assert getattr(MODELS["AlertAck"].model_validate({"by": "ann", name: "x"}), name) == "x"
