"""The envelope as it is read and written. Agreement with another implementation: test_signal_sdk.py."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.payloads.tasks import TaskCompleted
from schemas.signal import MAX_DEPTH, Extensions, MalformedSignal, Signal, decode, encode, new_signal, to_dict
from tests.support.signals import signals

MINIMAL = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
BINARY_HEADERS = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t")]


def wire(**attributes: Any) -> bytes:
    return json.dumps(MINIMAL | attributes).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in MINIMAL.items() if key != name}).encode()


def reason(value: bytes | None, headers: list[tuple[str, bytes | str | None]] | None = None) -> str:
    with pytest.raises(MalformedSignal) as caught:
        decode(value, headers)
    return caught.value.reason


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


class TestStructuredMode:
    def test_reads_every_attribute(self) -> None:
        """All named attributes arrive with their types, times as aware datetimes."""
        signal = decode(
            wire(
                subject="host-1",
                time="2026-01-02T03:04:05.678+01:00",
                datacontenttype="application/json",
                dataschema="urn:x",
                correlationid="c",
                causationid="d",
                traceparent="00-0-0-00",
                deadline="2026-01-02T03:04:06Z",
                data={"n": [1, 2.5, None, "x"]},
            )
        )
        assert signal == Signal(
            id="1",
            source="s",
            type="t",
            subject="host-1",
            time=datetime(2026, 1, 2, 2, 4, 5, 678000, tzinfo=UTC),
            datacontenttype="application/json",
            dataschema="urn:x",
            correlationid="c",
            causationid="d",
            traceparent="00-0-0-00",
            deadline=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
            data={"n": [1, 2.5, None, "x"]},
        )

    def test_wins_over_repeated_headers(self) -> None:
        """The headers that senders repeat beside a whole event change nothing."""
        assert decode(wire(), [("ce_id", b"other"), ("ce_type", b"other")]).id == "1"

    def test_is_recognised_by_content_type(self) -> None:
        """A record that says it is structured is read so, even if all binary-mode headers are there too."""
        headers = [*BINARY_HEADERS, ("content-type", b"application/cloudevents+json; charset=utf-8")]
        signal = decode(wire(id="inner", tenant="x"), headers)
        assert (signal.id, signal.extensions) == ("inner", {"tenant": "x"})

    @pytest.mark.parametrize("version", ["1.0", "1.0.1", "1.0.2"])
    def test_reads_patch_versions_and_writes_1_0(self, version: str) -> None:
        """Senders that put a patch version into `specversion` are understood; what we write says 1.0."""
        signal = decode(wire(specversion=version, data=1))
        assert signal.data == 1
        assert json.loads(encode(signal))["specversion"] == "1.0"

    @pytest.mark.parametrize("version", ["2.0", "1.1", "0.3", "", "1"])
    def test_refuses_other_versions(self, version: str) -> None:
        """An event of a version that is not understood is refused, not guessed at."""
        assert reason(wire(specversion=version)) == "unsupported_version"

    @pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
    def test_refuses_a_missing_attribute(self, name: str) -> None:
        """What CloudEvents requires is required."""
        assert reason(without(name)) == "invalid_envelope"

    def test_finds_specversion_in_the_envelope_only(self) -> None:
        """A `specversion` inside the data does not make an event of something that has none."""
        value = json.dumps({"id": "1", "source": "s", "type": "t", "data": {"specversion": "1.0"}}).encode()
        assert reason(value) == "invalid_envelope"

    def test_reads_attributes_in_any_order(self) -> None:
        """`specversion` may come last."""
        assert decode(json.dumps(dict(reversed(MINIMAL.items()))).encode()) == decode(wire())

    @pytest.mark.parametrize(
        "attributes",
        [
            {"id": 5},
            {"id": ""},
            {"id": None},
            {"source": ["s"]},
            {"type": {}},
            {"subject": ""},
            {"subject": 1},
            {"time": 1767225600},
            {"time": "yesterday"},
            {"time": "2026-02-30T00:00:00Z"},
            {"correlationid": 7},
            {"specversion": 1},
            {"specversion": None},
            {"tenant": {"a": 1}},
            {"tenant": [1]},
            {"tenant": 1.5},
            {"Tenant": "upper"},
            {"ten-ant": "dash"},
            {"x" * 65: "long"},
            {"extensions": {"tenant": "x"}},
        ],
        ids=str,
    )
    def test_refuses_wrong_attributes(self, attributes: dict[str, Any]) -> None:
        """An attribute of the wrong type or name is refused as a wrong envelope."""
        assert reason(wire(**attributes)) == "invalid_envelope"

    @pytest.mark.parametrize("name", ["time", "deadline"])
    def test_refuses_a_time_without_zone(self, name: str) -> None:
        """A time that means a different moment to every reader is refused."""
        assert reason(wire(**{name: "2026-01-01T00:00:00"})) == "invalid_envelope"

    @pytest.mark.parametrize("value", [b"[]", b"null", b"5", b'"text"', b"{}", b"[{}]"])
    def test_refuses_json_that_is_no_event(self, value: bytes) -> None:
        """JSON of another shape is a wrong envelope."""
        assert reason(value) == "invalid_envelope"

    @pytest.mark.parametrize("value", [None, b"", b"  \n"])
    def test_refuses_nothing(self, value: bytes | None) -> None:
        """A null or blank value without headers is named as such."""
        assert reason(value) == "empty_value"

    @pytest.mark.parametrize(
        "value",
        [
            b"{",
            b"nonsense",
            wire()[:-1],
            wire() + b"x",
            wire(tenant="x")[:-1],
            wire(id=5)[:-9],
            wire()[:-1] + b',"data":NaN}',
            wire()[:-1] + b',"data":1e999}',
            wire()[:-1] + b',"data":"\\ud800"}',
            b"\xef\xbb\xbf" + wire(),
            wire().decode().encode("utf-16"),
        ],
    )
    def test_refuses_what_is_not_json(self, value: bytes) -> None:
        """Truncated or otherwise broken JSON is refused as that, wherever in the value it breaks."""
        assert reason(value) == "invalid_json"

    @pytest.mark.parametrize(
        "value",
        [wire(id="X").replace(b"X", b"\xff"), wire(data="X").replace(b"X", b"\xc3"), wire(id=5)[:-1] + b',"a":"\xff"}'],
    )
    def test_refuses_invalid_utf8(self, value: bytes) -> None:
        """Bytes that are not UTF-8 are refused, and not replaced."""
        assert reason(value) == "invalid_utf8"

    @pytest.mark.parametrize("character", ["\x00", "\n", "\x1f", "\x7f", "\x85", "\x9f"])
    @pytest.mark.parametrize(
        "name", ["id", "source", "type", "subject", "datacontenttype", "correlationid", "causationid", "tenant"]
    )
    @pytest.mark.parametrize("ascii_only", [True, False])
    def test_refuses_control_characters(self, name: str, character: str, ascii_only: bool) -> None:
        """No attribute may hold a control character, escaped or raw; log lines and headers are made of them."""
        value = json.dumps(MINIMAL | {name: f"a{character}b"}, ensure_ascii=ascii_only).encode()
        assert reason(value) == "control_characters"

    def test_allows_other_text(self) -> None:
        """Attributes may hold anything printable, and spaces of every kind; data may hold control characters."""
        signal = decode(wire(subject="Zürich\u00a0\u2028😀", data="a\x00\n\x7f"))
        assert (signal.subject, signal.data) == ("Zürich\u00a0\u2028😀", "a\x00\n\x7f")


class TestDepth:
    def test_limit_can_be_used_to_the_full(self) -> None:
        """Data at the allowed depth can be read, put into a payload, written and read again."""
        data = decode(wire(data=nested(MAX_DEPTH))).data
        answer = TaskCompleted(task_id="1", agent_id="a", result=data, duration_ms=1, attempts=1)
        written = encode(new_signal("task.completed", answer.result, source="s"))
        assert decode(written).data == nested(MAX_DEPTH)
        assert b"[[[" in encode(new_signal("task.completed", answer, source="s"))

    @pytest.mark.parametrize("attributes", [{}, {"tenant": "x"}, {"specversion": "1.0.2"}], ids=str)
    @pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 100_000])
    def test_deeper_is_refused(self, levels: int, attributes: dict[str, Any]) -> None:
        """Deeper nesting is refused on every way through the reader, before anything can stumble over it."""
        value = wire(**attributes)[:-1] + b',"data":' + b"[" * levels + b"]" * levels + b"}"
        assert reason(value) == "too_deep"

    def test_objects_count_as_arrays_do(self) -> None:
        """Depth is counted through objects too."""
        deep = MAX_DEPTH // 2 + 1
        assert reason(wire()[:-1] + b',"data":' + b'[{"a":' * deep + b"0" + b"}]" * deep + b"}") == "too_deep"

    def test_binary_mode_has_the_same_limit(self) -> None:
        """The way a record is laid out does not change the limit."""
        levels = MAX_DEPTH + 1
        assert reason(b"[" * levels + b"]" * levels, BINARY_HEADERS) == "too_deep"
        assert reason(b"[" * 100_000, BINARY_HEADERS) == "too_deep"

    def test_many_containers_side_by_side_are_not_deep(self) -> None:
        """A long list of objects is flat."""
        data = [{"a": [index]} for index in range(5 * MAX_DEPTH)]
        assert decode(wire(data=data)).data == data


class TestBinaryMode:
    def test_reads_headers_and_value(self) -> None:
        """Attributes come from `ce_` headers in any case, as bytes or text, and data from the value."""
        headers = [
            ("CE_SpecVersion", b"1.0"),
            ("ce_id", "ü1"),
            ("ce_source", b"s"),
            ("ce_type", "t"),
            ("ce_time", b"2026-01-01T00:00:00Z"),
            ("ce_tenant", b"acme"),
            ("content-type", b"application/json"),
            ("x-other", b"\xff"),
        ]
        assert decode(b'{"n":1}', headers) == Signal(
            id="ü1",
            source="s",
            type="t",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            datacontenttype="application/json",
            data={"n": 1},
            extensions=Extensions(tenant="acme"),
        )

    @pytest.mark.parametrize("value", [None, b""])
    @pytest.mark.parametrize("content_type", [None, b"application/json", b"text/plain", b"image/png"])
    def test_no_value_is_no_data(self, value: bytes | None, content_type: bytes | None) -> None:
        """A record without a value has no data, whatever its content type says."""
        assert decode(value, [*BINARY_HEADERS, ("content-type", content_type)]).data is None

    @pytest.mark.parametrize(
        ("content_type", "value", "data"),
        [
            (None, b'{"a":1}', {"a": 1}),
            ("application/json; charset=utf-8", b"[1]", [1]),
            ("Application/JSON", b"1", 1),
            ("application/vnd.acme.v1+json", b"1", 1),
            ("text/json", b"1", 1),
            ("text/plain", "hé".encode(), "hé"),
            ("text/csv", b"\xff,\xfe", b"\xff,\xfe"),
            ("application/x-ndjson", b"1\n2", b"1\n2"),
            ("application/octet-stream", b"123", b"123"),
        ],
    )
    def test_content_type_decides_what_data_is(self, content_type: str | None, value: bytes, data: Any) -> None:
        """JSON becomes values, text becomes text, and everything else stays bytes."""
        assert decode(value, [*BINARY_HEADERS, ("content-type", content_type)]).data == data

    @pytest.mark.parametrize(("value", "expected"), [(b"{", "invalid_json"), (b'"\xff"', "invalid_utf8")])
    def test_refuses_a_value_that_is_not_the_promised_json(self, value: bytes, expected: str) -> None:
        """A value that breaks its headers' promise is refused with the reason that fits."""
        assert reason(value, BINARY_HEADERS) == expected

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("ce_id", b"\xff", "invalid_utf8"),
            ("ce_id", b"", "invalid_envelope"),
            ("ce_id", None, "invalid_envelope"),
            ("ce_id", b"a\x00b", "control_characters"),
            ("ce_specversion", b"9.9", "unsupported_version"),
            ("ce_time", b"2026-01-01", "invalid_envelope"),
            ("ce_data", b"x", "invalid_envelope"),
            ("ce_", b"x", "invalid_envelope"),
            ("ce_data_base64", b"AA==", "invalid_envelope"),
        ],
    )
    def test_refuses_wrong_headers(self, name: str, value: bytes | None, expected: str) -> None:
        """Headers are held to the same rules as JSON attributes."""
        assert reason(b"{}", [*BINARY_HEADERS, (name, value)]) == expected

    def test_header_without_value_is_an_absent_attribute(self) -> None:
        """A null header of an optional attribute is as good as none."""
        assert decode(b"1", [*BINARY_HEADERS, ("ce_subject", None)]).subject is None


