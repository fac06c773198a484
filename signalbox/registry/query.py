"""Which agents are meant: a query out of JSON, or out of a short text (`where.py`).

    {"all": [{"field": "capability", "value": "task_processing"}, {"field": "metadata.load", "op": "lt", "value": 0.5}]}

Both come from outside, so their size and depth are bounded before anything looks into them. What the parts mean is in
`terms.py`, and who is asked in `view.py`.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from signalbox.registry.terms import MAX_DEPTH, MAX_PARTS, AllOf, InvalidQuery, Lookup, Part, T, Test, Tree
from signalbox.registry.where import parse_where

#: The longest query as people write it, in characters, and the longest as JSON, which says the same in more.
MAX_CHARACTERS, MAX_JSON_CHARACTERS = 4_096, 16_384
_EXAMPLE = 'in JSON: {"all": [{"field": "node", "op": "ne", "value": "a"}, {"not": ...}, {"any": [...]}]}'
_TREE: TypeAdapter[Tree] = TypeAdapter(Part)


@dataclass(frozen=True)
class Query:
    """A tree of comparisons that is within the limits."""

    root: Tree

    @classmethod
    def parse(cls, text: str) -> "Query":
        """Read a query as people write it (`signalbox.registry.where`), or as JSON if it begins with a brace.

        Raises:
            InvalidQuery: it is too long or too deep, or makes no sense; the message says where.
        """
        is_json = text.lstrip().startswith("{")
        if len(text) > (limit := MAX_JSON_CHARACTERS if is_json else MAX_CHARACTERS):
            msg = f"the query has {len(text)} characters; at most {limit} are read"
            raise InvalidQuery(msg, hint="ask for less at once")
        if not is_json:
            return cls.of(parse_where(text))
        try:
            return cls.of(msgspec.json.decode(text))
        except (msgspec.DecodeError, RecursionError) as error:
            msg = f"the query is not JSON: {error}"
            raise InvalidQuery(msg, hint="a query that begins with a brace is JSON") from None

    @classmethod
    def of(cls, value: Any) -> "Query":
        """Make a query of plain JSON values.

        Raises:
            InvalidQuery: as `parse`.
        """
        _refuse_large(value)
        try:
            return cls(_TREE.validate_python(value))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(word for part in first["loc"] if not (word := str(part)).startswith("<"))
            problem = first["msg"].removeprefix("Value error, ")
            msg = f"the query is wrong{place and f' at {place}'}: {problem}"
            raise InvalidQuery(msg, hint=_EXAMPLE) from None

    def __and__(self, other: "Query") -> "Query":
        """What both mean."""
        return Query(AllOf(all=(self.root, other.root)))

    def plain(self) -> dict[str, Any]:
        """The query as plain JSON values, which `of` reads."""
        return self.root.model_dump(mode="json", by_alias=True, exclude_none=True)

    def as_json(self) -> str:
        """The query as JSON text, which `parse` reads."""
        return msgspec.json.encode(self.plain()).decode()

    @cached_property
    def holds(self) -> Test:
        """Whether an agent with these facts and this status is meant."""
        return self.root.test()

    @cached_property
    def residue(self) -> Test | None:
        """What is left to ask about `candidates`; None if all of them are meant."""
        return self.root.residue()

    def candidates(self, lookup: Lookup[T]) -> AbstractSet[T] | None:
        """All that can be meant, out of an index; None if the index does not help."""
        return self.root.candidates(lookup)


#: Means every agent.
EVERY_AGENT = Query(AllOf(all=()))


def _refuse_large(value: Any) -> None:
    """Look at a query of unknown size level by level, before anything that recurses does."""
    level: list[Any] = [value]
    parts = 0
    for _ in range(MAX_DEPTH):
        parts += len(level)
        level = [part for one in level if isinstance(one, dict) for part in _parts_of(one)]
        if parts + len(level) > MAX_PARTS:
            msg = f"the query has more than {MAX_PARTS} parts"
            raise InvalidQuery(msg, hint="ask for less at once")
        if not level:
            return
    msg = f"the query nests deeper than {MAX_DEPTH} levels"
    raise InvalidQuery(msg, hint="all and any take any number of parts side by side")


def _parts_of(value: dict[str, Any]) -> list[Any]:
    inner = [part for key in ("all", "any") if isinstance(held := value.get(key), list) for part in held]
    return [*inner, value["not"]] if "not" in value else inner
