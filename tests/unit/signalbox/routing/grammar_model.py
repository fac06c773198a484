"""The grammar a second time, as a regular expression, and strategies that make types and patterns which often meet."""

import re

from hypothesis import strategies as st

_NAME = r"[A-Za-z0-9_-]+"
WORDS = ("a", "b", "c", "A", "a-b", "a_1", "0")


def model_matches(pattern: str, type: str) -> bool:
    """Whether a valid pattern matches, by Python's own regular expressions."""
    if not re.fullmatch(rf"{_NAME}(\.{_NAME})*", type) or type.count(".") > 99:
        return False
    parts = {"*": rf"{_NAME}\.", "**": rf"(?:{_NAME}\.)*"}
    regex = "".join(parts.get(segment, re.escape(segment) + r"\.") for segment in pattern.split("."))
    return re.fullmatch(regex, f"{type}.") is not None


def _without_double_any(segments: list[str]) -> str:
    kept = [part for i, part in enumerate(segments) if not (part == "**" and i > 0 and segments[i - 1] == "**")]
    return ".".join(kept)


patterns = st.lists(st.sampled_from((*WORDS[:3], *WORDS, "*", "*", "**", "**")), min_size=1, max_size=7).map(
    _without_double_any
)
types = st.lists(st.sampled_from((*WORDS[:3], *WORDS[:3], *WORDS)), min_size=1, max_size=8).map(".".join)
doubtful_types = st.lists(st.sampled_from((*WORDS, "", "*", "**", "ü", "a b", "\n")), max_size=5).map(".".join)
