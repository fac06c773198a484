"""`transform` computes what JMESPath says, tells what is wrong and where, and costs no more than it may."""

import contextlib
import time
import tracemalloc

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.actions import ActionError
from signalbox.actions.expressions import MAX_EXPRESSION, MAX_RESULT_BYTES, MAX_STEPS, Expression
from signalbox.actions.transform import transform
from signalbox.app import App
from signalbox.testing import Harness

ORDER = {
    "id": "o1",
    "items": [
        {"name": "tea", "price": 4, "tags": ["hot"]},
        {"name": "cake", "price": 12.5, "tags": ["sweet", "cold"]},
        {"name": "ring", "price": 900, "tags": []},
    ],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "@", "`1`", "'a'", "*", "a.b", "[0]", "[]", "[*]", "[-1:]"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["|", "||", "&&", "=="]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: f"[{', '.join(many)}]"),
        inner.map(lambda one: f"{{x: {one}, y: @}}"),
        inner.map(lambda one: f"@ | [?{one}]"),
        inner.map(lambda one: f"!({one})"),
        inner.map(lambda one: f"not_null({one}, `0`)"),
        inner.map(lambda one: f"type({one})"),
        inner.map(lambda one: f"to_string({one})"),
    ),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("items[?price > `10`].name", ["cake", "ring"]),
        (
            "{order: id, total: sum(items[].price), first: items[0].name}",
            {"order": "o1", "total": 916.5, "first": "tea"},
        ),
        ("items[].tags[]", ["hot", "sweet", "cold"]),
        ("max_by(items, &price).name", "ring"),
        ("join(', ', items[].name)", "tea, cake, ring"),
        ("nowhere.to.be[0].found", None),
    ],
)
def test_the_value_is_that_of_the_expression(expression, value):
    """Parameters in, the value of the expression over the data out."""
    assert transform({"data": ORDER, "expression": expression}) == value


@given(EXPRESSIONS, JSON)
def test_it_is_jmespath(text, data):
    """Within the bounds every expression has the value that the JMESPath library gives it."""
    assert Expression(text).value(data) == jmespath.search(text, data)


@given(EXPRESSIONS, JSON.filter(lambda data: data is not None))
def test_true_is_what_jmespath_says(text, data):
    """An expression holds for exactly the data that JMESPath's own filter would keep: for 0, too."""
    assert Expression(text).holds(data) == (jmespath.search(f"[?{text}]", [data]) == [data])


@pytest.mark.parametrize("expression", ["@", "a", "[a][0]", "not_null(a)"])
def test_the_data_stays_as_it_is(expression):
    """What is done to the value of an expression is not done to its data, though it is a part of it."""
    data = {"a": {"b": [1]}}
    Expression(expression).value(data).clear()
    assert data == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    ("expression", "position"),
    [
        ("", 1),
        ("   ", 1),
        ("a.", 3),
        ("a = b", 3),
        ("items[?price > `3`", 19),
        ("a || 'open", 6),
        ("$.a", 1),
        ("a | nothing(@)", 5),
        ("length(@, @)", 1),
        ("[length()]", 2),
        ("(" * 900 + "a" + ")" * 900, 1),
        ("!" * 200 + "a", 1),
        ("a" * (MAX_EXPRESSION + 1), MAX_EXPRESSION + 1),
    ],
)
def test_what_is_no_expression_is_told_with_its_place(expression, position):
    """A mistake is found before any data is looked at, and its place is counted from 1."""
    with pytest.raises(ActionError, match=rf"^the expression is wrong at character {position}: .") as error:
        Expression(expression)
    assert (error.value.type, error.value.retryable) == ("invalid_expression", False)


@given(st.text("ab.[]*?|&!`'\"(){},:@<>=-01 \\#é", max_size=20))
@pytest.mark.filterwarnings("ignore:deprecated string literal")
def test_any_text_is_an_expression_or_told(text):
    """No text raises anything but `invalid_expression`, and no expression anything but `expression_failed`."""
    raised = ""
    try:
        expression = Expression(text)
    except ActionError as error:
        raised = error.type
    else:
        with contextlib.suppress(ActionError):
            expression.value({"a": [1, "b", None]})
    assert raised in {"", "invalid_expression"}


