"""The grammar of signal types and of the patterns that select them.

A type is 1 to 100 segments of letters, digits, `_` and `-`, separated by dots: `room.temperature`. In a pattern `*`
stands for exactly one segment and `**` for zero or more, and the pattern has to match the whole type. What is not a
valid type matches nothing, not even `**`.
Not decided here: who comes first when several patterns match beyond `specificity` (`signalbox.routing.router`).
"""

import re
from dataclasses import dataclass, field
from typing import Self

from signalbox.errors import ConfigError

ONE = "*"
"""Matches exactly one segment."""
ANY = "**"
"""Matches zero or more segments."""
MAX_SEGMENTS = 100
"""Of a type and of a pattern. Types come from outside, and this bounds the work that one of them can cause."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_FOREIGN_CHARACTER = re.compile(r"[^A-Za-z0-9_*-]")
_TYPE = re.compile(rf"{_SEGMENT.pattern}(?:\.{_SEGMENT.pattern}){{0,{MAX_SEGMENTS - 1}}}")
_SHOWN = 80
"""Characters of a refused pattern that its error repeats."""
#: What people write who come from file paths, MQTT or NATS, and what it is here.
_HABITS = {
    "/": "separate segments with dots",
    "#": "`**` stands for any number of segments",
    ">": "`**` stands for any number of segments",
    "+": "`*` stands for exactly one segment",
}


class InvalidPattern(ConfigError):
    """The text is not a pattern. The message names the segment, counted from 1; the hint says what to write."""


def is_valid_type(type: str) -> bool:
    """Whether a signal of this type can match any pattern at all."""
    return _TYPE.fullmatch(type) is not None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A checked pattern. Two patterns are equal when their text is.

    Raises:
        InvalidPattern: the text breaks the grammar.
    """

    text: str
    segments: tuple[str, ...] = field(init=False, repr=False, compare=False)
    specificity: int = field(init=False, repr=False, compare=False)
    """The higher it is, the earlier the pattern's routes come. It grows with the number of segments, wildcards
    included, so `user.**` comes before `user`. In each of the first ten places a literal segment counts more than `*`,
    and `*` more than `**`; a literal counts more the further left it stands."""

    def __post_init__(self) -> None:
        segments = _checked(self.text)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "specificity", _specificity(segments))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern such as `room.*.temperature`.

        Raises:
            InvalidPattern: the text breaks the grammar.
        """
        return cls(text)

    def matches(self, type: str) -> bool:
        """Whether the whole of `type` fits. The cost is at most the product of both numbers of segments."""
        return is_valid_type(type) and _fits(self.segments, type.split("."))

    def covers(self, other: "Pattern") -> bool:
        """Whether it matches every type that `other` matches, as far as that shows segment by segment.

        A no may be too strict where both mean the same in different words, such as `*.**` and `**.*`.
        """
        return _covers(self.segments, other.segments)

    def __str__(self) -> str:
        return self.text


def _specificity(segments: tuple[str, ...]) -> int:
    count = len(segments)
    score = 2000 * count
    for index, segment in enumerate(segments):
        if segment == ANY:
            score -= 2000 - 200 * index
        elif segment == ONE:
            score -= 1000 - 100 * index
        else:
            score += 3000 * (count - index)
    return score


def _fits(pattern: tuple[str, ...], words: list[str]) -> bool:
    # Only the last `**` is ever given more words: whatever lies left of it already fits in the shortest way, and a
    # longer way there could not leave more to the right. So no combination is tried twice.
    at = word = 0
    retry_at = retry_word = -1
    while word < len(words):
        segment = pattern[at] if at < len(pattern) else None
        if segment == ANY:
            retry_at, retry_word = at + 1, word
            at = retry_at
        elif segment is not None and segment in (ONE, words[word]):
            at += 1
            word += 1
        elif retry_at >= 0:
            retry_word += 1
            at, word = retry_at, retry_word
        else:
            return False
    return all(segment == ANY for segment in pattern[at:])


def _covers(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    # `reached` holds the places in `wide` that the part of `narrow` seen so far may lead to.
    reached = _past_any(wide, {0})
    for segment in narrow:
        taken = {at for at in reached if wide[at : at + 1] == (ANY,)}
        if segment != ANY:
            taken |= {at + 1 for at in reached if wide[at : at + 1] in ((ONE,), (segment,))}
        reached = _past_any(wide, taken)
    return len(wide) in reached


def _past_any(wide: tuple[str, ...], reached: set[int]) -> set[int]:
    """The same places, and those behind each `**` among them, which may stand for nothing."""
    return reached | {at + 1 for at in reached if wide[at : at + 1] == (ANY,)}


def _checked(text: str) -> tuple[str, ...]:
    if not isinstance(text, str):
        msg = f"a pattern is text, this is a {type(text).__name__}"
        raise InvalidPattern(msg, hint="write it in quotes, such as 'room.temperature'")
    if not text:
        msg = "the pattern is empty"
        raise InvalidPattern(msg, hint="write '**' to match every type")
    segments = tuple(text.split("."))
    for number, segment in enumerate(segments, 1):
        if segment not in (ONE, ANY) and not _SEGMENT.fullmatch(segment):
            raise _refused_segment(text, number, segment)
        if segment == ANY and segments[number : number + 1] == (ANY,):
            msg = f"the pattern {_shown(text)}: segments {number} and {number + 1} are both `**`"
            raise InvalidPattern(msg, hint="write one `**`: it already stands for any number of segments")
    if len(segments) > MAX_SEGMENTS:
        msg = f"the pattern {_shown(text)} has {len(segments)} segments; {MAX_SEGMENTS} are allowed"
        raise InvalidPattern(msg, hint="write `**` for the part that need not be spelled out")
    return segments


def _refused_segment(text: str, number: int, segment: str) -> InvalidPattern:
    where = f"the pattern {_shown(text)}: segment {number}"
    if not segment:
        hint = "remove the extra dot, or write `*` for exactly one segment, `**` for zero or more"
        return InvalidPattern(f"{where} is empty", hint=hint)
    if foreign := _FOREIGN_CHARACTER.search(segment):
        hint = _HABITS.get(foreign[0], "use letters, digits, `_` and `-`, separated by dots")
        return InvalidPattern(f"{where}, {_shown(segment)}, holds {foreign[0]!r}", hint=hint)
    if not segment.strip("*"):
        return InvalidPattern(f"{where} is {_shown(segment)}", hint="write `*` for one segment, `**` for zero or more")
    hint = "a wildcard is a whole segment: write `*` in place of this one, or spell it out"
    return InvalidPattern(f"{where}, {_shown(segment)}, has a `*` inside", hint=hint)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
