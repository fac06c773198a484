"""Conditions: what they answer, where they refuse to answer, what is refused at definition, and how they read."""

import datetime
import json
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from signalbox.errors import ConfigError, SignalboxError
from signalbox.routing import Condition, ConditionError, InvalidCondition, Operand, data, state
from signalbox.routing.conditions import MAX_MATCHED_LENGTH

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


class Reading(BaseModel):
    celsius: float
    note: str | None = None


class Temperature(BaseModel):
    room: str
    reading: Reading
    severity: Severity = Severity.WARNING
    at: datetime.datetime = NOON
    price: Decimal = Decimal("1.5")


class State(msgspec.Struct):
    heating: bool = False
    limit: int = 18
    name: str = "boiler"
    seen: set[str] = msgspec.field(default_factory=lambda: {"a", "b"})
    rooms: list[str] = msgspec.field(default_factory=lambda: ["kitchen", "hall"])
    limits: dict[str, float] = msgspec.field(default_factory=lambda: {"cpu": 0.8})
    last: datetime.datetime | None = None

    def method(self) -> int:
        return 1


JSON: dict[str, Any] = {
    "celsius": 17.5,
    "count": 18,
    "room": "kitchen",
    "on": True,
    "nothing": None,
    "tags": ["x", "y"],
    "numbers": [1, 2.5],
    "mixed": ["x", 1],
    "empty": [],
    "labels": {"floor": "2"},
    "a": {"b": {"c": 4}},
}
MODEL = Temperature(room="kitchen", reading=Reading(celsius=17.5))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (data("celsius") < 18, True),
        (data("celsius") < 17.5, False),
        (data("celsius") <= 17.5, True),
        (data("celsius") > 17, True),
        (data("celsius") >= 17.6, False),
        (data("celsius") == 17.5, True),
        (data("count") == 18.0, True),
        (data("count") != 18, False),
        (data("count") < Decimal("18.5"), True),
        (18 > data("celsius"), True),  # noqa: SIM300 - the reflected operator is what is tested
        (18 == data("celsius"), False),  # noqa: SIM300 - the reflected operator is what is tested
        (data("room") == "kitchen", True),
        (data("room") != "hall", True),
        (data("room") < "l", True),
        (data("on") == True, True),  # noqa: E712 - the comparison is what is tested
        (data("on") != True, False),  # noqa: E712
        (state("heating") == False, True),  # noqa: E712
        (data("a.b.c") == 4, True),
        (data("tags") == ["x", "y"], True),
        (data("labels") == {"floor": "2"}, True),
        (state("limits.cpu") < 0.9, True),
        (data("celsius") < state("limit"), True),
        (state("limit") <= data("count"), True),
        (data("room") == state("name"), False),
        (data("on") != state("heating"), True),
        (data("tags") == data("tags"), True),
        (data("room").exists(), True),
        (data("nothing").exists(), False),
        (data("absent").exists(), False),
        (data("absent.deeper").exists(), False),
        (data("room.deeper").exists(), False),
        (data("empty").exists(), True),
        (data("items").exists(), False),
        (state("method").exists(), False),
        (state("last").exists(), False),
        (data("room").is_in(["hall", "kitchen"]), True),
        (data("room").is_in({"hall"}), False),
        (data("count").is_in((17, 18.0)), True),
        (data("room").is_in(state("rooms")), True),
        (data("tags").contains("x"), True),
        (data("tags").contains("z"), False),
        (data("numbers").contains(1.0), True),
        (data("numbers").contains(2), False),
        (data("empty").contains("x"), False),
        (data("room").contains("itch"), True),
        (data("room").contains("hall"), False),
        (data("labels").contains("floor"), True),
        (data("labels").contains("room"), False),
        (state("seen").contains("a"), True),
        (state("seen").contains("z"), False),
        (state("rooms").contains(data("room")), True),
        (data("room").matches("k.*n"), True),
        (data("room").matches("kit"), False),
        (data("room").matches("chen"), False),
    ],
    ids=str,
)
def test_answers_on_json_and_state(condition: Condition, expected: bool) -> None:
    """A condition on a JSON object and a state has the answer of the comparison it reads as."""
    assert condition.holds(JSON, State()) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (data("reading.celsius") < 18, True),
        (data("room") == "kitchen", True),
        (data("severity") == "warning", True),
        (data("severity") == Severity.CRITICAL, False),
        (data("severity").is_in(["critical", "warning"]), True),
        (data("severity").matches("warn.*"), True),
        (data("price") > 1, True),
        (data("at") < NOON + datetime.timedelta(hours=1), True),
        (data("at.hour") == 12, True),
        (data("reading.note").exists(), False),
        (data("model_dump").exists(), False),
    ],
    ids=str,
)
def test_answers_on_a_payload_model(condition: Condition, expected: bool) -> None:
    """A condition reads the fields of a validated payload, enumerations and times included."""
    assert condition.holds(MODEL, None) is expected


