"""What all payloads share: how they are read and written, and the field types that recur.

Readers ignore fields they do not know, so a newer sender does not break an older reader. Text that only informs is
cut to a bound instead of refused, so that reporting an error never fails on the error's own length; identifiers that
come from an envelope are as long as the record allows.
"""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

#: Longest text that is kept of a message for people, in characters.
MESSAGE_CHARACTERS = 2_000
#: Longest piece that is kept of an identifier copied out of a signal that may itself be at fault, in characters.
COPIED_CHARACTERS = 500


def _fit(limit: int) -> BeforeValidator:
    def fit(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # A lone surrogate, which Python makes of undecodable file names, has no UTF-8 form and could not be sent.
        text = value if len(value) <= limit else value[: limit - 1] + "…"
        return text.encode("utf-8", "replace").decode()

    return BeforeValidator(fit)


Identifier = Annotated[str, Field(min_length=1)]
"""Names an agent, an alert or a signal. The record that carries it bounds its length."""
Name = Annotated[str, Field(min_length=1, max_length=256)]
"""A name or id that the sender chooses."""
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A stable lower-case word for metrics and scripts, such as `invalid_json`."""
Message = Annotated[str, _fit(MESSAGE_CHARACTERS)]
"""A sentence for people, cut to 2,000 characters."""
Copied = Annotated[str, _fit(COPIED_CHARACTERS)]
"""An attribute of a signal as it was sent, cut to 500 characters."""
Ratio = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, 0 to 1."""
Timestamp = AwareDatetime
"""RFC 3339 with a zone."""


class Payload(BaseModel):
    """Base of every payload: immutable, and lenient towards fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ErrorInfo(Payload):
    """An error that one party reports to another."""

    type: Name = Field(description="Class name of the error, such as `ValueError`.")
    message: Message = Field(description="What went wrong, for people; cut to 2,000 characters.")
    retryable: bool = Field(False, description="Whether the same attempt may succeed later.")
    details: Any = Field(
        None,
        exclude_if=lambda details: details is None,
        description="What else there is to know, as JSON values; left out if there is nothing.",
    )
