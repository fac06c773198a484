"""Dead letters: what goes in comes out, within bounds, whatever it is."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from schemas.dead_letter import (
    DEAD_LETTER_TYPE,
    DeadLetter,
    NotWhole,
    dead_letter_data,
    original_bytes,
    original_headers,
    original_key,
)
from schemas.export import DIRECTORY
from schemas.signal import Reason, decode, encode, new_signal

SCHEMA = Draft202012Validator(json.loads((DIRECTORY / "dead-letter.json").read_text()))


def letter(**given_values: Any) -> DeadLetter:
    values = {
        "reason": "invalid_json",
        "message": "it is broken",
        "topic": "signals",
        "partition": 3,
        "offset": 42,
        "key": b"host-1",
        "value": b"{",
        "limit_bytes": 1000,
    }
    return dead_letter_data(**values | given_values)


def sent(record: DeadLetter) -> DeadLetter:
    """The letter after a trip over the wire."""
    body = encode(new_signal(DEAD_LETTER_TYPE, record, source="s"))
    assert SCHEMA.is_valid(json.loads(body)["data"])
    return DeadLetter.model_validate(decode(body).data)


header_values = st.none() | st.binary(max_size=20)


@settings(deadline=None)
@given(
    st.none() | st.binary(max_size=50),
    st.none() | st.binary(max_size=50),
    st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",)), max_size=10), header_values), max_size=4),
)
def test_round_trip(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    """Key, value and headers come back byte for byte; null stays null and empty stays empty."""
    record = sent(letter(key=key, value=value, headers=headers))
    assert original_key(record) == key
    assert original_bytes(record) == value
    assert original_headers(record) == tuple(headers)
    assert record.size_bytes == len(value or b"")
    assert not record.truncated


def test_tells_reason_and_origin() -> None:
    """A reader learns why, where and when, and which signal and agent were concerned."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    record = sent(letter(timestamp=at, signal_id="1", signal_type="t", agent_id="a"))
    assert (record.reason, record.message) == ("invalid_json", "it is broken")
    assert record.origin.model_dump() == {"topic": "signals", "partition": 3, "offset": 42, "timestamp": at}
    assert (record.signal_id, record.signal_type, record.agent_id) == ("1", "t", "a")


@pytest.mark.parametrize("reason", list(Reason))
def test_takes_every_reason_of_the_envelope(reason: Reason) -> None:
    """What `decode` gives as reason is accepted as it is."""
    assert sent(letter(reason=reason)).reason == reason.value


@pytest.mark.parametrize(
    ("parts", "limit_bytes", "whole"),
    [
        ({"key": b"k" * 10, "value": b"v" * 90}, 100, True),
        ({"key": b"k" * 10, "value": b"v" * 91}, 100, False),
        ({"key": b"k" * 101, "value": None}, 100, False),
        ({"key": None, "value": b"", "headers": [("h" * 50, b"x" * 50)]}, 100, True),
        ({"key": None, "value": b"", "headers": [("h" * 50, b"x" * 51)]}, 100, False),
        ({"key": None, "value": b"", "headers": [("h", b"")] * 101}, 100, False),
        ({"key": None, "value": b"", "headers": [("é" * 51, None)]}, 100, False),
        ({"key": None, "value": b"x"}, 0, False),
    ],
)
def test_keeps_no_more_than_allowed(parts: dict[str, Any], limit_bytes: int, whole: bool) -> None:
    """Key, headers and value share one bound, and a letter that lost something to it says so."""
    record = sent(letter(limit_bytes=limit_bytes, **parts))
    assert record.truncated is not whole
    kept = len(record.key_base64 or "") + len(record.value_base64 or "")
    kept += sum(len(value or "") for _, value in record.headers)
    names = sum(len(name.encode()) for name, _ in record.headers)
    assert kept * 3 / 4 <= limit_bytes - names + 3


def test_truncated_letter_is_not_taken_for_the_original() -> None:
    """What was cut cannot be replayed by mistake; the error names the place of the whole record."""
    record = sent(letter(value=b"v" * 5000))
    assert record.size_bytes == 5000
    for restore in (original_bytes, original_key, original_headers):
        with pytest.raises(NotWhole, match=r"signals\[3\]@42"):
            restore(record)


@pytest.mark.parametrize(
    "change",
    [{"value_base64": "fQ=="}, {"sha256": "0" * 64}, {"sha256": None}, {"value_base64": "?"}],
)
def test_damaged_letter_is_not_taken_for_the_original(change: dict[str, Any]) -> None:
    """A value that does not match its hash, or is not base64, is refused."""
    with pytest.raises(NotWhole):
        original_bytes(letter().model_copy(update=change))


def test_any_text_can_be_reported() -> None:
    """Endless or undecodable text in an error or a signal never keeps its dead letter from being sent."""
    wild = "\udcff\x00" + "x" * 1_000_000
    record = sent(letter(message=wild, signal_id=wild, signal_type=wild, agent_id=wild, headers=[("h", "text")]))
    assert record.message.startswith("?\x00xxx")
    assert len(record.message) == 2_000
    assert len(record.signal_id or "") == 500
    assert original_headers(record) == (("h", b"text"),)


def test_time_of_origin_needs_a_zone() -> None:
    """A naive timestamp is a mistake of the caller and not passed on."""
    with pytest.raises(ValidationError):
        letter(timestamp=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake under test
