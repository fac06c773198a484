"""References from the parameters of a step to the results of earlier ones: `{"$ref": "steps.NAME.result.FIELD.0"}`.

A reference stands in place of a whole value. It names a step and, if need be, the way into its result: fields of
objects, and positions in lists from 0. Nothing is computed.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_REF = "$ref"
_POSITION = re.compile(r"[0-9]{1,9}")
#: Deeper parameters, and more references in one step, are refused.
_MOST_DEPTH = 50
_MOST_REFERENCES = 100
_MOST_SEGMENTS = 50


class MissingReference(ValueError):
    """A result does not have what is referred to."""


def references(params: Any) -> Iterator[tuple[str, str]]:
    """The step that each reference names, and the reference as written.

    Raises:
        ValueError: something is not a reference, too deep, or there are too many.
    """
    for count, reference in enumerate(_found(params, 0), 1):
        if count > _MOST_REFERENCES:
            msg = f"there are more than {_MOST_REFERENCES} references"
            raise ValueError(msg)
        yield _parsed(reference)[0], reference


def resolved(params: Any, results: Mapping[str, Any]) -> Any:
    """The parameters with the parts of results that they refer to; `references` has accepted them.

    Raises:
        MissingReference: a step has no result, or its result lacks what is referred to.
    """
    if isinstance(params, list):
        return [resolved(one, results) for one in params]
    if not isinstance(params, dict):
        return params
    if _REF not in params:
        return {name: resolved(value, results) for name, value in params.items()}
    name, path = _parsed(params[_REF])
    if name not in results:
        msg = f"{params[_REF]!r}: there is no result of {name}"
        raise MissingReference(msg)
    value = results[name]
    for at, segment in enumerate(path):
        value = _part(value, segment, ".".join(("steps", name, "result", *path[:at])))
    return value


def _found(value: Any, depth: int) -> Iterator[Any]:
    if depth > _MOST_DEPTH:
        msg = f"the parameters are nested more than {_MOST_DEPTH} deep"
        raise ValueError(msg)
    if isinstance(value, list):
        for one in value:
            yield from _found(one, depth + 1)
    elif isinstance(value, dict):
        if _REF not in value:
            for one in value.values():
                yield from _found(one, depth + 1)
        elif len(value) == 1:
            yield value[_REF]
        else:
            others = ", ".join(sorted(value.keys() - {_REF}))
            msg = f"a reference stands alone, and beside {value[_REF]!r} there is {others}"
            raise ValueError(msg)


def _parsed(reference: Any) -> tuple[str, list[str]]:
    segments = reference.split(".") if isinstance(reference, str) else []
    if not 3 <= len(segments) <= _MOST_SEGMENTS or (segments[0], segments[2]) != ("steps", "result"):
        msg = f"{reference!r} is no reference: write steps.NAME.result, and after that a field or a position if need be"
        raise ValueError(msg)
    return segments[1], segments[3:]


def _part(value: Any, segment: str, place: str) -> Any:
    if isinstance(value, dict) and segment in value:
        return value[segment]
    if isinstance(value, list) and _POSITION.fullmatch(segment) and int(segment) < len(value):
        return value[int(segment)]
    kind = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "no object and no list"
    msg = f"there is no {segment!r} in {place}, which is {kind}"
    raise MissingReference(msg)