class TestData:
    def test_bytes_travel_as_base64(self) -> None:
        """Binary data is written as `data_base64` and read back as bytes."""
        written = encode(new_signal("t", b"\x00\xff", source="s"))
        body = json.loads(written)
        assert "data" not in body
        assert base64.b64decode(body["data_base64"]) == b"\x00\xff"
        assert decode(written).data == b"\x00\xff"

    @pytest.mark.parametrize("encoded", ["AA=", "ä", "A A A A", 5, [], {}, True])
    def test_refuses_what_is_not_base64(self, encoded: Any) -> None:
        """Broken base64 is refused."""
        assert reason(wire(data_base64=encoded)) == "invalid_envelope"

    def test_refuses_two_kinds_of_data(self) -> None:
        """An event with both `data` and `data_base64` does not say what it means, so it is refused."""
        assert reason(wire(data=1, data_base64="AA==")) == "invalid_envelope"

    def test_models_are_written_as_json(self) -> None:
        """A payload model can be the data of a signal as it is."""
        model = TaskCompleted(task_id="1", agent_id="a", result={"at": [1]}, duration_ms=2.5, attempts=1)
        assert decode(encode(new_signal("task.completed", model, source="s"))).data == model.model_dump(mode="json")

    def test_large_integers_survive(self) -> None:
        """Integers beyond 64 bits keep every digit."""
        assert decode(encode(decode(wire(data=2**80)))).data == 2**80


