"""Patterns: the grammar, what it refuses and in which words, and specificity. The order of routes is in test_router."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signalbox.errors import ConfigError
from signalbox.routing import InvalidPattern, Pattern, is_valid_type
from tests.unit.signalbox.routing.grammar_model import doubtful_types, model_matches, patterns, types

CASES = [
    line.split("\t") for line in (Path(__file__).parent / "cases.tsv").read_text(encoding="utf-8").split("\n") if line
]


def outcome(pattern: str, type: str) -> str:
    try:
        parsed = Pattern.parse(pattern)
    except InvalidPattern:
        return "invalid"
    return "yes" if parsed.matches(type) else "no"


@pytest.mark.parametrize(("pattern", "type", "expected"), CASES, ids=lambda text: text[:40])
def test_case_table(pattern: str, type: str, expected: str) -> None:
    """Every row of the table has the outcome it states."""
    assert outcome(pattern, type) == expected


def test_case_table_is_whole() -> None:
    """The table is large, mixed and free of repetitions, and keeps rows whose pattern or type is empty."""
    count = Counter(expected for _, _, expected in CASES)
    assert len(CASES) >= 150
    assert min(count["yes"], count["no"]) >= 50
    assert count["invalid"] >= 20
    assert len({(pattern, type) for pattern, type, _ in CASES}) == len(CASES)
    assert {"", "user"} <= {type for pattern, type, _ in CASES if not pattern}
    assert sum(not type for _, type, _ in CASES) >= 5


@given(patterns, types)
@settings(max_examples=500, deadline=None)
def test_matches_like_the_regex_model(pattern: str, type: str) -> None:
    """A pattern matches a valid type exactly when the grammar, written as a regular expression, does."""
    assert Pattern.parse(pattern).matches(type) is model_matches(pattern, type)


@given(patterns, doubtful_types)
@settings(deadline=None)
def test_doubtful_types_like_the_regex_model(pattern: str, type: str) -> None:
    """A type with empty segments, wildcards or foreign characters is judged as the model judges it."""
    assert Pattern.parse(pattern).matches(type) is model_matches(pattern, type)


@given(st.text(max_size=12))
@example("a\n")
@example("a.b\n")
@settings(deadline=None)
def test_valid_types_like_the_regex_model(type: str) -> None:
    """A type is valid exactly when `**` matches it."""
    assert is_valid_type(type) is model_matches("**", type) is Pattern.parse("**").matches(type)


@given(st.text(alphabet="ab*.@", max_size=10))
@settings(max_examples=500, deadline=None)
def test_parse_refuses_exactly_what_the_grammar_excludes(text: str) -> None:
    """Any text is either read or refused with `InvalidPattern`, and refused exactly when a segment breaks a rule."""
    segments = text.split(".")
    broken = any(not segment or (segment not in ("*", "**") and not segment.isalpha()) for segment in segments)
    assert (outcome(text, "a") == "invalid") is (broken or ("**", "**") in itertools.pairwise(segments))


@pytest.mark.parametrize(
    ("pattern", "named", "advice"),
    [
        ("", "is empty", "'**'"),
        ("user..created", "segment 2 is empty", "remove the extra dot"),
        ("user.", "segment 2 is empty", "remove the extra dot"),
        ("user.**.**.created", "segments 2 and 3 are both `**`", "one `**`"),
        ("a.user*", "segment 2, 'user*', has a `*` inside", "write `*` in place of this one"),
        ("a.***", "segment 2 is '***'", "`**` for zero or more"),
        ("a.b.user@1", "segment 3, 'user@1', holds '@'", "letters, digits"),
        ("user/created", "segment 1, 'user/created', holds '/'", "separate segments with dots"),
        ("user.#", "segment 2, '#', holds '#'", "`**` stands for any number"),
        ("user.>", "segment 2, '>', holds '>'", "`**` stands for any number"),
        ("user.+", "segment 2, '+', holds '+'", "`*` stands for exactly one"),
        (".".join("a" * 101), "has 101 segments; 100 are allowed", "`**` for the part"),
        (None, "is text, this is a NoneType", "in quotes"),
    ],
)
def test_refusal_names_the_segment_and_the_remedy(pattern: str, named: str, advice: str) -> None:
    """The message says what is wrong with which segment, and the hint says what to write instead."""
    with pytest.raises(InvalidPattern) as caught:
        Pattern.parse(pattern)
    assert named in str(caught.value)
    assert advice in (caught.value.hint or "")


def test_refusal_of_a_long_pattern_is_short() -> None:
    """A pattern of any length is refused with a message that fits a line or two."""
    with pytest.raises(InvalidPattern) as caught:
        Pattern.parse("x" * 100_000 + "@")
    assert len(str(caught.value)) < 300


def test_invalid_pattern_is_a_config_error() -> None:
    """A wrong pattern ends a command with the exit code of a wrong configuration."""
    assert issubclass(InvalidPattern, ConfigError)
    assert InvalidPattern.exit_code == 3


@pytest.mark.parametrize(
    ("pattern", "specificity"),
    [
        ("user.123.created", 24000),
        ("user.*.created", 17100),
        ("**.m.**.z", 16400),
        ("user.**.created", 16200),
        ("a.**.z", 16200),
        ("user.created", 13000),
        ("user.*", 9100),
        ("user.**", 8200),
        ("*.*.created", 7100),
        ("**.created", 5000),
        ("user", 5000),
        ("*", 1000),
        ("**", 0),
    ],
)
def test_specificity_values(pattern: str, specificity: int) -> None:
    """Specificity has the documented values."""
    assert Pattern.parse(pattern).specificity == specificity


@given(st.lists(st.sampled_from(("a", "*")), min_size=1, max_size=10), st.data())
@settings(deadline=None)
def test_specificity_falls_with_each_wildcard(segments: list[str], draw: st.DataObject) -> None:
    """Among the first ten segments, putting `*` for a literal or `**` for a `*` makes a pattern less specific."""
    at = draw.draw(st.integers(0, len(segments) - 1))
    literal, one, any = (
        Pattern.parse(".".join([*segments[:at], segment, *segments[at + 1 :]])).specificity
        for segment in ("a", "*", "**")
    )
    assert literal > one > any


@pytest.mark.timeout(5)
@pytest.mark.parametrize("last", ["a", "b"])
def test_many_wildcards_on_a_long_type_end_soon(last: str) -> None:
    """Fifty `**` between literals do not multiply the ways that are tried."""
    pattern = Pattern.parse(".".join(["a", "**"] * 49 + ["a"]))
    assert pattern.matches(".".join(["a"] * 99 + [last])) is (last == "a")


@pytest.mark.timeout(5)
def test_a_huge_type_ends_soon() -> None:
    """A type of a megabyte is judged in one pass."""
    assert not Pattern.parse("**").matches("a." * 500_000)
    assert Pattern.parse("**").matches("a" * 1_000_000)


def test_patterns_are_values() -> None:
    """Patterns of equal text are equal, hash alike, print as their text and cannot be changed."""
    one, two = Pattern.parse("user.*"), Pattern.parse("user.*")
    assert one == two
    assert len({one, two, Pattern.parse("user.**")}) == 2
    assert str(one) == one.text == "user.*"
    assert one.segments == ("user", "*")
    with pytest.raises(AttributeError):
        one.text = "user"  # type: ignore[misc]


def test_no_pattern_skips_the_check() -> None:
    """The constructor checks as `parse` does."""
    with pytest.raises(InvalidPattern):
        Pattern("user..created")


@given(patterns, patterns, types)
@settings(max_examples=1000, deadline=None)
@example("a.**", "a", "a")
@example("**.a", "**.b.a", "b.a")
@example("*.a", "**", "b.a")
def test_a_pattern_that_covers_another_matches_its_types(wide: str, narrow: str, type: str) -> None:
    """Whatever the covered pattern matches, the covering one matches too."""
    if Pattern.parse(wide).covers(Pattern.parse(narrow)) and model_matches(narrow, type):
        assert model_matches(wide, type)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("system.load.*", "system.load.high", True),
        ("system.load.*", "system.load.*", True),
        ("system.load.*", "system.load.**", False),
        ("system.**", "system.load.**", True),
        ("system.**", "system", True),
        ("**", "a.*.b.**", True),
        ("a.**.c", "a.b.*.c", True),
        ("a.**.c", "a.b.*", False),
        ("a", "a.b", False),
        ("a.b", "a", False),
        ("*", "**", False),
        ("**.c", "a.**", False),
    ],
)
def test_covering_case_table(wide: str, narrow: str, expected: bool) -> None:
    """A wildcard covers what stands for no more than it does itself."""
    assert Pattern.parse(wide).covers(Pattern.parse(narrow)) is expected
