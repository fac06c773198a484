"""The parts of a query about agents: comparisons, and `all`, `any` and `not` of them.

They are pydantic models, so JSON is read as it stands; each part turns itself into a function. A comparison holds or
does not, so `not`, `all` and `any` obey the rules of logic: `ne` is `not eq`, and so holds for agents that lack the
value. Comparisons are typed: the number 1, the text "1" and true are three values.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)

from signalbox.errors import UsageError

#: Levels of `all`, `any` and `not`.
MAX_DEPTH = 16
#: Comparisons and combinations in one query; each may be asked of every agent.
MAX_PARTS = 50

STATUSES = ("running", "paused", "stale")
KINDS = ("singleton", "pool", "keyed")
#: What is compared besides `metadata.<path>`, and the values it can have, if they are few.
FIELDS: Mapping[str, tuple[str, ...]] = {"capability": (), "type": (), "node": (), "status": STATUSES, "kind": KINDS}
#: The fields that `Query.candidates` looks up.
INDEXED = ("capability", "type", "node", "kind")
_METADATA = "metadata."

Op = Literal["eq", "ne", "gt", "ge", "lt", "le", "in", "exists"]
Value: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr
T = TypeVar("T")

#: Values come out of JSON, so they are of exactly these types, or of none that is compared.
_VALUE_KINDS: Mapping[type, str] = {bool: "bool", int: "number", float: "number", str: "text"}
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


class InvalidQuery(UsageError):
    """A query cannot be read. `position` is the character that is at fault, from 1, where there is one."""

    def __init__(self, message: str, *, hint: str | None = None, position: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.position = position


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a query looks at besides the status, which changes without a record."""

    type: str
    kind: str
    node: str
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, Any]


Test: TypeAlias = Callable[[Facts, str], bool]
"""Whether an agent with these facts and this status is meant."""
Lookup: TypeAlias = Callable[[str, str], AbstractSet[T]]
"""From an indexed field and a value to all that has it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Comparison(_Part):
    """One field, or one value of the metadata (`metadata.gpu.count`), against a value, or several for `in`."""

    field: Annotated[str, Field(max_length=256)]
    op: Op = "eq"
    value: Value | tuple[Value, ...] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "Comparison":
        if problem := self._problem():
            raise ValueError(problem)
        return self

    def _problem(self) -> str | None:
        if self.field not in FIELDS and not (self.path and all(self.path)):
            return f"there is no field {self.field!r}; there are {', '.join(FIELDS)} and metadata.<name>"
        if self.op == "exists":
            return None if self.path and self.value is None else "exists is for metadata, and takes no value"
        if self.value is None:
            return f"{self.op} takes a value; exists tells whether there is one"
        if (self.op == "in") != isinstance(self.value, tuple):
            return "in takes a list of values, and nothing else does"
        if self.op in _ORDER and (not self.path or isinstance(self.value, bool)):
            return f"{self.op} is for numbers and texts in metadata"
        return None if self.path else self._value_problem(FIELDS[self.field])

    def _value_problem(self, known: Sequence[str]) -> str | None:
        if not all(isinstance(value, str) for value in self._values):
            return f"{self.field} is a text"
        if known and not set(self._values) <= set(known):
            return f"{self.field} is one of {', '.join(known)}"
        return None

    @property
    def _values(self) -> tuple[Value | None, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to the value in the metadata; empty for another field."""
        return tuple(self.field.removeprefix(_METADATA).split(".")) if self.field.startswith(_METADATA) else ()

    def test(self) -> Test:
        """The comparison as a function."""
        wanted = self._values
        if self.op == "ne":
            equal = self.model_copy(update={"op": "eq"}).test()
            return lambda facts, status: not equal(facts, status)
        if self.path:
            return self._metadata_test(wanted)
        if self.field == "capability":
            some = frozenset(wanted)
            return lambda facts, status: not some.isdisjoint(facts.capabilities)
        if self.field == "status":
            return lambda facts, status: status in wanted
        name = self.field
        return lambda facts, status: getattr(facts, name) in wanted

    def _metadata_test(self, wanted: tuple[Value | None, ...]) -> Test:
        path = self.path
        if self.op == "exists":
            return lambda facts, status: _found(facts.metadata, path) is not None
        if self.op in ("eq", "in"):
            typed = {(_kind(value), value) for value in wanted}
            return lambda facts, status: _typed(_found(facts.metadata, path)) in typed
        bound, kind, compare = wanted[0], _kind(wanted[0]), _ORDER[self.op]

        def holds(facts: Facts, _status: str) -> bool:
            found = _found(facts.metadata, path)
            return _kind(found) == kind and compare(found, bound)

        return holds

    @property
    def _is_lookup(self) -> bool:
        return self.field in INDEXED and self.op in ("eq", "in")

    def residue(self) -> Test | None:
        """See `Query.residue`."""
        return None if self._is_lookup else self.test()

    def candidates(self, lookup: Lookup[T]) -> AbstractSet[T] | None:
        """See `Query.candidates`."""
        if not self._is_lookup:
            return None
        return _united([lookup(self.field, str(value)) for value in self._values])


