"""Conditions on a signal's data and on an agent's state, written as comparisons: `data("celsius") < 18`.

A condition is compiled when it is written and evaluated per signal. Comparisons are typed: a path that leads nowhere
or to null, and a value of another kind than the one it is compared with (a bool or a text with a number), raise
`ConditionError` instead of answering no, so that `~` cannot turn a mistake into a match. `&` and `|` stop as soon as
the left side decides, as `and` and `or` do: `data("x").exists() & (data("x") < 3)` never raises for a missing `x`.
Not done here: catching and counting the error, which is the caller's part (`signalbox.agents`).
"""

import itertools
import json
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NoReturn

from signalbox.errors import ConfigError, SignalboxError

MAX_MATCHED_LENGTH = 4096
"""Characters of a text that `matches` looks at. Texts come from outside, and some regular expressions take a time that
grows faster than the text."""

Predicate = Callable[[Any, Any], bool]
"""From data and state to the answer; between two values, whether they compare so."""
Find = Callable[[Any, Any], Any]
"""From data and state to the value at a path; None stands for missing as well as for null."""
_Shape = Literal["call", "comparison", "not", "and", "or"]

_ORDERED = (int, float, Decimal, str, bytes, datetime, date, time, timedelta)
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a bool"),
    ((int, float, Decimal), "a number"),
    (str, "a text"),
    (bytes, "bytes"),
    (Mapping, "an object"),
    ((set, frozenset), "a set"),
)
# Most values are of exactly these types, which is seen faster than what kind a value is of.
_EXACT_TYPES = {"a bool": (bool,), "a number": (float, int), "a text": (str,)}
_ORDERED_EXACT: dict[type, str] = {float: "a number", int: "a number", str: "a text"}
_PARENTHESES = "put parentheses around each comparison: (data('a') < 1) & (state('b') > 2)"


class ConditionError(SignalboxError):
    """The condition has no answer for this data and state. The message names kinds of values, never the values."""


class InvalidCondition(ConfigError):
    """The condition makes no sense as written, whatever the data and state may be."""


class Condition:
    """Something about data and state that holds or does not. Made by comparing operands; combine with `&`, `|`, `~`."""

    __slots__ = ("_shape", "_test", "_text")

    def __init__(self, test: Predicate, text: str, shape: _Shape) -> None:
        self._test = test
        self._text = text
        self._shape = shape

    def holds(self, data: object, state: object) -> bool:
        """Whether it holds.

        Args:
            data: what the signal carries: a JSON object as a dict, a payload model, or anything with attributes.
            state: the agent's state, or None where there is none.

        Raises:
            ConditionError: a path is missing or null, kinds differ, or reading or comparing a value raised.
        """
        try:
            return self._test(data, state)
        except ConditionError:
            raise
        except Exception as error:
            msg = f"{self._text}: reading or comparing a value raised {type(error).__name__}"
            raise ConditionError(msg, hint="see the cause for what the value objected to") from error

    def on_slice(self, field: str) -> "Condition":
        """The same condition, asked of the part of the state that lies in a field of it."""
        test = self._test
        return Condition(lambda data, state: test(data, getattr(state, field)), self._text, self._shape)

    def __and__(self, other: "Condition") -> "Condition":
        left, right = self._test, _condition(other)._test
        return Condition(
            lambda data, state: left(data, state) and right(data, state), self._joined("and", other), "and"
        )

    def __or__(self, other: "Condition") -> "Condition":
        left, right = self._test, _condition(other)._test
        return Condition(lambda data, state: left(data, state) or right(data, state), self._joined("or", other), "or")

    def __invert__(self) -> "Condition":
        test = self._test
        return Condition(lambda data, state: not test(data, state), f"~{self._within('not')}", "not")

    def __rand__(self, other: object) -> NoReturn:
        raise _not_a_condition(other)

    __ror__ = __rand__

    def __bool__(self) -> NoReturn:
        raise _no_truth_value(self)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<Condition {self._text}>"

    def _joined(self, shape: Literal["and", "or"], other: "Condition") -> str:
        return f" {'&' if shape == 'and' else '|'} ".join((self._within(shape), other._within(shape)))

    def _within(self, outer: _Shape) -> str:
        return self._text if self._shape in ("call", "not", outer) else f"({self._text})"