class TestExtensions:
    def test_unknown_attributes_survive(self) -> None:
        """Attributes that we do not know are kept with their types and written again, in their order."""
        signal = decode(wire(tenant="acme", shard=7, dryrun=True, nothing=None, extensions="a name as good as any"))
        written = json.loads(encode(signal))
        assert list(written.items())[4:] == [
            ("tenant", "acme"),
            ("shard", 7),
            ("dryrun", True),
            ("nothing", None),
            ("extensions", "a name as good as any"),
        ]

    def test_are_absent_when_there_are_none(self) -> None:
        """A signal without extensions has None, so that the fast way of writing is taken."""
        assert decode(wire()).extensions is None


class TestNewSignal:
    def test_has_a_fresh_id_and_the_present_time(self) -> None:
        """Two signals made alike differ in id, and their time is now and aware."""
        one, two = new_signal("t", source="s"), new_signal("t", source="s")
        assert one.id != two.id
        assert one.time is not None
        assert abs(datetime.now(UTC) - one.time) < timedelta(minutes=1)

    def test_key_is_the_subject_or_the_source(self) -> None:
        """Signals of one entity share a Kafka key."""
        assert new_signal("t", source="s", subject="host-1").key == "host-1"
        assert new_signal("t", source="s").key == "s"

    def test_to_dict_is_what_encode_writes(self) -> None:
        """The object form and the bytes say the same."""
        signal = new_signal("t", {"a": 1}, source="s", subject="x", extensions=Extensions(tenant="y"))
        assert to_dict(signal) == json.loads(encode(signal))


@settings(deadline=None)
@given(signals())
def test_round_trip(signal: Signal[Any]) -> None:
    """Whatever is written is read back equal."""
    assert decode(encode(signal)) == signal


@settings(deadline=None)
@given(signals(data=st.binary(max_size=50)))
def test_round_trip_of_bytes(signal: Signal[Any]) -> None:
    """Binary data is read back equal, the empty one included."""
    assert decode(encode(signal)) == signal


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with a piece of it replaced by something else."""
    value = encode(draw(signals()))
    start = draw(st.integers(0, len(value)))
    end = draw(st.integers(start, min(len(value), start + 8)))
    return value[:start] + draw(st.binary(max_size=8)) + value[end:]


@settings(deadline=None, max_examples=300)
@given(damaged() | st.binary(max_size=100), st.sampled_from([None, BINARY_HEADERS, [("ce_id", b"\xff")]]))
def test_any_bytes_are_read_or_refused(value: bytes, headers: list[tuple[str, bytes | str | None]] | None) -> None:
    """Whatever lies on a topic is a signal that can be written again or a `MalformedSignal`, and nothing else."""
    try:
        signal = decode(value, headers)
    except MalformedSignal:
        return
    assert decode(encode(signal)) == signal
