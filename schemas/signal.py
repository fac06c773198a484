"""The signal envelope: a CloudEvents 1.0 event, read in structured or binary mode, written in structured mode.

A signal is decoded in one pass, `data` included, because nearly every signal that is routed is also looked into.
Attributes that CloudEvents calls extensions and that are not named here survive a round trip in `extensions`.
Not checked here: whether anyone handles the type (`signalbox.routing`), or what `data` holds (`schemas.catalog`).
"""

import base64
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

import msgspec

SPEC_VERSION = "1.0"
#: Versions read besides our own: the seed's platform writes its library version into this attribute.
_LENIENT_VERSIONS = ("1.0.1", "1.0.2")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,64}")
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")
_TEXT_ATTRIBUTES = (
    "id",
    "source",
    "type",
    "subject",
    "datacontenttype",
    "dataschema",
    "correlationid",
    "causationid",
    "traceparent",
)
_JSON_TYPE = re.compile(r"(application|text)/([a-z0-9.-]+\+)?json\s*(;.*)?", re.IGNORECASE)
#: Levels of arrays and objects that `data` may nest. pydantic stops at 255 and the encoders at what is left of the
#: stack, so a signal that is merely readable could fail later, where it stops a worker.
MAX_DEPTH = 200
#: A shorter value cannot nest deeper: every level takes an opening and a closing byte.
_SHALLOW_BYTES = 2 * MAX_DEPTH
#: A header name prefix of the CloudEvents Kafka binding, version 1.0.2, section 3.2.3.
HEADER_PREFIX = "ce_"

Headers = Iterable[tuple[str, bytes | str | None]]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
D = TypeVar("D")
"""What `Signal.data` holds: plain JSON values, or the payload model a handler asked for."""


class Reason(StrEnum):
    """Why a record is not a signal: stable words for metrics and dead letters."""

    EMPTY_VALUE = "empty_value"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    TOO_DEEP = "too_deep"
    INVALID_ENVELOPE = "invalid_envelope"
    UNSUPPORTED_VERSION = "unsupported_version"
    CONTROL_CHARACTERS = "control_characters"