class Operand:
    """A value that is looked up per signal: a path into the data or the state. Made by `data` and `state`."""

    __slots__ = ("_find", "_text")

    def __init__(self, find: Find, text: str) -> None:
        self._find = find
        self._text = text

    def __lt__(self, other: object) -> Condition:
        return _comparison(self, "<", operator.lt, other)

    def __le__(self, other: object) -> Condition:
        return _comparison(self, "<=", operator.le, other)

    def __gt__(self, other: object) -> Condition:
        return _comparison(self, ">", operator.gt, other)

    def __ge__(self, other: object) -> Condition:
        return _comparison(self, ">=", operator.ge, other)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]  # a comparison is the point of an operand
        return _comparison(self, "==", operator.eq, other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return _comparison(self, "!=", operator.ne, other)

    __hash__ = None  # type: ignore[assignment]  # equality does not answer, so a dictionary could not use it

    def exists(self) -> Condition:
        """Whether the path leads to a value other than null."""
        find = self._find
        return Condition(lambda data, state: find(data, state) is not None, f"{self._text}.exists()", "call")

    def is_in(self, values: "Collection[Any] | Operand") -> Condition:
        """Whether it equals one of the values, all of one kind; or an element of the list or set at another path."""
        if isinstance(values, Operand):
            text = f"{self._text}.is_in({values._text})"
            return Condition(_membership(values, self, text), text, "call")
        return _one_of(self, values)

    def contains(self, item: object) -> Condition:
        """Whether the list or set has this element, the object this key, or the text this part."""
        text = f"{self._text}.contains({_source(item)})"
        return Condition(_membership(self, item, text), text, "call")

    def matches(self, regex: str) -> Condition:
        """Whether the whole text fits the regular expression. A text beyond 4096 characters raises when asked.

        The length alone does not tame nested repetition such as `(a+)+`; write `(?>a+)+` or simply `a+`.
        """
        text = f"{self._text}.matches({_source(regex)})"
        find, where = self._find, f"{text}: {self._text}"
        try:
            fullmatch = re.compile(regex).fullmatch
        except (re.error, TypeError) as error:
            msg = f"{text}: not a regular expression: {error}"
            raise InvalidCondition(msg, hint="see the syntax of Python's `re` module") from None

        def test(data: Any, state: Any) -> bool:
            value = find(data, state)
            if type(value) is not str:
                _require_kind(value, "a text", where)
            if len(value) > MAX_MATCHED_LENGTH:
                msg = f"{where} has {len(value)} characters; at most {MAX_MATCHED_LENGTH} are looked at"
                raise ConditionError(msg)
            return fullmatch(value) is not None

        return Condition(test, text, "call")

    def __and__(self, other: object) -> NoReturn:
        raise _not_a_condition(self)

    __or__ = __rand__ = __ror__ = __and__

    def __bool__(self) -> NoReturn:
        raise _no_truth_value(self)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<Operand {self._text}>"


def data(path: str) -> Operand:
    """The value at a dotted path into the signal's data, such as `data("reading.celsius")`.

    Raises:
        InvalidCondition: the path is empty or has an empty part.
    """
    first, *rest = _parts("data", path)

    def find(data: Any, _state: Any) -> Any:
        return data.get(first) if type(data) is dict else _step(data, first)

    return Operand(_deeper(find, rest), f"data({_source(path)})")


def state(path: str) -> Operand:
    """The value of a field of the agent's state, such as `state("heating")`; dots lead further into it.

    Raises:
        InvalidCondition: the path is empty or has an empty part.
    """
    first, *rest = _parts("state", path)

    def find(_data: Any, state: Any) -> Any:
        found = getattr(state, first, None)
        return None if callable(found) else found

    return Operand(_deeper(find, rest), f"state({_source(path)})")


def _parts(root: str, path: str) -> list[str]:
    parts = path.split(".") if isinstance(path, str) else [""]
    if not all(parts):
        msg = f"{root}({path!r}) is not a path"
        raise InvalidCondition(msg, hint=f"write the names with dots between, such as {root}('reading.celsius')")
    return parts


def _deeper(find: Find, rest: list[str]) -> Find:
    if not rest:
        return find

    def deep(data: Any, state: Any) -> Any:
        value = find(data, state)
        for part in rest:
            value = value.get(part) if type(value) is dict else _step(value, part)
        return value

    return deep


def _step(value: Any, part: str) -> Any:
    if isinstance(value, dict):  # its methods are not data
        return value.get(part)
    found = getattr(value, part, None)
    return None if callable(found) else found


def _comparison(left: Operand, sign: str, compare: Predicate, right: object) -> Condition:
    text = f"{left._text} {sign} {_source(right)}"
    ordering = sign not in ("==", "!=")
    make = _between_operands if isinstance(right, Operand) else _with_literal
    return Condition(make(left, compare, right, text, ordering=ordering), text, "comparison")


def _with_literal(left: Operand, compare: Predicate, right: Any, text: str, *, ordering: bool) -> Predicate:
    kind = _literal_kind(right, text)
    if ordering and not _has_order(right):
        msg = f"{text}: {kind} has no order"
        raise InvalidCondition(msg, hint="compare it with == or !=")
    find, where, exact = left._find, f"{text}: {left._text}", _EXACT_TYPES.get(kind, ())

    def test(data: Any, state: Any) -> bool:
        value = find(data, state)
        if type(value) not in exact:
            _require_kind(value, kind, where)
        return compare(value, right)

    return test


def _between_operands(left: Operand, compare: Predicate, right: Any, text: str, *, ordering: bool) -> Predicate:
    find_left, where_left = left._find, f"{text}: {left._text}"
    find_right, where_right = right._find, f"{text}: {right._text}"

    def test(data: Any, state: Any) -> bool:
        value, other = find_left(data, state), find_right(data, state)
        kind = _ORDERED_EXACT.get(type(value))
        if kind is None or _ORDERED_EXACT.get(type(other)) != kind:
            _require_present(other, where_right)
            _require_kind(value, _kind(other), where_left)
            if ordering and not _has_order(other):
                msg = f"{where_right} is {_kind(other)}, which has no order"
                raise ConditionError(msg, hint="compare it with == or !=")
        return compare(value, other)

    return test


def _one_of(operand: Operand, values: Collection[Any]) -> Condition:
    if isinstance(values, str | bytes) or not isinstance(values, Collection):
        msg = f"{operand._text}.is_in() takes a list, a tuple or a set of values, not {_kind(values)}"
        raise InvalidCondition(msg, hint=f"write {operand._text}.is_in(['a', 'b'])")
    listed = list(values) if isinstance(values, Sequence) else sorted(values, key=_source)
    text = f"{operand._text}.is_in({_source(listed)})"
    kinds = sorted({_literal_kind(value, text) for value in listed})
    if len(kinds) != 1:
        msg = f"{text}: its values are {' and '.join(kinds) or 'none'}"
        raise InvalidCondition(msg, hint="give one or more values of one kind")
    try:
        choices = frozenset(listed)
    except TypeError:
        msg = f"{text}: {kinds[0]} cannot be looked up among others"
        raise InvalidCondition(msg, hint="compare with == and combine with |") from None
    find, where, kind = operand._find, f"{text}: {operand._text}", kinds[0]
    exact = _EXACT_TYPES.get(kind, ())

    def test(data: Any, state: Any) -> bool:
        value = find(data, state)
        if type(value) not in exact:
            _require_kind(value, kind, where)
        return value in choices

    return Condition(test, text, "call")


def _membership(container: Operand, item: object, text: str) -> Predicate:
    find, where = container._find, f"{text}: {container._text}"
    find_item, where_item = _finder(item, text), f"{text}: {_source(item)}"

    def test(data: Any, state: Any) -> bool:
        value, wanted = find(data, state), find_item(data, state)
        _require_present(value, where)
        _require_present(wanted, where_item)
        for kind in _element_kinds(value, wanted, where):
            _require_kind(wanted, kind, where_item)
        return wanted in value

    return test


def _finder(item: object, text: str) -> Find:
    if isinstance(item, Operand):
        return item._find
    _literal_kind(item, text)
    return lambda _data, _state: item


def _element_kinds(container: Any, wanted: object, where: str) -> Iterable[str]:
    """The kinds that `wanted` has to be of, all of them, to be looked for in the container."""
    match container:
        case str():
            return ("a text",)
        case list() | tuple():
            strangers = set(map(type, container)) - {type(wanted)}
            return {_kind(element) for element in container if type(element) in strangers}
        case Mapping() | set() | frozenset():
            # They hold one declared type, and a look at each element would cost what hashing saves.
            return map(_kind, itertools.islice(container, 1))
    msg = f"{where} is {_kind(container)}, which contains nothing"
    raise ConditionError(msg, hint="`contains` is for lists, sets, objects and texts")


def _kind(value: object) -> str:
    """What values are comparable with: those of the same kind, whatever their exact types."""
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    if isinstance(value, datetime):
        return "a naive datetime" if value.utcoffset() is None else "a datetime"
    return "null" if value is None else f"a {type(value).__qualname__}"


def _literal_kind(value: object, text: str) -> str:
    if value is None:
        msg = f"{text}: null is the same as missing"
        raise InvalidCondition(msg, hint="write .exists(), or ~ before it")
    if isinstance(value, Operand | Condition) or callable(value):
        msg = f"{text}: {_kind(value)} is not a value to compare with"
        raise InvalidCondition(msg, hint=_PARENTHESES)
    return _kind(value)


def _has_order(value: object) -> bool:
    return isinstance(value, _ORDERED) and not isinstance(value, bool)


def _require_present(value: object, where: str) -> None:
    if value is None:
        msg = f"{where} is missing or null"
        raise ConditionError(msg, hint="ask .exists() first, joined with &")


def _require_kind(value: object, kind: str, where: str) -> None:
    _require_present(value, where)
    if (found := _kind(value)) != kind:
        msg = f"{where} is {found}, not {kind}"
        raise ConditionError(msg, hint="only values of one kind are compared")


def _condition(value: object) -> Condition:
    if not isinstance(value, Condition):
        raise _not_a_condition(value)
    return value


def _not_a_condition(value: object) -> InvalidCondition:
    msg = f"{_source(value)} is not a condition, and & and | combine conditions: {_PARENTHESES}"
    return InvalidCondition(msg, hint="& and | bind more tightly than a comparison does")


def _no_truth_value(what: Condition | Operand) -> InvalidCondition:
    msg = f"{what} is neither true nor false before a signal comes: combine with & | ~ in place of `and`, `or`, `not`"
    return InvalidCondition(msg, hint=f"{_PARENTHESES}; a < x < b is (x > a) & (x < b)")


def _source(value: object) -> str:
    if isinstance(value, Operand | Condition):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_source, value))}]"
    # Texts in double quotes, as the formatter writes them.
    return json.dumps(value, ensure_ascii=False) if type(value) is str else repr(value)