@pytest.mark.parametrize(
    ("expression", "data", "why"),
    [
        ("length(a)", {"a": 5}, r"length\(\) takes string or array or object, and was given number"),
        ("a < b", {"a": 1, "b": "x"}, "makes no sense"),
        ("&a", {}, "makes no sense"),
        ("ceil(a)", {"a": float("inf")}, "makes no sense"),
    ],
)
def test_an_expression_that_does_not_fit_the_data_fails(expression, data, why):
    """The error says what does not fit and repeats nothing of the data."""
    with pytest.raises(ActionError, match=why) as error:
        Expression(expression).value(data)
    assert error.value.type == "expression_failed"


NUMBERS = list(range(60_000))
ROWS = [{"a": number, "b": str(number), "c": {"d": [number, number]}} for number in range(6_000)]
TEXTS = ["x" * 20 + str(number) for number in range(8_000)]


def deep(levels: int) -> list:
    found: list = []
    for _ in range(levels - 1):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        # What is made twice, though it is not in the result.
        ("|".join(["[@, @]"] * 40) + " | length(@)", 1),
        ("|".join(["{a: @, b: @}"] * 40) + " | length(@)", 1),
        ("|".join(["[@, @][]"] * 40) + " | length(@)", NUMBERS),
        # What is looked at again and again.
        ("@" + "[]" * 40 + " | [0]", NUMBERS),
        ("[" + ",".join(["@ == @"] * 200) + "]", NUMBERS),
        ("[" + ",".join(["length(sort(@))"] * 100) + "]", TEXTS),
        ("[" + ",".join(["length(sort_by(@, &a))"] * 80) + "]", ROWS),
        ("[" + ",".join(["length(to_string(@))"] * 90) + "]", ROWS),
        ("[" + ",".join(["length(reverse(@))"] * 100) + "]", "z" * 200_000),
        ("[?" + "||".join(["a == b"] * 80) + "]", ROWS),
        ("[*]" + ".a" * 90 + " | length(@)", ROWS),
        ("map(&[" + ",".join(["a"] * 100) + "], @) | length(@)", ROWS),
        # What is large or deep to begin with, or at the end.
        ("@", ["x" * (MAX_RESULT_BYTES // 2)] * 2),
        ("a", {"a": 1, "b": deep(100)}),
        ("[@]", deep(100)),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_no_expression_holds_up_the_flow(expression, data):
    """What would take long or make much is cut short, in seconds even on a slow machine."""
    began_s = time.process_time()
    with pytest.raises(ActionError, match=r"more than|are allowed|levels") as error:
        Expression(expression).value(data)
    assert error.value.type == "expression_failed"
    assert time.process_time() - began_s < 2


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        (f"map(&`[{','.join('0' * 900)}]`, @)[] | [0]", NUMBERS),
        (f"join('{'y' * 1900}', @) | type(@)", ["x"] * 60_000),
    ],
    ids=["literal", "join"],
)
def test_no_expression_fills_the_memory(expression, data):
    """What would take hundreds of megabytes in between, and little at the end, is cut short before it does."""
    tracemalloc.start()
    try:
        with pytest.raises(ActionError, match="more than"):
            Expression(expression).value(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_the_bounds_leave_room_for_work():
    """The largest signal's worth of rows can be reshaped, and data of a hundred levels is let through."""
    reshaped = Expression("[*].{x: a, y: b, z: c.d[0]}").value(ROWS)
    assert reshaped[-1] == {"x": 5_999, "y": "5999", "z": 5_999}
    assert Expression("@").value(deep(100)) == deep(100)


def test_the_cost_is_the_same_every_time():
    """Steps are counted, not seconds: an expression at the bound passes or fails for ever."""
    fits = (MAX_STEPS - 10) // 3
    for _ in range(3):
        assert Expression("length(@)").value(list(range(fits // 2))) == fits // 2
        with pytest.raises(ActionError):
            Expression("length(@)").value(list(range(MAX_STEPS)))


def test_a_task_can_ask_for_it():
    """The action ships: a task gets the value as its result, and a mistake as its error."""
    harness = Harness(App())
    params = {"data": ORDER, "expression": "items[0].name"}
    harness.send("task.submitted", {"task_id": "t1", "action": "transform", "params": params}, subject="t1")
    harness.send(
        "task.submitted",
        {"task_id": "t2", "action": "transform", "params": {**params, "expression": "["}},
        subject="t2",
    )
    [done] = harness.emitted("task.completed", topic="results")
    [failed] = harness.emitted("task.failed", topic="results")
    assert done.data["result"] == "tea"
    assert failed.data["error"]["type"] == "invalid_expression"
