"""Queries as JSON: what they mean, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given

from signalbox.registry.query import EVERY_AGENT, MAX_JSON_CHARACTERS, Query
from signalbox.registry.terms import Facts, InvalidQuery
from tests.unit.signalbox.registry.queries import agents, means, queries

ROOM = Facts(
    type="room",
    kind="keyed",
    node="a",
    capabilities=("heating",),
    metadata={"load": 1, "gpu": {"count": 2}, "on": True},
)


def comparison(field: str, op: str, value: Any = None) -> Query:
    return Query.of({"field": field, "op": op} | ({} if value is None else {"value": value}))


@given(queries, agents)
def test_a_query_means_what_its_parts_say(plain, agent):
    """The compiled query answers as the naive reading of its JSON does."""
    facts = Facts(
        type=agent["agent_type"],
        kind=agent["kind"],
        node=agent["node"],
        capabilities=tuple(agent["capabilities"]),
        metadata=agent["metadata"],
    )
    row = agent | {"type": agent["agent_type"]}
    for status in ("running", "paused", "stale"):
        assert Query.of(plain).holds(facts, status) == means(plain, row | {"status": status})


@given(queries)
def test_a_query_survives_json(plain):
    """What is written out is read back as the same query."""
    query = Query.of(plain)
    assert Query.of(query.plain()).root == query.root
    assert Query.parse(query.as_json()).root == query.root


@given(queries, queries, agents)
def test_and_means_both(one, other, agent):
    """Two queries joined mean the agents that both mean."""
    facts = Facts(
        type="x",
        kind=agent["kind"],
        node=agent["node"],
        capabilities=tuple(agent["capabilities"]),
        metadata=agent["metadata"],
    )
    left, right = Query.of(one), Query.of(other)
    assert (left & right).holds(facts, "running") == (left.holds(facts, "running") and right.holds(facts, "running"))


@pytest.mark.parametrize(
    ("field", "op", "value", "holds"),
    [
        ("capability", "eq", "heating", True),
        ("capability", "ne", "heating", False),
        ("capability", "in", ["cooling", "heating"], True),
        ("metadata.load", "eq", 1, True),
        ("metadata.load", "eq", 1.0, True),
        ("metadata.load", "eq", "1", False),
        ("metadata.load", "eq", True, False),
        ("metadata.on", "eq", True, True),
        ("metadata.on", "eq", 1, False),
        ("metadata.on", "ge", 1, False),
        ("metadata.load", "lt", 1, False),
        ("metadata.load", "le", 1, True),
        ("metadata.load", "gt", "a", False),
        ("metadata.gpu.count", "ge", 2, True),
        ("metadata.gpu.count.x", "exists", None, False),
        ("metadata.gpu", "exists", None, True),
        ("metadata.gpu", "eq", "x", False),
        ("metadata.none", "eq", 1, False),
        ("metadata.none", "ne", 1, True),
        ("metadata.load", "in", ["1", True], False),
        ("metadata.load", "in", [], False),
    ],
)
def test_comparisons_are_typed(field, op, value, holds):
    """Numbers, texts and bools never equal each other, and a missing value equals nothing."""
    assert comparison(field, op, value).holds(ROOM, "running") is holds


def test_every_agent_is_meant_by_no_condition():
    """An empty `all` holds for everybody, an empty `any` for nobody."""
    assert EVERY_AGENT.holds(ROOM, "stale")
    assert Query.of({"all": []}).root == EVERY_AGENT.root
    assert not Query.of({"any": []}).holds(ROOM, "running")


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"field": "nose", "value": "a"}, "there is no field 'nose'; there are capability, type, node, status, kind"),
        ({"field": "metadata", "value": "a"}, "no field 'metadata'"),
        ({"field": "metadata.", "value": "a"}, "no field 'metadata.'"),
        ({"field": "metadata.a..b", "value": "a"}, "no field"),
        ({"field": "node", "op": "is", "value": "a"}, "at op"),
        ({"field": "node", "value": 1}, "node is a text"),
        ({"field": "node", "op": "gt", "value": "a"}, "gt is for numbers and texts in metadata"),
        ({"field": "metadata.x", "op": "gt", "value": True}, "gt is for numbers"),
        ({"field": "node", "op": "exists"}, "exists is for metadata"),
        ({"field": "metadata.x", "op": "exists", "value": 1}, "takes no value"),
        ({"field": "metadata.x"}, "eq takes a value"),
        ({"field": "metadata.x", "value": None}, "eq takes a value"),
        ({"field": "metadata.x", "value": [1]}, "in takes a list"),
        ({"field": "metadata.x", "op": "in", "value": 1}, "in takes a list"),
        ({"field": "metadata.x", "value": {"a": 1}}, "at value"),
        ({"field": "status", "value": "stal"}, "status is one of running, paused, stale"),
        ({"field": "kind", "op": "in", "value": ["pool", "herd"]}, "kind is one of"),
        ({"all": [{"field": "node", "value": "a"}, {"field": "node", "value": 1}]}, "at all.1: node is a text"),
        ({"all": [], "any": []}, "at any"),
        ({"all": {}}, "at all"),
        ({"not": []}, "at not"),
        ({}, "at field"),
        ([], "the query is wrong"),
        (None, "the query is wrong"),
    ],
)
def test_nonsense_is_refused_with_its_place(plain, says):
    """The message says what is wrong and where in the query it is."""
    with pytest.raises(InvalidQuery) as refused:
        Query.of(plain)
    assert says in str(refused.value)
    assert (refused.value.exit_code, refused.value.hint is not None) == (2, True)


@pytest.mark.parametrize("text", ["{", "{]", '{"field": "node", "value": "a"', '{"all": [' * 1500, '{"not": ' * 1500])
def test_broken_json_is_refused(text):
    """Text that begins like JSON and is none is told as such, however deep it goes."""
    with pytest.raises(InvalidQuery, match="the query is not JSON"):
        Query.parse(text)


def test_large_queries_are_refused():
    """Length, depth and number of parts are bounded, before anything is evaluated."""
    one = {"field": "node", "value": "a"}
    nested: dict[str, Any] = one
    for _ in range(15):
        nested = {"not": nested}
    assert Query.of(nested)
    with pytest.raises(InvalidQuery, match="nests deeper than 16 levels"):
        Query.of({"not": nested})
    assert Query.of({"any": [one] * 49})
    with pytest.raises(InvalidQuery, match="more than 50 parts"):
        Query.of({"any": [one] * 50})
    with pytest.raises(InvalidQuery, match="more than 50 parts"):
        Query.of({"any": [{"all": [one] * 10}] * 5})
    assert Query.of({"field": "node", "op": "in", "value": ["a"] * 300})
    with pytest.raises(InvalidQuery, match="at most 16384 are read"):
        Query.parse(json.dumps({"all": [one]}) + " " * MAX_JSON_CHARACTERS)