@pytest.mark.parametrize(
    "carrier",
    [
        {"reading": {"celsius": 17.5}},
        MODEL,
        SimpleNamespace(reading=SimpleNamespace(celsius=17.5)),
        {"reading": Reading(celsius=17.5)},
        SimpleNamespace(reading={"celsius": 17.5}),
        OrderedDict(reading=OrderedDict(celsius=17.5)),
    ],
    ids=lambda carrier: type(carrier).__name__,
)
def test_data_of_any_shape(carrier: object) -> None:
    """Dictionaries and objects may be mixed along a path."""
    assert (data("reading.celsius") == 17.5).holds(carrier, None)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (data("absent") < 18, 'data("absent") < 18: data("absent") is missing or null'),
        (data("nothing") == 1, 'data("nothing") is missing or null'),
        (data("a.x.c") == 4, 'data("a.x.c") is missing or null'),
        (data("a.b.c.d") == 4, 'data("a.b.c.d") is missing or null'),
        (state("absent") == 1, 'state("absent") is missing or null'),
        (state("method") == 1, 'state("method") is missing or null'),
        (data("items") == 1, 'data("items") is missing or null'),
        (data("room") < 18, 'data("room") is a text, not a number'),
        (data("celsius") == "17.5", 'data("celsius") is a number, not a text'),
        (data("celsius") != "17.5", 'data("celsius") is a number, not a text'),
        (data("on") == 1, 'data("on") is a bool, not a number'),
        (data("on") < 2, 'data("on") is a bool, not a number'),
        (data("count") == True, 'data("count") is a number, not a bool'),  # noqa: E712
        (data("tags") == "x", 'data("tags") is a list, not a text'),
        (data("tags") == ("x", "y"), 'data("tags") is a list, not a tuple'),
        (data("room") == NOON, 'data("room") is a text, not a datetime'),
        (data("celsius") < state("name"), 'data("celsius") is a number, not a text'),
        (data("celsius") < state("last"), 'state("last") is missing or null'),
        (data("absent") < state("limit"), 'data("absent") is missing or null'),
        (data("on") < state("heating"), "a bool, which has no order"),
        (data("labels") < data("labels"), "an object, which has no order"),
        (data("count") == state("heating"), 'data("count") is a number, not a bool'),
        (data("absent").is_in(["a"]), 'data("absent") is missing or null'),
        (data("on").is_in([0, 1]), 'data("on") is a bool, not a number'),
        (data("count").is_in(["18"]), 'data("count") is a number, not a text'),
        (data("absent").contains("x"), 'data("absent") is missing or null'),
        (data("tags").contains(data("absent")), 'data("absent") is missing or null'),
        (data("empty").contains(data("absent")), 'data("absent") is missing or null'),
        (state("seen").contains(data("absent")), 'data("absent") is missing or null'),
        (data("tags").contains(1), "1 is a number, not a text"),
        (data("numbers").contains(True), "True is a bool, not a number"),
        (data("mixed").contains("x"), '"x" is a text, not a number'),
        (data("room").contains(1), "1 is a number, not a text"),
        (data("labels").contains(1), "1 is a number, not a text"),
        (state("seen").contains(1), "1 is a number, not a text"),
        (data("celsius").contains(1), 'data("celsius") is a number, which contains nothing'),
        (data("celsius").matches("1.*"), 'data("celsius") is a number, not a text'),
        (data("absent").matches(".*"), 'data("absent") is missing or null'),
    ],
    ids=str,
)
def test_no_answer(condition: Condition, message: str) -> None:
    """A missing path or a value of another kind raises, and so does its negation; the message says which it was."""
    for either in (condition, ~condition):
        with pytest.raises(ConditionError) as caught:
            either.holds(JSON, State())
        assert message in str(caught.value)


