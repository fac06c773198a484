"""Hypothesis strategies for signals and for what travels in them."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from schemas.signal import Extensions, Signal

ATTRIBUTES = frozenset(Signal.__struct_fields__) | {"specversion", "data_base64"}

#: Text as CloudEvents allows it in attributes: no control characters (Cc), no surrogates (Cs).
attribute_text = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=zones | st.just(UTC))  # noqa: DTZ001 - bounds
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(text, json_values, max_size=5)
extension_names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name not in ATTRIBUTES)
extensions = st.dictionaries(extension_names, attribute_text | st.integers() | st.booleans(), max_size=4)


@st.composite
def signals(draw: st.DrawFn, data: st.SearchStrategy[Any] = json_values) -> Signal[Any]:
    """A valid signal with any choice of attributes."""
    optional = st.none() | attribute_text
    return Signal(
        id=draw(attribute_text),
        source=draw(attribute_text),
        type=draw(attribute_text),
        subject=draw(optional),
        time=draw(st.none() | times),
        datacontenttype=draw(st.none() | st.just("application/json")),
        dataschema=draw(optional),
        correlationid=draw(optional),
        causationid=draw(optional),
        traceparent=draw(optional),
        deadline=draw(st.none() | times),
        data=draw(data),
        extensions=Extensions(drawn) if (drawn := draw(extensions)) else None,
    )
