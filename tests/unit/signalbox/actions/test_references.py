"""References to earlier results: found, checked and replaced, and nothing else is touched."""

import json
from typing import Any

import pytest
from hypothesis import given

from signalbox.actions.references import MissingReference, references, resolved
from tests.support.signals import json_objects

_RESULTS = {"reserve": {"id": 7, "rooms": [{"no": "a"}, {"no": "b"}], "none": None}, "plain": 3}


def _ref(reference: Any) -> dict[str, Any]:
    return {"$ref": reference}


@given(json_objects.filter(lambda value: "$ref" not in str(value)))
def test_what_holds_no_reference_stays_as_it_is(params: dict[str, Any]) -> None:
    """Parameters without references come out equal, and none is found in them."""
    assert list(references(params)) == []
    assert resolved(params, {}) == params


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("steps.plain.result", 3),
        ("steps.reserve.result.id", 7),
        ("steps.reserve.result.rooms.1.no", "b"),
        ("steps.reserve.result.rooms", [{"no": "a"}, {"no": "b"}]),
        ("steps.reserve.result.none", None),
    ],
)
def test_a_reference_becomes_what_it_refers_to(reference: str, value: Any) -> None:
    """A reference is replaced wherever it stands, by the value as it is, of whatever type."""
    params = {"deep": [1, {"here": _ref(reference)}], "other": "x"}
    assert list(references(params)) == [(reference.split(".")[1], reference)]
    assert resolved(params, _RESULTS) == {"deep": [1, {"here": value}], "other": "x"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("steps.reserve.result.name", "no 'name' in steps.reserve.result, which is an object"),
        ("steps.reserve.result.rooms.2", "no '2' in steps.reserve.result.rooms, which is a list"),
        ("steps.reserve.result.rooms.-1", "which is a list"),
        ("steps.reserve.result.rooms." + "9" * 5000, "which is a list"),
        ("steps.plain.result.id", "no 'id' in steps.plain.result, which is no object and no list"),
        ("steps.other.result", "there is no result of other"),
    ],
)
def test_a_reference_to_nothing_says_where_it_ends(reference: str, message: str) -> None:
    """What a result lacks is named, with the place in the result that lacks it."""
    with pytest.raises(MissingReference, match=message):
        resolved({"x": _ref(reference)}, _RESULTS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (_ref("reserve.id"), "'reserve.id' is no reference: write steps.NAME.result"),
        (_ref("steps.reserve.id"), "is no reference"),
        (_ref(7), "7 is no reference"),
        (_ref("steps.a.result" + ".x" * 100), "is no reference"),
        ({**_ref("steps.a.result"), "default": 1}, "a reference stands alone, and beside 'steps.a.result'"),
        ([_ref("steps.a.result")] * 101, "more than 100 references"),
        (json.loads("[" * 60 + "]" * 60), "nested more than 50 deep"),
    ],
)
def test_what_is_no_reference_is_refused(params: Any, message: str) -> None:
    """A misspelt reference, or too many or too deep ones, are errors before anything runs."""
    with pytest.raises(ValueError, match=message):
        list(references(params))


def test_results_are_not_searched_for_references() -> None:
    """What comes out of a result is data, also when it looks like a reference."""
    results = {"a": _ref("steps.b.result"), "b": 1}
    assert resolved({"x": _ref("steps.a.result")}, results) == {"x": _ref("steps.b.result")}
