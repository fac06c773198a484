"""The payload model that a handler asks for, and what is said when a signal's data do not fit it."""

from typing import Any

from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from schemas.signal import Signal


class InvalidPayload(ValueError):
    """The data of a signal does not fit the model that a handler asks for."""


def typed(signal: Signal[Any], model: type[BaseModel]) -> Signal[Any]:
    """The signal with its data as this model.

    Raises:
        InvalidPayload: they do not fit; the message names every field.
    """
    try:
        return replace(signal, data=model.model_validate(signal.data))
    except ValidationError as error:
        problems = (
            f"{'.'.join(str(part) for part in item['loc']) or 'data'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise InvalidPayload("; ".join(problems)) from None
