"""Every payload in the catalogue, held against its model and its generated JSON Schema."""

import json
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from schemas.catalog import PAYLOADS, is_shipped, payload_model
from schemas.export import DIRECTORY
from schemas.payloads.alerts import Alert
from schemas.payloads.health import SystemHealth
from schemas.signal import decode, encode, new_signal
from tests.support.payloads import EXAMPLES

MODELS = {model.__name__: model for model in PAYLOADS.values()}
SCHEMAS = {body["title"]: body for body in (json.loads(path.read_text()) for path in DIRECTORY.glob("*.json"))}
CASES = [pytest.param(MODELS[name], example, id=name) for name, pair in EXAMPLES.items() for example in pair]
REQUIRED = [
    pytest.param(MODELS[name], pair[0], field, id=f"{name}.{field}")
    for name, pair in EXAMPLES.items()
    for field in pair[0]
    if name != "AlertAck" or field == "by"
]


def errors(model: type[BaseModel], data: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[model.__name__]).iter_errors(data)]


def test_examples_are_complete() -> None:
    """Every model of the catalogue has its examples, so that no payload escapes these tests."""
    assert EXAMPLES.keys() == MODELS.keys()


@pytest.mark.parametrize(("model", "example"), CASES)
def test_model_and_schema_accept_the_example(model: type[BaseModel], example: dict[str, Any]) -> None:
    """What the model reads is valid by its JSON Schema, and so is what the model writes."""
    assert errors(model, example) == []
    assert errors(model, model.model_validate(example).model_dump(mode="json")) == []


@pytest.mark.parametrize(("model", "example"), CASES)
def test_model_survives_the_wire(model: type[BaseModel], example: dict[str, Any]) -> None:
    """A payload that travels in a signal comes out equal."""
    sent = model.model_validate(example)
    received = decode(encode(new_signal("t", sent, source="s"))).data
    assert model.model_validate(received) == sent


@pytest.mark.parametrize(("model", "example"), CASES)
def test_unknown_fields_are_ignored(model: type[BaseModel], example: dict[str, Any]) -> None:
    """A field that a newer sender adds breaks neither the model nor the schema."""
    newer = example | {"added_later": {"x": 1}}
    assert model.model_validate(newer) == model.model_validate(example)
    assert errors(model, newer) == []


@pytest.mark.parametrize(("model", "example", "field"), REQUIRED)
def test_required_fields_are_required(model: type[BaseModel], example: dict[str, Any], field: str) -> None:
    """Model and schema both refuse a payload that lacks a required field."""
    incomplete = {name: value for name, value in example.items() if name != field}
    assert errors(model, incomplete) != []
    with pytest.raises(ValidationError):
        model.model_validate(incomplete)


@pytest.mark.parametrize(
    ("model", "example", "field"), [case for case in REQUIRED if case.id != "TaskCompleted.result"]
)
def test_wrong_types_are_refused(model: type[BaseModel], example: dict[str, Any], field: str) -> None:
    """Model and schema both refuse a list where none belongs."""
    wrong = example | {field: [["x"]]}
    assert errors(model, wrong) != []
    with pytest.raises(ValidationError):
        model.model_validate(wrong)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_every_field_is_described(model: type[BaseModel]) -> None:
    """Each field of each schema says what it holds."""
    schema = SCHEMAS[model.__name__]
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part["properties"].items():
            # A reference to a described type carries the text of its own field only in the model.
            assert field.get("description") or "$ref" in field, f"{part['title']}.{name}"


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_payloads_cannot_be_changed(model: type[BaseModel]) -> None:
    """A payload that several agents read is immutable."""
    payload = model.model_validate(EXAMPLES[model.__name__][0])
    with pytest.raises(ValidationError, match="frozen"):
        setattr(payload, next(iter(model.model_fields)), None)


def test_lookup_is_exact() -> None:
    """Only the listed types have a model; a longer, shorter or similar name has none."""
    assert payload_model("alert.raised") is Alert
    assert is_shipped("alert.raised")
    for other in ("alert", "alert.*", "alert.raised.twice", "Alert.raised", "alert.silenced", ""):
        assert payload_model(other) is None
        assert not is_shipped(other)


def test_types_match_the_words_in_the_payloads() -> None:
    """There is one alert type per alert state and one health type per level, by the same words."""
    states = get_args(Alert.model_fields["state"].annotation)
    assert {name for name, model in PAYLOADS.items() if model is Alert} == {f"alert.{state}" for state in states}
    levels = ("normal", "warning", "critical")
    assert {name for name, model in PAYLOADS.items() if model is SystemHealth} == {
        f"system.health.{level}" for level in levels
    }


def test_catalogue_cannot_be_changed() -> None:
    """The catalogue is a constant and no registry."""
    with pytest.raises(TypeError):
        PAYLOADS["mine"] = Alert  # type: ignore[index]
