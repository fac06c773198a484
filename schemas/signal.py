"""The signal envelope: a CloudEvents 1.0 event, read in structured or binary mode, written in structured mode.

A signal is decoded in one pass, `data` included, because nearly every signal that is routed is also looked into.
Attributes that CloudEvents calls extensions and that are not named here survive a round trip in `extensions`.
Not checked here: whether anyone handles the type (`signalbox.routing`), or what `data` holds (`schemas.catalog`).
"""

import base64
import binascii
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec

SPEC_VERSION = "1.0"
#: Versions read besides our own: the seed's platform writes its library version into this attribute.
_LENIENT_VERSIONS = ("1.0.1", "1.0.2")
_EXTENSION_NAME = re.compile(r"[a-z0-9]{1,64}")
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")
#: A header name prefix of the CloudEvents Kafka binding, version 1.0.2, section 3.2.3.
HEADER_PREFIX = "ce_"

Headers = Iterable[tuple[str, bytes | str | None]]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
D = TypeVar("D")
"""What `Signal.data` holds: plain JSON values, or the payload model a handler asked for."""


class MalformedSignal(ValueError):
    """The bytes are not a CloudEvents 1.0 event.

    Attributes:
        reason: a short, stable word for metrics and dead letters, such as `invalid_json`.
    """

    def __init__(self, reason: str, message: str) -> None:
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
    data: D | None = None
    extensions: Extensions | None = None

    @property
    def key(self) -> str:
        """The Kafka key: signals of one entity share it, so they stay in order."""
        return self.subject or self.source


_KNOWN = frozenset(Signal.__struct_fields__) - {"extensions"}
_decode_strict = msgspec.json.Decoder(Signal[Any]).decode
_encode_struct = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def new_signal(  # noqa: PLR0913 - the attributes of the envelope, all by keyword
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
    try:
        signal = _decode_strict(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _decode_slowly(value, dict(_text_headers(headers)), error)
    if b'"specversion"' not in value:  # type: ignore[operator]  # an empty value did not decode
        raise MalformedSignal("invalid_envelope", "the attribute `specversion` is missing; CloudEvents requires it")
    # JSON escapes the common control characters, so a plain ASCII value without escapes cannot hold one.
    if b"\\" in value or b"\x7f" in value or not value.isascii():  # type: ignore[operator,union-attr]
        _refuse_control_characters(signal)
    return signal


def encode(signal: Signal[Any]) -> bytes:
    """Write a signal in structured mode. `data` may be JSON values, `bytes`, a msgspec or a pydantic object."""
    if signal.extensions is None and not isinstance(signal.data, bytes) and not hasattr(signal.data, "model_dump"):
        return _encode_struct(signal)
    return _encode_struct(to_dict(signal))


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


def _decode_slowly(value: bytes | None, headers: dict[str, str], error: Exception) -> Signal[Any]:
    """What the strict decoder refused: extensions, binary payloads, binary mode, or an error worth explaining."""
    if f"{HEADER_PREFIX}specversion" in headers:
        return _from_attributes(*_binary_mode(value, headers))
    if value is None or not value.strip():
        raise MalformedSignal("empty_value", "the record has no value and no `ce_` headers") from None
    if isinstance(error, RecursionError):
        raise MalformedSignal("too_deep", "the JSON nests deeper than a decoder follows") from None
    if isinstance(error, UnicodeDecodeError):
        raise MalformedSignal("invalid_utf8", f"the value is not UTF-8: {error.reason}") from None
    if not isinstance(error, msgspec.ValidationError):
        raise MalformedSignal("invalid_json", str(error)) from None
    body = _decode_json(value)
    if not isinstance(body, dict):
        kind = type(body).__name__
        raise MalformedSignal("invalid_envelope", f"a signal is a JSON object, this is a {kind}") from None
    data = body.pop("data", None)
    if (encoded := body.pop("data_base64", None)) is not None:
        data = _from_base64(encoded)
    return _from_attributes(body, data)


def _binary_mode(value: bytes | None, headers: dict[str, str]) -> tuple[dict[str, Any], Any]:
    attributes: dict[str, Any] = {
        name.removeprefix(HEADER_PREFIX): text for name, text in headers.items() if name.startswith(HEADER_PREFIX)
    }
    content_type = headers.get("content-type")
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    if value is None or (content_type is not None and "json" not in content_type):
        return attributes, value
    try:
        return attributes, _decode_json(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedSignal("invalid_json", f"the value is not the JSON its headers promise: {error}") from None


def _from_attributes(attributes: dict[str, Any], data: Any) -> Signal[Any]:
    version = attributes.pop("specversion", None)
    if version != SPEC_VERSION and version not in _LENIENT_VERSIONS:
        msg = f"specversion is {version!r}; this reads {SPEC_VERSION!r}"
        raise MalformedSignal("unsupported_version" if isinstance(version, str) else "invalid_envelope", msg)
    known = {name: value for name, value in attributes.items() if name in _KNOWN}
    extensions = {name: value for name, value in attributes.items() if name not in _KNOWN}
    for name, value in extensions.items():
        if not _EXTENSION_NAME.fullmatch(name):
            msg = f"{name[:80]!r} is not an attribute name: CloudEvents allows lower-case letters and digits"
            raise MalformedSignal("invalid_envelope", msg)
        if not isinstance(value, str | int | bool) and value is not None:
            msg = f"extension {name!r} is a {type(value).__name__}; CloudEvents allows strings, integers, booleans"
            raise MalformedSignal("invalid_envelope", msg)
    try:
        signal = msgspec.convert(known, Signal[Any])
    except msgspec.ValidationError as error:
        raise MalformedSignal("invalid_envelope", str(error)) from None
    signal.data = data
    signal.extensions = Extensions(extensions) if extensions else None
    _refuse_control_characters(signal)
    return signal


def _refuse_control_characters(signal: Signal[Any]) -> None:
    for name in ("id", "source", "type", "subject"):
        if _CONTROL_CHARACTERS.search(getattr(signal, name) or ""):
            raise MalformedSignal("control_characters", f"the attribute `{name}` holds control characters")


def _text_headers(headers: Headers | None) -> Iterable[tuple[str, str]]:
    for name, value in headers or ():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        yield name.lower(), text or ""


def _from_base64(encoded: object) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)  # type: ignore[arg-type]  # a wrong type is caught below
    except (TypeError, ValueError, binascii.Error) as error:
        raise MalformedSignal("invalid_envelope", f"`data_base64` is not base64: {error}") from None
