"""What `process_large_dataset` can do with rows, one row at a time, so that the size of a chunk changes no result.

Rows are JSON objects. Each kind is the model of its own parameters and makes its work, which keeps what it has to know
between rows: as much per group for `aggregate`, 16 bytes per distinct key for `dedupe`, and otherwise nothing.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeAlias

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from signalbox.actions.datasets import BadRow
from signalbox.actions.expressions import Expression
from signalbox.actions.retry import ActionError

MAX_GROUPS = 100_000
"""Groups of one aggregation."""
MAX_GROUP_BYTES = 64_000_000
"""What the values that make the groups may take together, as JSON."""
MAX_DISTINCT = 1_000_000
"""Distinct keys of one deduplication; they take about 100 MB."""
MAX_MAGNITUDE = 1e150
"""A number beyond this is refused: its square would leave the range of floating point."""

Row: TypeAlias = dict[str, Any]
Measure: TypeAlias = Literal["sum", "min", "max", "mean"]


class Work(Protocol):
    """One run over rows. All of them pass `prepare`, if the kind has two passes, and then `take`."""

    def prepare(self, row: Row) -> None:
        """Look at a row in the first of two passes.

        Raises:
            BadRow: it cannot be used.
        """
        ...

    def take(self, row: Row) -> Row | None:
        """The row that comes of this one, if there is one yet; raises as `prepare`."""
        ...

    def rest(self) -> Iterator[Row]:
        """The rows that come when all have been taken."""
        ...


class _OnePass:
    def prepare(self, row: Row) -> None:
        """Nothing has to be known before."""

    def rest(self) -> Iterator[Row]:
        return iter(())


class DatasetFile(BaseModel):
    """A file below one of `actions.datasets.roots`: `.csv`, `.jsonl`, or `.json` with an array."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str = Field(description="Its path, relative to the root.")


class _Processing(BaseModel):
    """What all kinds of processing take."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    passes: ClassVar[int] = 1
    dataset: list[Any] | DatasetFile = Field(description="Rows, which are JSON objects, or the file that holds them.")
    chunk_size: int = Field(1000, ge=1, le=100_000, description="Rows worked at once, to begin with.")
    output: str | None = Field(
        None, description="A .jsonl file below the first root that takes the rows that come out."
    )

    @model_validator(mode="after")
    def _output_is_another_file(self) -> Self:
        source = self.dataset.file if isinstance(self.dataset, DatasetFile) else None
        if source and self.output and PurePosixPath(source) == PurePosixPath(self.output):
            msg = "the output would take the place of the dataset, and a repeat would process it again"
            raise ValueError(msg)
        return self


class Aggregate(_Processing):
    """Count rows by group, and measure numeric fields."""

    processing_type: Literal["aggregate"]
    group_by: tuple[str, ...] = Field((), description="Fields whose values make a group; none: all rows are one.")
    measures: dict[str, tuple[Measure, ...]] = Field(default={}, description="What to tell of which field.")

    def work(self) -> Work:
        return _Aggregation(self)


class Filter(_Processing):
    """Keep the rows for which an expression of `transform` is true."""

    processing_type: Literal["filter"]
    expression: str = Field(description="JMESPath; it sees the row.")

    def work(self) -> Work:
        return _Filtering(Expression(self.expression))


class Normalise(_Processing):
    """Bring numeric fields to a common scale."""

    passes: ClassVar[int] = 2
    processing_type: Literal["normalise"]
    fields: tuple[str, ...] = Field(min_length=1, description="Numeric fields that every row has.")
    method: Literal["min_max", "z_score"] = Field(
        "min_max",
        description="To 0 to 1, or to mean 0 and population standard deviation 1. A constant field becomes 0.",
    )

    def work(self) -> Work:
        return _Normalisation(self)


class Dedupe(_Processing):
    """Keep the first row of each key."""

    processing_type: Literal["dedupe"]
    keys: tuple[str, ...] = Field((), description="Fields that make the key; none: the whole row.")

    def work(self) -> Work:
        return _Deduplication(self.keys)


Processing: TypeAlias = Annotated[Aggregate | Filter | Normalise | Dedupe, Field(discriminator="processing_type")]


@dataclass(slots=True)
class _Statistics:
    """Of a series of numbers, told one by one: exact extremes, and Welford's mean and variance, which do not drift."""

    count: int = 0
    sum: float = 0
    min: float = math.inf
    max: float = -math.inf
    mean: float = 0.0
    _squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.sum += value
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def deviation(self) -> float:
        """The population standard deviation."""
        return math.sqrt(self._squares / self.count)


