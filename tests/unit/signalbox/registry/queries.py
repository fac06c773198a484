"""Queries and agents made by hypothesis, and the meaning of queries written down once more, naively."""

import operator
from typing import Any

from hypothesis import strategies as st

CAPABILITIES = ("heating", "tracking", "task_processing")
NODES = ("a", "b", "c")
TYPES = ("room", "parcel")
KINDS = ("keyed", "pool", "singleton")

_TEXTS = {
    "capability": CAPABILITIES,
    "type": TYPES,
    "node": NODES,
    "kind": KINDS,
    "status": ("running", "paused", "stale"),
}
_PATHS = ("metadata.load", "metadata.zone", "metadata.gpu.count", "metadata.gone")
scalars = st.one_of(
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from((-0.5, 0.0, 0.5, 1.0, 2.5)),
    st.sampled_from(("", "eu", "us", "1")),
)
_ordered = st.one_of(st.integers(-2, 2), st.sampled_from((0.5, 1.0)), st.sampled_from(("eu", "us")))


@st.composite
def _comparisons(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from((*_TEXTS, *_PATHS)))
    values: st.SearchStrategy[Any] = st.sampled_from(_TEXTS[field]) if field in _TEXTS else scalars
    op = draw(
        st.sampled_from(("eq", "ne", "in") if field in _TEXTS else ("eq", "ne", "in", "gt", "ge", "lt", "le", "exists"))
    )
    if op == "exists":
        return {"field": field, "op": op}
    if op == "in":
        return {"field": field, "op": op, "value": draw(st.lists(values, max_size=3))}
    return {"field": field, "op": op, "value": draw(_ordered if op in ("gt", "ge", "lt", "le") else values)}


comparisons = _comparisons()
queries = st.recursive(
    comparisons,
    lambda parts: st.one_of(
        st.builds(lambda some: {"all": some}, st.lists(parts, max_size=3)),
        st.builds(lambda some: {"any": some}, st.lists(parts, max_size=3)),
        st.builds(lambda one: {"not": one}, parts),
    ),
    max_leaves=8,
)
"""Queries as plain JSON values, a few levels deep."""

metadata = st.fixed_dictionaries(
    {},
    optional={
        "load": st.one_of(scalars, st.none(), st.just([1])),
        "zone": st.one_of(scalars, st.just({"eu": 1})),
        "gpu": st.one_of(scalars, st.fixed_dictionaries({}, optional={"count": scalars})),
    },
)
agents = st.fixed_dictionaries(
    {
        "agent_type": st.sampled_from(TYPES),
        "kind": st.sampled_from(KINDS),
        "status": st.sampled_from(("running", "paused")),
        "node": st.sampled_from(NODES),
        "capabilities": st.lists(st.sampled_from(CAPABILITIES), unique=True),
        "metadata": metadata,
    }
)
"""What an agent registers, its id aside."""


def means(query: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a query means an agent, given as the view shows it: no index, no compiled functions."""
    if "all" in query:
        return all(means(part, row) for part in query["all"])
    if "any" in query:
        return any(means(part, row) for part in query["any"])
    if "not" in query:
        return not means(query["not"], row)
    field, op, value = query["field"], query.get("op", "eq"), query.get("value")
    found = row["capabilities"] if field == "capability" else [_look_up(row, field)]
    if op == "exists":
        return found != [None]
    if op == "ne":
        return not any(_same(one, value) for one in found)
    if op in ("eq", "in"):
        return any(_same(one, other) for one in found for other in (value if op == "in" else [value]))
    return _kind(found[0]) == _kind(value) and bool(getattr(operator, op)(found[0], value))


def _look_up(row: dict[str, Any], field: str) -> Any:
    value: Any = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _same(one: Any, other: Any) -> bool:
    return _kind(one) == _kind(other) and bool(one == other)


def _kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__
