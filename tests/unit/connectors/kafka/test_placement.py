"""Placement: a key lies where Java clients and librdkafka would put it, and always there."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka import placement as placement_module
from connectors.kafka.placement import Placement, murmur2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_kafkas(data: bytes, expected: int) -> None:
    """The hash gives the values of Kafka's own test, `UtilsTest.testMurmur2`."""
    assert murmur2(data) == expected & 0xFFFFFFFF


@given(st.text(max_size=60), st.integers(1, 64))
def test_a_key_always_has_the_same_partition(key: str, partitions: int) -> None:
    """A key's partition follows from the key and the number of partitions alone, and is one that exists."""
    placement = Placement({"alerts": partitions, "results": partitions})
    part = placement.part("alerts", key)
    assert part == placement.part("alerts", key) == Placement({"alerts": partitions}).part("alerts", key)
    assert part == f"alerts-{(murmur2(key.encode()) & 0x7FFFFFFF) % partitions}"
    assert placement.part("results", key).removeprefix("results") == part.removeprefix("alerts")


def test_keys_spread_evenly() -> None:
    """Many keys fill all partitions about equally."""
    placement = Placement({"alerts": 8})
    tally = Counter(placement.part("alerts", f"host-{n}") for n in range(8000))
    assert set(tally) == {f"alerts-{n}" for n in range(8)}
    assert max(tally.values()) < 1.2 * min(tally.values())


def test_every_partition_is_listed_once() -> None:
    """All partitions of all topics are known by name, also of topics whose names have dashes."""
    assert Placement({"a-b": 2, "c": 1}).all_parts() == ["a-b-0", "a-b-1", "c-0"]


def test_keys_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of keys is bounded, and forgetting changes no answer."""
    monkeypatch.setattr(placement_module, "_REMEMBERED", 10)
    placement = Placement({"alerts": 8})
    first = [placement.part("alerts", f"k{n}") for n in range(100)]
    assert [placement.part("alerts", f"k{n}") for n in range(100)] == first
    assert len(placement._hashes) <= 10
