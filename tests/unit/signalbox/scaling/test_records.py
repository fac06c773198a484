"""Decisions as records on the `scaling` topic."""

import msgspec

from schemas.payloads.scaling import ScalingDecision
from signalbox.scaling import records
from tests.unit.signalbox.scaling.load import Target


def recorded(decision):
    """The decision's payload as a reader of the topic gets it."""
    data = msgspec.json.decode(msgspec.json.encode(records.to_payload(decision).model_dump(mode="json")))
    return ScalingDecision.model_validate(data)


def test_a_decision_survives_the_topic():
    """Written, read and converted back, it is the same decision, whether it scales or holds."""
    target = Target()
    for decision in (target.tell_for(20, 70), target.until_scaled(700, lag=4000)):
        assert records.from_payload(recorded(decision)) == decision
        assert records.differences(recorded(decision)) == {}


def test_what_was_changed_in_a_record_shows():
    """A record that says something else than its inputs lead to is told field by field."""
    payload = recorded(Target().tell_for(20, 70)).model_copy(update={"desired": 7, "reason": "lag"})
    assert records.differences(payload) == {
        "desired": {"recorded": 7, "replayed": 1},
        "reason": {"recorded": "lag", "replayed": "in_band"},
    }