def test_no_state_is_missing() -> None:
    """Where there is no state, its fields are missing."""
    assert not state("heating").exists().holds({}, None)
    with pytest.raises(ConditionError, match="missing"):
        (state("limit") < 3).holds({}, None)


@pytest.mark.parametrize("nothing", [None, "text", 3, [], {}], ids=repr)
def test_data_without_fields(nothing: object) -> None:
    """Data that has no fields at all is data in which everything is missing."""
    assert not data("x").exists().holds(nothing, None)
    with pytest.raises(ConditionError, match="missing"):
        (data("x") == 1).holds(nothing, None)


def test_times_with_and_without_zone_are_not_compared() -> None:
    """A time zone aware and a naive time are of different kinds, also for equality."""
    for condition in (data("at") < NOON.replace(tzinfo=None), data("at") == NOON.replace(tzinfo=None)):
        with pytest.raises(ConditionError, match="naive"):
            condition.holds(MODEL, None)


class Hostile:
    @property
    def boom(self) -> int:
        message = "the payload's own text"
        raise RuntimeError(message)


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("condition", "carrier", "cause"),
    [
        (data("boom") == 1, Hostile(), RuntimeError),
        (data("boom").exists(), Hostile(), RuntimeError),
        (data("x") == Incomparable(), {"x": Incomparable()}, ZeroDivisionError),
        (data("x") < Decimal(1), {"x": Decimal("sNaN")}, ArithmeticError),
    ],
    ids=["comparing", "existing", "equalling", "ordering"],
)
def test_whatever_a_value_raises_is_a_condition_error(
    condition: Condition, carrier: object, cause: type[Exception]
) -> None:
    """An exception of a value's own becomes a `ConditionError` that keeps it as its cause."""
    with pytest.raises(ConditionError) as caught:
        condition.holds(carrier, None)
    assert isinstance(caught.value.__cause__, cause)


def test_errors_do_not_repeat_values() -> None:
    """Messages name kinds only, because data may hold secrets and may be large."""
    for condition in (data("x") < 1, data("x").contains(1), data("x") == state("limit"), data("boom") == 1):
        carrier = Hostile() if "boom" in str(condition) else {"x": "hunter2" * 1000}
        with pytest.raises(ConditionError) as caught:
            condition.holds(carrier, State())
        assert "hunter2" not in str(caught.value)
        assert "own text" not in str(caught.value)
        assert len(str(caught.value)) < 200


def test_matches_is_bounded() -> None:
    """A text that is longer than the limit is not matched but an error; at the limit it is matched."""
    condition = data("x").matches("a*")
    assert condition.holds({"x": "a" * MAX_MATCHED_LENGTH}, None)
    with pytest.raises(ConditionError, match="4097 characters"):
        condition.holds({"x": "a" * (MAX_MATCHED_LENGTH + 1)}, None)


YES, NO, RAISES = data("yes") == 1, data("no") == 1, data("absent") == 1
SIGNAL = {"yes": 1, "no": 0}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (YES & YES, True),
        (YES & NO, False),
        (NO & YES, False),
        (NO | YES, True),
        (YES | NO, True),
        (NO | NO, False),
        (~YES, False),
        (~NO, True),
        (~~YES, True),
        (~(YES & NO) | NO, True),
        (NO & RAISES, False),
        (YES | RAISES, True),
    ],
    ids=str,
)
def test_combinations(condition: Condition, expected: bool) -> None:
    """`&`, `|` and `~` are and, or and not; what the left side decides, the right side is not asked for."""
    assert condition.holds(SIGNAL, None) is expected


