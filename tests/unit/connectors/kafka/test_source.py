"""What the source notices about the records at hand; how it reads is tested against brokers."""

from types import SimpleNamespace
from typing import Any

import pytest

from connectors.kafka.source import ConsumerHub
from signalbox.config import KafkaSettings


class Part(SimpleNamespace):
    """Stands in for a partition; equal to itself alone, as a partition is."""

    __hash__ = object.__hash__


def hub_with(*keys: bytes | None) -> tuple[ConsumerHub, Any]:
    """A hub with one partition, at hand of which lie records with these keys."""
    messages = [SimpleNamespace(key=lambda key=key: key) for key in keys]
    part = Part(topic="signals", partition=3, waiting=messages, looked_at=float("-inf"), hot_key=None)
    hub = ConsumerHub(KafkaSettings(), "group", 100)
    hub._parts["signals", 3] = part  # type: ignore[assignment]
    return hub, part


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
def test_a_key_of_most_records_is_hot(keys: list[bytes | None], found: dict[str, str]) -> None:
    """It takes many records and more than half of them; whatever bytes a key is of, it is told as a short text."""
    hub, part = hub_with(*keys)
    assert hub.take(part) != []
    assert hub.hot_keys() == found


def test_a_hot_key_is_looked_for_now_and_then() -> None:
    """Right after a look the next records are taken without another one."""
    hub, part = hub_with(*[b"a"] * 60)
    hub.take(part)
    part.waiting = [SimpleNamespace(key=lambda: b"b")] * 60
    hub.take(part)
    assert hub.hot_keys() == {"signals-3": "a"}