class MalformedSignal(ValueError):
    """The bytes are not a CloudEvents 1.0 event.

    Attributes:
        reason: a short, stable word for metrics and dead letters.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Extensions(dict[str, Any]):
    """CloudEvents extension attributes by name. A class of its own so that no wire value can pose as one."""


class Signal(
    msgspec.Struct,
    Generic[D],
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,  # holds no cycles; the collector need not look at a million of them
    tag_field="specversion",
    tag=SPEC_VERSION,
):
    """One event, immutable by convention. `subject` names the entity it is about and orders it with its peers."""

    id: NonEmpty
    source: NonEmpty
    type: NonEmpty
    subject: NonEmpty | None = None
    time: Timestamp | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    deadline: Timestamp | None = None
    data: D = None  # type: ignore[assignment]  # a signal without data has None; a model asked for is never None
    extensions: Extensions | None = None

    @property
    def key(self) -> str:
        """The Kafka key: signals of one entity share it, so they stay in order."""
        return self.subject or self.source


class _NoVersion(msgspec.Struct, tag_field="specversion", tag=""):
    """Never made. A decoder insists on the tag only if it has to choose, and `specversion` is required."""

    never: bool


_KNOWN = frozenset(Signal.__struct_fields__) - {"extensions"}
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_strict: Callable[[bytes], Signal[Any]] = msgspec.json.Decoder(Signal[Any] | _NoVersion).decode
_encode_struct = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def new_signal(
    type: str,
    data: Any = None,
    *,
    source: str,
    subject: str | None = None,
    id: str | None = None,
    time: datetime | None = None,
    **attributes: Any,
) -> Signal[Any]:
    """Make a signal that begins a conversation: a fresh random id and the present time unless they are given."""
    return Signal(
        id=id or uuid.uuid4().hex,
        source=source,
        type=type,
        subject=subject,
        time=time or datetime.now(UTC),
        data=data,
        **attributes,
    )


def decode(value: bytes | None, headers: Headers | None = None) -> Signal[Any]:
    """Read one Kafka record.

    A value that is a whole CloudEvents object is structured mode. Otherwise `ce_*` headers, if there are any, make
    it binary mode with the value as `data`.

    Raises:
        MalformedSignal: the record is neither; `reason` says why.
    """
    value = value or b""
    try:
        signal = _decode_strict(value)
    except _UNREADABLE as error:
        return _decode_slowly(value, {name.lower(): raw for name, raw in headers or ()}, error)
    if len(value) > _SHALLOW_BYTES:
        _refuse_deep(signal.data, value)
    # JSON escapes the common control characters, so a plain ASCII value without escapes cannot hold one.
    if b"\\" in value or b"\x7f" in value or not value.isascii():
        _refuse_control_characters(signal)
    return signal


def decode_batch(values: Sequence[bytes]) -> list[Signal[Any]] | None:
    """Read many structured signals at once, with the checks that nearly never fail made once for all of them.

    None means that at least one of them is not simply a structured signal, and each must be read by itself.
    """
    try:
        signals = list(map(_decode_strict, values))
        if max(map(len, values), default=0) > _SHALLOW_BYTES:
            for signal, value in zip(signals, values, strict=True):
                _refuse_deep(signal.data, value)
        together = b"".join(values)
        if b"\\" in together or b"\x7f" in together or not together.isascii():
            for signal in signals:
                _refuse_control_characters(signal)
    except (*_UNREADABLE, MalformedSignal):
        return None
    return signals


def encode(signal: Signal[Any]) -> bytes:
    """Write a signal in structured mode. `data` may be JSON values, `bytes`, a msgspec or a pydantic object."""
    data = signal.data
    if signal.extensions is not None or isinstance(data, bytes):
        return _encode_struct(to_dict(signal))
    if hasattr(data, "model_dump_json"):
        signal = msgspec.structs.replace(signal, data=msgspec.Raw(data.model_dump_json().encode()))
    return _encode_struct(signal)


def to_dict(signal: Signal[Any]) -> dict[str, Any]:
    """The CloudEvents JSON object, as plain values."""
    data = signal.data
    body: dict[str, Any] = {"specversion": SPEC_VERSION}
    for name in Signal.__struct_fields__:
        value = getattr(signal, name)
        if value is not None and name not in ("data", "extensions"):
            body[name] = value
    body |= signal.extensions or {}
    if isinstance(data, bytes):
        body["data_base64"] = base64.b64encode(data).decode()
    elif data is not None:
        body["data"] = data.model_dump(mode="json") if hasattr(data, "model_dump") else data
    return msgspec.to_builtins(body)  # type: ignore[no-any-return]


def _decode_slowly(value: bytes, headers: Mapping[str, bytes | str | None], error: Exception) -> Signal[Any]:
    """What the strict decoder refused: extensions, binary payloads, binary mode, or an error worth explaining."""
    content_type = _header(headers, "content-type")
    if f"{HEADER_PREFIX}specversion" in headers and not (content_type or "").startswith("application/cloudevents"):
        return _from_attributes(_header_attributes(headers, content_type), _binary_data(value, content_type), value)
    if not value.strip():
        raise MalformedSignal(Reason.EMPTY_VALUE, "the record has no value and no `ce_` headers") from None
    if not isinstance(error, msgspec.ValidationError):
        raise _unreadable(error) from None
    # The strict decoder stops at the first wrong attribute, so what follows may still not be JSON.
    body = _parsed(value)
    if not isinstance(body, dict):
        kind = type(body).__name__
        raise MalformedSignal(Reason.INVALID_ENVELOPE, f"a signal is a JSON object, this is a {kind}") from None
    data = body.pop("data", None)
    if (encoded := body.pop("data_base64", None)) is not None:
        if data is not None:
            raise MalformedSignal(Reason.INVALID_ENVELOPE, "there is both `data` and `data_base64`") from None
        data = _from_base64(encoded)
    return _from_attributes(body, data, value)


def _header_attributes(headers: Mapping[str, bytes | str | None], content_type: str | None) -> dict[str, Any]:
    """The attributes of binary mode. A header without a value is an attribute that is not there."""
    attributes: dict[str, Any] = {
        name.removeprefix(HEADER_PREFIX): text
        for name in headers
        if name.startswith(HEADER_PREFIX) and (text := _header(headers, name)) is not None
    }
    if "data" in attributes:
        raise MalformedSignal(Reason.INVALID_ENVELOPE, "`data` is the record's value and no header")
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    return attributes


def _binary_data(value: bytes, content_type: str | None) -> Any:
    """The data of binary mode: JSON values, text for `text/*`, else bytes. An empty value is no data."""
    if not value:
        return None
    if content_type is None or _JSON_TYPE.fullmatch(content_type):
        return _parsed(value)
    if content_type.lower().startswith("text/"):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _from_attributes(attributes: dict[str, Any], data: Any, value: bytes) -> Signal[Any]:
    version = attributes.pop("specversion", None)
    if version is None:
        raise MalformedSignal(Reason.INVALID_ENVELOPE, "the attribute `specversion` is missing")
    if version != SPEC_VERSION and version not in _LENIENT_VERSIONS:
        msg = f"specversion is {version!r:.80}; this reads {SPEC_VERSION!r}"
        raise MalformedSignal(Reason.UNSUPPORTED_VERSION if isinstance(version, str) else Reason.INVALID_ENVELOPE, msg)
    extensions = {name: attributes.pop(name) for name in list(attributes) if name not in _KNOWN}
    for name, extension in extensions.items():
        _check_extension(name, extension)
    try:
        signal = msgspec.convert(attributes, Signal[Any])
    except msgspec.ValidationError as error:
        raise MalformedSignal(Reason.INVALID_ENVELOPE, str(error)) from None
    signal.data = data
    signal.extensions = Extensions(extensions) if extensions else None
    _refuse_deep(data, value)
    _refuse_control_characters(signal)
    return signal


def _check_extension(name: str, value: Any) -> None:
    if not _EXTENSION_NAME.fullmatch(name):
        msg = f"{name[:80]!r} is not an attribute name: CloudEvents allows lower-case letters and digits"
        raise MalformedSignal(Reason.INVALID_ENVELOPE, msg)
    if not isinstance(value, str | int | bool) and value is not None:
        msg = f"extension {name!r} is a {type(value).__name__}; CloudEvents allows strings, integers, booleans"
        raise MalformedSignal(Reason.INVALID_ENVELOPE, msg)
    if isinstance(value, str) and _CONTROL_CHARACTERS.search(value):
        raise MalformedSignal(Reason.CONTROL_CHARACTERS, f"the attribute `{name}` holds control characters")


def _refuse_control_characters(signal: Signal[Any]) -> None:
    # One quick look at all of them settles nearly every signal; `isprintable` is stricter than the search below.
    if (
        f"{signal.id}{signal.source}{signal.type}{signal.subject}{signal.datacontenttype}{signal.dataschema}"
        f"{signal.correlationid}{signal.causationid}{signal.traceparent}"
    ).isprintable():
        return
    for name in _TEXT_ATTRIBUTES:
        if _CONTROL_CHARACTERS.search(getattr(signal, name) or ""):
            raise MalformedSignal(Reason.CONTROL_CHARACTERS, f"the attribute `{name}` holds control characters")


def _refuse_deep(data: Any, value: bytes) -> None:
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise MalformedSignal(Reason.TOO_DEEP, f"`data` nests deeper than {MAX_DEPTH} levels")


def _header(headers: Mapping[str, bytes | str | None], name: str) -> str | None:
    raw = headers.get(name)
    try:
        return raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise MalformedSignal(Reason.INVALID_UTF8, f"the header {name[:80]!r} is not UTF-8") from None


def _parsed(value: bytes) -> Any:
    try:
        return _decode_json(value)
    except _UNREADABLE as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> MalformedSignal:
    if isinstance(error, RecursionError):
        return MalformedSignal(Reason.TOO_DEEP, "the JSON nests deeper than a decoder follows")
    if isinstance(error, UnicodeDecodeError):
        return MalformedSignal(Reason.INVALID_UTF8, f"the value is not UTF-8: {error.reason}")
    return MalformedSignal(Reason.INVALID_JSON, str(error))


def _from_base64(encoded: object) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)  # type: ignore[arg-type]  # a wrong type is caught below
    except (TypeError, ValueError) as error:
        raise MalformedSignal(Reason.INVALID_ENVELOPE, f"`data_base64` is not base64: {error}") from None
