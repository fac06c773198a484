"""Queries as people write them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.registry.query import MAX_CHARACTERS, Query
from signalbox.registry.terms import InvalidQuery
from tests.unit.signalbox.registry.queries import queries

_SIGNS = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def part(field: str, op: str, value: Any = None) -> dict[str, Any]:
    return {"field": field, "op": op} | ({} if value is None else {"value": value})


def written(query: dict[str, Any]) -> str:
    """The query as text, with a pair of parentheses around everything."""
    if "not" in query:
        return f"not {written(query['not'])}"
    for word, joint in (("all", " and "), ("any", " or ")):
        if word in query:
            return f"({joint.join(map(written, query[word]))})"
    field, op = query["field"], query["op"]
    if op == "exists":
        return f"{field} exists"
    if op == "in":
        return f"{field} in ({', '.join(map(json.dumps, query['value']))})"
    return f"{field}{_SIGNS[op]}{json.dumps(query['value'])}"


def is_writable(query: dict[str, Any]) -> bool:
    """Whether the text form can say it: it has no empty lists."""
    inner = query.get("all", query.get("any"))
    if inner is not None:
        return bool(inner) and all(map(is_writable, inner))
    return is_writable(query["not"]) if "not" in query else query.get("value") != []


def unwrapped(query: dict[str, Any]) -> dict[str, Any]:
    """The query without combinations of a single part, which parentheses do not keep."""
    for word in ("all", "any"):
        if word in query:
            parts = [unwrapped(one) for one in query[word]]
            return parts[0] if len(parts) == 1 else {word: parts}
    return {"not": unwrapped(query["not"])} if "not" in query else query


@given(queries.filter(is_writable))
def test_what_can_be_written_is_read_back(plain):
    """Every query that has a text is the same query again when the text is read."""
    assert Query.parse(written(plain)).plain() == unwrapped(plain)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "capability=task_processing and node!=a and metadata.load<0.5",
            {
                "all": [
                    part("capability", "eq", "task_processing"),
                    part("node", "ne", "a"),
                    part("metadata.load", "lt", 0.5),
                ]
            },
        ),
        (
            "node=a or node=b and type=t",
            {"any": [part("node", "eq", "a"), {"all": [part("node", "eq", "b"), part("type", "eq", "t")]}]},
        ),
        (
            "(node=a or node=b) and type=t",
            {"all": [{"any": [part("node", "eq", "a"), part("node", "eq", "b")]}, part("type", "eq", "t")]},
        ),
        ("not node=a and type=t", {"all": [{"not": part("node", "eq", "a")}, part("type", "eq", "t")]}),
        ("not (node=a or type=t)", {"not": {"any": [part("node", "eq", "a"), part("type", "eq", "t")]}}),
        ("  node  =  a  ", part("node", "eq", "a")),
        ("node in (a,b , 'c d')", part("node", "in", ["a", "b", "c d"])),
        ("metadata.gpu.count exists", part("metadata.gpu.count", "exists")),
        ("metadata.x>=-1.5e3", part("metadata.x", "ge", -1500.0)),
        ("metadata.x=1", part("metadata.x", "eq", 1)),
        ("metadata.x='1'", part("metadata.x", "eq", "1")),
        ("metadata.x=true", part("metadata.x", "eq", True)),
        ('metadata.x="true"', part("metadata.x", "eq", "true")),
        ("metadata.x=''", part("metadata.x", "eq", "")),
        ("metadata.x='and'", part("metadata.x", "eq", "and")),
        ("metadata.version=1.2.3", part("metadata.version", "eq", "1.2.3")),
        ("node=1", part("node", "eq", "1")),
        ("node=true", part("node", "eq", "true")),
        ("type=room:kitchen/2", part("type", "eq", "room:kitchen/2")),
        ("node=日本", part("node", "eq", "日本")),
        ("metadata.x=99999999999999999999", part("metadata.x", "eq", 1e20)),
    ],
)
def test_texts_that_people_write(text, plain):
    """`and` binds closer than `or`, `not` closest; words of metadata are typed, all other values are texts."""
    assert Query.parse(text).plain() == plain


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 1, "the end: expected a comparison"),
        ("   ", 1, "expected a comparison"),
        ("node", 5, "expected = != < <= > >= in or exists"),
        ("node=", 6, "the end: expected a value"),
        ("node=a b", 8, "'b': expected and, or, or the end"),
        ("node=a and", 11, "expected a comparison"),
        ("node=a and and", 12, "'and': expected a comparison"),
        ("node=or", 6, "'or': expected a value"),
        ("(node=a", 8, "expected ')'"),
        ("node=a)", 7, "expected and, or, or the end"),
        ("node in a", 9, "expected '('"),
        ("node in ()", 10, "expected a value"),
        ("node in (a b)", 12, "expected ')'"),
        ("node == a", 7, "'=': expected a value"),
        ("node=a   and  nose=b", 15, "there is no field 'nose'"),
        ("type=t and status=stal", 12, "status is one of"),
        ("node=a and node='b", 17, "cannot be read"),
        ("node=a and  !type=t", 13, "cannot be read"),
        ("'node'=a", 1, "expected a comparison"),
    ],
)
def test_errors_point_at_the_place(text, position, says):
    """The message and the error name the character at which the text stops making sense, counted from one."""
    with pytest.raises(InvalidQuery) as refused:
        Query.parse(text)
    assert refused.value.position == position
    assert f"character {position}" in str(refused.value)
    assert says in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize("word", ["not ", "("])
def test_deep_texts_are_refused(word):
    """A text cannot make the reader recurse without end."""
    with pytest.raises(InvalidQuery, match="nests deeper than 16 levels"):
        Query.parse(word * 1000)


def test_long_texts_are_refused():
    """More than a few pages are not looked at."""
    with pytest.raises(InvalidQuery, match="has 4097 characters; at most 4096 are read"):
        Query.parse("x" * (MAX_CHARACTERS + 1))


@given(st.text(st.sampled_from("node=a()'\"!<> ,andornotin.metadata1\u00e9\n"), max_size=60))
def test_any_text_is_a_query_or_refused(text):
    """No text makes the reader fail in another way."""
    try:
        query = Query.parse(text)
    except InvalidQuery:
        return
    assert Query.parse(query.as_json()).root == query.root