@dataclass(slots=True)
class _Group:
    values: Row
    statistics: dict[str, _Statistics]
    count: int = 0


class _Aggregation(_OnePass):
    def __init__(self, params: Aggregate) -> None:
        self._params = params
        self._groups: dict[bytes, _Group] = {}
        self._bytes = 0

    def take(self, row: Row) -> None:
        values = {name: _number(row[name], name) for name in self._params.measures if row.get(name) is not None}
        group = self._group(row)
        group.count += 1
        for name, value in values.items():
            group.statistics[name].add(value)

    def rest(self) -> Iterator[Row]:
        for group in self._groups.values():
            told = {name: self._measured(name, found) for name, found in group.statistics.items()}
            yield {"group": group.values, "count": group.count, "measures": told}

    def _group(self, row: Row) -> _Group:
        values = {name: row.get(name) for name in self._params.group_by}
        key = _encoded(list(values.values()))
        if key not in self._groups:
            self._bytes += len(key)
            if len(self._groups) == MAX_GROUPS or self._bytes > MAX_GROUP_BYTES:
                msg = f"there are more than {MAX_GROUPS} groups, or their values take more than {MAX_GROUP_BYTES} bytes"
                raise ActionError(msg, type="too_many_groups")
            self._groups[key] = _Group(values, {name: _Statistics() for name in self._params.measures})
        return self._groups[key]

    def _measured(self, name: str, found: _Statistics) -> Row:
        """A field's measures, null if no row of the group has the field."""
        return {measure: getattr(found, measure) if found.count else None for measure in self._params.measures[name]}


class _Filtering(_OnePass):
    def __init__(self, expression: Expression) -> None:
        self._expression = expression

    def take(self, row: Row) -> Row | None:
        try:
            return row if self._expression.holds(row) else None
        except ActionError as error:
            raise BadRow(str(error)) from None


class _Normalisation:
    def __init__(self, params: Normalise) -> None:
        self._params = params
        self._statistics = {name: _Statistics() for name in params.fields}
        self._scales: dict[str, Callable[[float], float]] = {}

    def prepare(self, row: Row) -> None:
        # All of them before any is counted: a row is taken as a whole or not at all.
        for name, value in _numbers(row, self._params.fields).items():
            self._statistics[name].add(value)

    def take(self, row: Row) -> Row:
        values = _numbers(row, self._params.fields)
        self._scales = self._scales or {name: self._scale(found) for name, found in self._statistics.items()}
        return {**row, **{name: self._scales[name](value) for name, value in values.items()}}

    def rest(self) -> Iterator[Row]:
        return iter(())

    def _scale(self, found: _Statistics) -> Callable[[float], float]:
        if self._params.method == "min_max":
            origin, unit = found.min, found.max - found.min
        else:
            origin, unit = found.mean, found.deviation
        return (lambda value: (value - origin) / unit) if unit else (lambda value: 0.0)


class _Deduplication(_OnePass):
    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._seen: set[bytes] = set()

    def take(self, row: Row) -> Row | None:
        key = [row.get(name) for name in self._keys] if self._keys else row
        digest = hashlib.blake2b(_encoded(key), digest_size=16).digest()
        if digest in self._seen:
            return None
        if len(self._seen) == MAX_DISTINCT:
            msg = f"there are more than {MAX_DISTINCT} distinct keys"
            raise ActionError(msg, type="too_many_keys")
        self._seen.add(digest)
        return row


def _encoded(value: Any) -> bytes:
    """The same bytes for the same JSON value, and for no other: 1 is not true, nor "1"."""
    return msgspec.json.encode(value, order="sorted")


def _numbers(row: Row, names: tuple[str, ...]) -> dict[str, float]:
    return {name: _number(row.get(name), name) for name in names}


def _number(value: Any, name: str) -> float:
    """A number, also from the text of a CSV cell."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            msg = f"{name} is a text that is no number"
            raise BadRow(msg) from None
    if not isinstance(value, int | float) or isinstance(value, bool):
        msg = f"{name} is {_kind(value)}, not a number"
        raise BadRow(msg)
    if not abs(value) <= MAX_MAGNITUDE:  # which NaN is not either
        msg = f"{name} is beyond what is computed with"
        raise BadRow(msg)
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    kinds: Mapping[type, str] = {bool: "a bool", list: "a list", dict: "an object"}
    return kinds.get(type(value), "of another kind")
