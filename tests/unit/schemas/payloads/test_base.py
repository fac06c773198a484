"""The field types that payloads share."""

import pytest
from pydantic import ValidationError

from schemas.payloads.base import MESSAGE_CHARACTERS, ErrorInfo


def test_long_messages_are_cut_and_not_refused() -> None:
    """An error of any length can be reported; what was cut off shows."""
    message = ErrorInfo(type="E", message="x" * (MESSAGE_CHARACTERS + 1)).message
    assert len(message) == MESSAGE_CHARACTERS
    assert message.endswith("x…")
    assert ErrorInfo(type="E", message="x" * MESSAGE_CHARACTERS).message == "x" * MESSAGE_CHARACTERS


def test_undecodable_text_becomes_sendable() -> None:
    """Lone surrogates, as in names of files, are replaced."""
    assert ErrorInfo(type="E", message="file \udce4.txt").message == "file ?.txt"


def test_messages_are_text() -> None:
    """Something that is not text is refused, and not turned into text."""
    with pytest.raises(ValidationError):
        ErrorInfo.model_validate({"type": "E", "message": 5})