class AllOf(_Part):
    """Holds if every part does; without parts, for every agent."""

    all: tuple["Part", ...]

    def test(self) -> Test:
        """The parts as one function."""
        return _every([part.test() for part in self.all])

    def residue(self) -> Test | None:
        """See `Query.residue`."""
        tests = [test for part in self.all if (test := part.residue()) is not None]
        return _every(tests) if tests else None

    def candidates(self, lookup: Lookup[T]) -> AbstractSet[T] | None:
        """See `Query.candidates`."""
        found = [some for part in self.all if (some := part.candidates(lookup)) is not None]
        return reduce(operator.and_, sorted(found, key=len)) if found else None


class AnyOf(_Part):
    """Holds if some part does."""

    any: tuple["Part", ...]

    def test(self) -> Test:
        """The parts as one function."""
        tests = [part.test() for part in self.any]
        return lambda facts, status: any(test(facts, status) for test in tests)

    def residue(self) -> Test | None:
        """See `Query.residue`."""
        return None if all(part.residue() is None for part in self.any) else self.test()

    def candidates(self, lookup: Lookup[T]) -> AbstractSet[T] | None:
        """See `Query.candidates`."""
        found = [part.candidates(lookup) for part in self.any]
        return None if None in found else _united([some for some in found if some is not None])


class Not(_Part):
    """Holds if its part does not."""

    not_: "Part" = Field(alias="not")

    def test(self) -> Test:
        """The opposite of the part's function."""
        test = self.not_.test()
        return lambda facts, status: not test(facts, status)

    def residue(self) -> Test | None:
        """See `Query.residue`."""
        return self.test()

    def candidates(self, lookup: Lookup[T]) -> AbstractSet[T] | None:
        """See `Query.candidates`."""
        return None


def _shape(value: Any) -> str:
    """Which of the four parts a JSON object is meant to be, or a part is."""
    if isinstance(value, _Part):
        return f"<{type(value).__name__}>"
    names = {"all": "<AllOf>", "any": "<AnyOf>", "not": "<Not>"}
    return next((tag for key, tag in names.items() if isinstance(value, dict) and key in value), "<Comparison>")


Part: TypeAlias = Annotated[
    Annotated[Comparison, Tag("<Comparison>")]
    | Annotated[AllOf, Tag("<AllOf>")]
    | Annotated[AnyOf, Tag("<AnyOf>")]
    | Annotated[Not, Tag("<Not>")],
    Discriminator(_shape),
]
Tree: TypeAlias = Comparison | AllOf | AnyOf | Not
for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()


def _every(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    # A loop, for it runs once for each candidate: a generator expression takes twice the time.
    def holds(facts: Facts, status: str) -> bool:
        for test in tests:  # noqa: SIM110
            if not test(facts, status):
                return False
        return True

    return holds


def _found(metadata: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value that a path leads to; None stands for missing as well as for null."""
    value: Any = metadata
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _kind(value: object) -> str:
    return _VALUE_KINDS.get(type(value), "other")


def _typed(value: object) -> tuple[str, object]:
    """A value with its kind, since 1 == 1.0 == True; of lists and objects, which equal nothing, the kind alone."""
    kind = _kind(value)
    return kind, value if kind != "other" else None


def _united(sets: list[AbstractSet[T]]) -> AbstractSet[T]:
    return reduce(operator.or_, sets) if sets else set()