@pytest.mark.parametrize("condition", [RAISES & NO, RAISES | YES, YES & RAISES, NO | RAISES, ~RAISES], ids=str)
def test_an_error_is_no_answer_in_combinations_either(condition: Condition) -> None:
    """An error on a side that is asked is an error of the whole."""
    with pytest.raises(ConditionError):
        condition.holds(SIGNAL, None)


conditions = st.recursive(
    st.sampled_from(
        [
            data("a") < 1,
            data("b.c") == "x",
            state("limit") >= data("a"),
            data("a").exists(),
            data("b.c").is_in(["x", "y"]),
            data("t").contains("z"),
            data("b.c").matches(r"x\d*"),
        ]
    ),
    lambda inner: (
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1])
        | st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1])
        | inner.map(lambda one: ~one)
    ),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "a": st.integers(0, 40) | st.just("x"),
        "b": st.fixed_dictionaries({"c": st.sampled_from(["x", "x1", "y", 3])}),
        "t": st.just(["z"]) | st.just([1]),
    },
)


def answer(condition: Condition, carrier: object) -> bool | None:
    try:
        return condition.holds(carrier, State())
    except ConditionError:
        return None


@given(conditions, fields)
@settings(max_examples=200, deadline=None)
def test_text_reads_like_the_source(condition: Condition, carrier: dict[str, Any]) -> None:
    """The text of a condition, read as Python, is a condition with the same text and the same answers."""
    again = eval(str(condition), {"data": data, "state": state})
    assert str(again) == str(condition)
    assert answer(again, carrier) is answer(condition, carrier)


