"""What a worker's consumer makes of what a poll brings, with a consumer that a test scripts."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from connectors.kafka.hub import ConsumerHub
from connectors.kafka.rests import Rests
from connectors.kafka.source import CaughtUp, Partition, RecordBatch
from signalbox.config import KafkaSettings


class Consumer:
    """Has one poll's worth of a topic with one partition."""

    def __init__(self, messages: Sequence[Message], high: int) -> None:
        self._messages = list(messages)
        self._high = high

    def assign(self, places: Sequence[TopicPartition]) -> None:
        pass

    incremental_assign = assign

    def consume(self, count: int, timeout: float) -> list[Message]:
        found, self._messages = self._messages, []
        return found

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        return 0, self._high

    def commit(self, **_: Any) -> None:
        pass


def record(offset: int) -> Message:
    return Message(topic="signals", partition=0, offset=offset, key=b"", value=b"{}")


def end(offset: int) -> Message:
    return Message(topic="signals", partition=0, offset=offset, error=KafkaError(KafkaError._PARTITION_EOF))


def reading(messages: Sequence[Message], high: int) -> Partition:
    """A partition that reads from the beginning."""
    hub = ConsumerHub(KafkaSettings(), "g", 16, Rests(epoch_s=60))
    hub._consumer = Consumer(messages, high)  # type: ignore[assignment]
    state = (0, {}, 10_000)
    return Partition(hub, "signals", 0, state, threading.Event(), None, lambda: True, dict)


def rounds(part: Partition, count: int) -> list[list[str | int]]:
    """What is handed over, round by round: how many records, or that it has caught up."""
    found: list[list[str | int]] = []
    for _ in range(count):
        batch = [one for one in part.next_batch() if isinstance(one, (RecordBatch, CaughtUp))]
        found.append([len(one.messages) if isinstance(one, RecordBatch) else "caught up" for one in batch])
    return found


@pytest.mark.parametrize("high", [40, 45])
def test_a_partition_has_caught_up_when_the_last_record_is_handed_over(high: int) -> None:
    """That the end was seen says nothing while records before it wait for their round, behind a transaction too."""
    part = reading([*map(record, range(40)), end(40)], high)
    assert rounds(part, 4) == [[16], [16], [8, "caught up"], []]


def test_a_partition_without_records_has_caught_up_at_its_end() -> None:
    """Nothing is waited for where there is nothing."""
    assert rounds(reading([end(0)], 0), 2) == [["caught up"], []]


def test_an_epoch_is_learned_from_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many partitions notice that it is saved: else what they rested would add up."""
    hub, learned = ConsumerHub(KafkaSettings(), "g", 16, Rests(epoch_s=60)), []
    monkeypatch.setattr(hub.rests, "saved", learned.append)
    hub._consumer = Consumer([], 0)  # type: ignore[assignment]
    parts = [
        Partition(hub, "signals", number, (0, {}, 10_000), threading.Event(), None, lambda: True, dict)
        for number in range(3)
    ]
    for epoch in (1, 2):
        for part in parts:
            part.snapshot()
        for part in parts:
            part.next_batch()
            part.snapshot()  # the next epoch is due already
        for part in parts:
            part.next_batch()
        assert len(learned) == 2 * epoch
