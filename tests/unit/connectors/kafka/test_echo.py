"""What a partition hands over when some of its records come from acknowledgements and some from the consumer."""

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from unittest.mock import patch

from confluent_kafka import KafkaError, Message, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka import hub as hub_module
from connectors.kafka.echo import Echo
from connectors.kafka.hub import ConsumerHub
from connectors.kafka.rests import Rests
from connectors.kafka.source import Partition, RecordBatch
from signalbox.config import KafkaSettings

TOPIC = "effects"


class Log:
    """A topic with one partition, and the consumer of a process that also writes there."""

    def __init__(self) -> None:
        self.now = 100.0
        self.end = 0
        self.unacknowledged: list[int] = []
        self.fetched_from: int | None = None
        self._told_end: int | None = None
        self.echo = Echo(TOPIC)
        hub = ConsumerHub(KafkaSettings(), "g", 16, Rests(epoch_s=60), self.echo)
        hub._consumer = self  # type: ignore[assignment]
        self.part = Partition(hub, TOPIC, 0, (0, {}, 10_000), threading.Event(), None, lambda: True, dict)

    # As a consumer.

    def assign(self, places: Sequence[TopicPartition]) -> None:
        assert self.fetched_from is None, "it is assigned once"
        (place,) = places
        self.fetched_from, self._told_end = place.offset, None

    incremental_assign = assign

    def incremental_unassign(self, places: Sequence[TopicPartition]) -> None:
        assert self.fetched_from is not None, "it was assigned"
        self.fetched_from = None

    def consume(self, count: int, timeout: float) -> list[Message]:
        if self.fetched_from is None:
            return []
        stop = min(self.end, self.fetched_from + count)
        found = [_record(offset) for offset in range(self.fetched_from, stop)]
        self.fetched_from = stop
        if stop == self.end != self._told_end:
            self._told_end = stop
            found.append(Message(topic=TOPIC, partition=0, offset=stop, error=KafkaError(KafkaError._PARTITION_EOF)))
        return found

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        return 0, self.end

    def commit(self, **_: object) -> None:
        pass

    # As whoever writes.

    def write(self, *, own: bool) -> None:
        if own:
            self.unacknowledged.append(self.end)
        self.end += 1

    def acknowledge(self, index: int) -> None:
        """One of the process's clients hears that its record is there; they hear in no certain order."""
        if self.unacknowledged:
            self.echo.heard(_record(self.unacknowledged.pop(index % len(self.unacknowledged))))

    def handed(self) -> list[int]:
        """The offsets that the partition hands over in a round."""
        with patch.object(hub_module, "time", SimpleNamespace(monotonic=lambda: self.now)):
            batches = [one for one in self.part.next_batch() if isinstance(one, RecordBatch)]
        self.now += 0.01
        return [one.offset() or 0 for batch in batches for one in batch.messages]


def _record(offset: int) -> Message:
    return Message(topic=TOPIC, partition=0, offset=offset, key=b"", value=b"{}")


_STEPS = st.one_of(st.sampled_from(["own", "other", "round", "later"]), st.integers(min_value=0, max_value=3))


@given(st.lists(_STEPS, max_size=80))
def test_each_record_is_handed_over_once_and_in_order(steps: list[str | int]) -> None:
    """Whoever wrote it, and whether its acknowledgement or the consumer is sooner."""
    log = Log()
    found: list[int] = []
    for step in steps:
        if step == "own":
            log.write(own=True)
        elif step == "other":
            log.write(own=False)
        elif step == "later":
            log.now += 0.6
        elif isinstance(step, int):
            log.acknowledge(step)
        else:
            found += log.handed()
    while log.unacknowledged:
        log.acknowledge(0)
    for _ in range(100):
        found += log.handed()
    assert found == list(range(log.end))


def _quiet() -> Log:
    """One whose partition has handed over a first record, and is not fetched any more."""
    log = Log()
    log.write(own=False)
    assert [one for _ in range(3) for one in log.handed()] == [0]
    log.write(own=False)
    assert [one for _ in range(3) for one in log.handed()] == [1]
    assert log.fetched_from is None
    return log


def test_own_records_come_without_being_fetched() -> None:
    """Their acknowledgements are enough."""
    log = _quiet()
    log.now += 0.1
    for _ in range(3):
        log.write(own=True)
        log.acknowledge(0)
    assert log.handed() == [2, 3, 4]
    assert log.fetched_from is None


def test_what_others_write_comes_within_a_second() -> None:
    """A partition that only the process itself writes to is looked at all the same."""
    log = _quiet()
    log.write(own=False)
    began = log.now
    while not log.handed():
        assert log.now < began + 1


def test_records_of_partitions_that_are_not_read_here_are_not_kept() -> None:
    """Else they would pile up."""
    echo = Echo(TOPIC)
    echo.listen(1)
    echo.heard(Message(topic=TOPIC, partition=0, offset=0, key=b"", value=b"{}"))
    echo.heard(Message(topic=TOPIC, partition=1, offset=0, key=b"", value=b"{}"))
    assert len(echo.take(1, 0)) == 1
    echo.ignore(1)
    echo.listen(0)
    assert echo.take(0, 0) == []
