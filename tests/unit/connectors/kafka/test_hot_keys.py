"""When most records of a partition have one key, it is seen."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.kafka.hot_keys import HotKeys


def records(*keys: bytes | None) -> list[Any]:
    return [SimpleNamespace(key=lambda key=key: key) for key in keys]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([b"a"] * 60, {"signals-3": "a"}),
        ([b"a", b"b", b"a"] * 20, {"signals-3": "a"}),
        ([b"a", b"b"] * 30, {}),
        ([b"a"] * 49, {}),
        ([None] * 60, {}),
        ([b"\xff" * 300] * 60, {"signals-3": "\N{REPLACEMENT CHARACTER}" * 256}),
    ],
)
def test_the_key_of_most_records_is_hot(keys: list[bytes | None], found: dict[str, str]) -> None:
    """It takes many records and more than half of them; whatever bytes a key is of, it is told as a short text."""
    hot = HotKeys()
    hot.look("signals-3", records(*keys), time.monotonic())
    assert hot.told() == found


def test_looks_have_their_distance() -> None:
    """Right after a look the next records are let by, a second later they are looked at."""
    hot, now = HotKeys(), time.monotonic()
    told = []
    for key, after_s in ((b"a", 0.0), (b"b", 0.5), (b"c", 1.0)):
        hot.look("signals-3", records(*[key] * 60), now + after_s)
        told.append(hot.told()["signals-3"])
    assert told == ["a", "a", "c"]


def test_what_was_seen_long_ago_is_not_told() -> None:
    """A key that was hot a while ago need not be so any more."""
    hot = HotKeys()
    hot.look("signals-3", records(*[b"a"] * 60), time.monotonic() - 11)
    assert hot.told() == {}
