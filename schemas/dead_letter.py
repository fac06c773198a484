"""A record that could not be handled, kept with its reason, its origin and its bytes.

It travels as the `data` of a signal of type `signal.dead_letter` on the topic `dead-letters`. What is kept of the
record is bounded; when something had to be cut, `truncated` says so and `origin` tells where the whole record lies.
The sha256 is of the whole value, cut or not.
"""

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime

from pydantic import Field, NonNegativeInt

from schemas.payloads.base import Copied, Message, Payload, Timestamp, Word

DEAD_LETTER_TYPE = "signal.dead_letter"


class Origin(Payload):
    """Where the record was read from."""

    topic: str = Field(description="The broker's name of the topic, prefix included.")
    partition: NonNegativeInt = Field(description="Partition of the topic.")
    offset: NonNegativeInt = Field(description="Offset in the partition.")
    timestamp: Timestamp | None = Field(None, description="The record's own time, if the broker gave one.")


class DeadLetter(Payload):
    """A record set aside, and why. Made by `dead_letter_data`, turned back by the `original_*` functions."""

    reason: Word = Field(description="A stable word, such as `invalid_json` or `handler_failed`.")
    message: Message = Field(description="What is wrong, for people; cut to 2,000 characters.")
    origin: Origin = Field(description="Where the record was read from.")
    key_base64: str | None = Field(None, description="The record's key in base64; null if it had none.")
    value_base64: str | None = Field(None, description="The record's value in base64; null if it had none.")
    headers: tuple[tuple[str, str | None], ...] = Field(
        (), description="The record's headers in order, each a name and a value in base64 or null."
    )
    size_bytes: NonNegativeInt = Field(description="Size of the whole value, in bytes; 0 if it had none.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole value in hex; null if it had none."
    )
    truncated: bool = Field(False, description="Whether key, value or headers were cut; then replay from the origin.")
    signal_id: Copied | None = Field(None, description="Id of the signal, if it could be read.")
    signal_type: Copied | None = Field(None, description="Type of the signal, if it could be read.")
    agent_id: Copied | None = Field(None, description="The agent that could not handle it, if it got that far.")


class NotWhole(ValueError):
    """The original cannot be restored from the dead letter alone."""


def dead_letter_data(
    *,
    reason: str,
    message: str,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | str | None]] = (),
    limit_bytes: int,
    timestamp: datetime | None = None,
    signal_id: str | None = None,
    signal_type: str | None = None,
    agent_id: str | None = None,
) -> DeadLetter:
    """Describe one record as a dead letter.

    Key, headers and value together keep at most `limit_bytes` bytes, in this order, because a value without its key
    could not be placed again. Base64 then makes them a third larger. A `timestamp` needs a zone.
    """
    budget = _Budget(limit_bytes)
    kept_key = budget.take(key)
    kept_headers = budget.take_headers(headers)
    kept_value = budget.take(value)
    return DeadLetter(
        reason=reason,
        message=message,
        origin=Origin(topic=topic, partition=partition, offset=offset, timestamp=timestamp),
        key_base64=_to_base64(kept_key),
        value_base64=_to_base64(kept_value),
        headers=kept_headers,
        size_bytes=len(value or b""),
        sha256=None if value is None else hashlib.sha256(value).hexdigest(),
        truncated=budget.exceeded,
        signal_id=signal_id,
        signal_type=signal_type,
        agent_id=agent_id,
    )


def original_bytes(record: DeadLetter) -> bytes | None:
    """The value as it was; None if the record had none.

    Raises:
        NotWhole: it was cut, or what is kept is not what was hashed.
    """
    _refuse_truncated(record)
    value = _from_base64(record.value_base64)
    if value is not None and hashlib.sha256(value).hexdigest() != record.sha256:
        msg = f"the value kept of {_place(record)} does not match its SHA-256"
        raise NotWhole(msg)
    return value


def original_key(record: DeadLetter) -> bytes | None:
    """The key as it was; None if the record had none.

    Raises:
        NotWhole: the record was cut, or the key is not base64.
    """
    _refuse_truncated(record)
    return _from_base64(record.key_base64)


def original_headers(record: DeadLetter) -> tuple[tuple[str, bytes | None], ...]:
    """The headers as they were, in order.

    Raises:
        NotWhole: the record was cut, or a header is not base64.
    """
    _refuse_truncated(record)
    return tuple((name, _from_base64(value)) for name, value in record.headers)


class _Budget:
    """Bytes that may still be kept."""

    def __init__(self, limit: int) -> None:
        self.left = max(0, limit)
        self.exceeded = False

    def take(self, value: bytes | None) -> bytes | None:
        """As much of the value's beginning as fits."""
        if value is None:
            return None
        kept = value[: self.left]
        self.left -= len(kept)
        self.exceeded = self.exceeded or len(kept) < len(value)
        return kept

    def take_headers(self, headers: Iterable[tuple[str, bytes | str | None]]) -> tuple[tuple[str, str | None], ...]:
        """The headers up to the first that does not fit whole."""
        kept = []
        for name, value in headers:
            raw = value.encode("utf-8", "replace") if isinstance(value, str) else value
            size = len(name.encode("utf-8", "replace")) + len(raw or b"")
            if size > self.left:
                self.exceeded = True
                break
            self.left -= size
            kept.append((name, _to_base64(raw)))
        return tuple(kept)


def _refuse_truncated(record: DeadLetter) -> None:
    if record.truncated:
        msg = f"the dead letter keeps only a part of the record at {_place(record)}; read the record there"
        raise NotWhole(msg)


def _place(record: DeadLetter) -> str:
    return f"{record.origin.topic}[{record.origin.partition}]@{record.origin.offset}"


def _to_base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _from_base64(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except ValueError as error:
        msg = f"the dead letter holds something that is not base64: {error}"
        raise NotWhole(msg) from None