@given(conditions, conditions, fields)
@settings(max_examples=200, deadline=None)
def test_combinations_like_pythons_own(left: Condition, right: Condition, carrier: dict[str, Any]) -> None:
    """`&` and `|` answer as `and` and `or` on the answers of both sides, an error counting as raised."""
    a, b = answer(left, carrier), answer(right, carrier)
    assert answer(left & right, carrier) is (b if a else a)
    assert answer(left | right, carrier) is (a if a or a is None else b)
    assert answer(~left, carrier) is (None if a is None else not a)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (data("celsius") < 18, 'data("celsius") < 18'),
        (18 > data("celsius"), 'data("celsius") < 18'),  # noqa: SIM300 - the reflected operator is what is tested
        (data("room") == 'a "b"', r'data("room") == "a \"b\""'),
        (data("room") == "Küche", 'data("room") == "Küche"'),
        (data("a.b") >= state("limit"), 'data("a.b") >= state("limit")'),
        (data("room").is_in(("b", "a")), 'data("room").is_in(["b", "a"])'),
        (data("room").is_in({"b", "a", "c"}), 'data("room").is_in(["a", "b", "c"])'),
        (data("x").is_in(state("rooms")), 'data("x").is_in(state("rooms"))'),
        (state("rooms").contains(data("x")), 'state("rooms").contains(data("x"))'),
        (data("x").matches(r"\d+"), r'data("x").matches("\\d+")'),
        (data("x").exists() & (data("x") < 3), 'data("x").exists() & (data("x") < 3)'),
        (YES & NO & YES, '(data("yes") == 1) & (data("no") == 1) & (data("yes") == 1)'),
        ((YES & NO) | YES, '((data("yes") == 1) & (data("no") == 1)) | (data("yes") == 1)'),
        (~YES, '~(data("yes") == 1)'),
        (~data("x").exists(), '~data("x").exists()'),
        (~(YES | NO), '~((data("yes") == 1) | (data("no") == 1))'),
    ],
)
def test_text(condition: Condition, text: str) -> None:
    """The text of a condition has double quotes, and parentheses where Python needs them or a reader does."""
    assert str(condition) == text
    assert text in repr(condition)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: YES and NO,
        lambda: YES or NO,
        lambda: not YES,
        lambda: 1 if YES else 2,
        lambda: 10 < data("x") < 20,
        lambda: data("x") and YES,
        lambda: not data("x"),
        lambda: data("x") in [1, 2],
    ],
)
def test_no_truth_value(misuse: Callable[[], object]) -> None:
    """Using a condition or an operand where Python wants true or false is an error that shows the way out."""
    with pytest.raises(InvalidCondition, match=r"combine with & \| ~ in place of `and`, `or`, `not`") as caught:
        misuse()
    assert "(x > a) & (x < b)" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: data("x") > 1 & data("y") < 2,
        lambda: data("x") > 1 & (data("y") < 2),
        lambda: data("x") > 1 | (data("y") < 2),
        lambda: (data("x") > 1) & data("y"),
        lambda: data("x") & (data("y") > 1),
        lambda: data("x") | data("y"),
        lambda: (data("x") > 1) | True,  # type: ignore[operator]
    ],
)
def test_missing_parentheses(misuse: Callable[[], object]) -> None:
    """`&` and `|` with anything that is not a condition is an error that asks for parentheses."""
    with pytest.raises(InvalidCondition, match="put parentheses around each comparison"):
        misuse()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data(""), "is not a path"),
        (lambda: data("a..b"), "is not a path"),
        (lambda: state(".a"), "is not a path"),
        (lambda: data(None), "is not a path"),  # type: ignore[arg-type]
        (lambda: data("x") == None, "null is the same as missing"),  # noqa: E711
        (lambda: data("x") != None, "null is the same as missing"),  # noqa: E711
        (lambda: data("x") < True, "a bool has no order"),
        (lambda: data("x") > ["a"], "a list has no order"),
        (lambda: data("x") >= {"a": 1}, "an object has no order"),
        (lambda: data("x") == (data("y") > 1), "is not a value to compare with"),
        (lambda: data("x") == len, "is not a value to compare with"),
        (lambda: data("x").is_in("abc"), "takes a list, a tuple or a set"),
        (lambda: data("x").is_in(3), "takes a list, a tuple or a set"),  # type: ignore[arg-type]
        (lambda: data("x").is_in([]), "its values are none"),
        (lambda: data("x").is_in([1, "1"]), "its values are a number and a text"),
        (lambda: data("x").is_in([1, True]), "its values are a bool and a number"),
        (lambda: data("x").is_in([None]), "null is the same as missing"),
        (lambda: data("x").is_in([["a"]]), "a list cannot be looked up among others"),
        (lambda: data("x").contains(None), "null is the same as missing"),
        (lambda: data("x").matches("(a"), "not a regular expression"),
        (lambda: data("x").matches(3), "not a regular expression"),  # type: ignore[arg-type]
    ],
)
def test_refused_at_definition(make: Callable[[], object], message: str) -> None:
    """A condition that could never have an answer is refused where it is written, with a hint."""
    with pytest.raises(InvalidCondition, match=message) as caught:
        make()
    assert caught.value.hint


def test_errors_have_their_place_in_the_tree() -> None:
    """A condition that is wrong as written is a wrong configuration; one without an answer is a failure at run time."""
    assert issubclass(InvalidCondition, ConfigError)
    assert ConditionError.__base__ is SignalboxError


def test_operands_are_no_keys() -> None:
    """An operand cannot be put into a set or dictionary, where its equality would answer nothing."""
    with pytest.raises(TypeError):
        hash(data("x"))
    assert isinstance(data("x"), Operand)
    assert len({YES, NO, YES}) == 2


@given(st.text(max_size=20))
@settings(deadline=None)
def test_any_text_literal_compares_and_reads(text: str) -> None:
    """A text literal of any characters is compared as it is and reads as JSON does."""
    condition = data("x") == text
    assert condition.holds({"x": text}, None)
    assert not condition.holds({"x": text + "!"}, None)
    assert json.loads(str(condition).removeprefix('data("x") == ')) == text
