"""A crash in the middle of the replay that an earlier crash made necessary, played step by step against the sink."""

import pytest

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.reader import KafkaReader
from connectors.kafka.sink import KafkaSink
from schemas.signal import decode, encode, new_signal
from signalbox.ports import Outgoing
from tests.support.kafka import BrokerUnderTest

pytestmark = pytest.mark.kafka


def _outgoing(name: str) -> Outgoing:
    signal = new_signal("demo.out", source="agent/test", subject="s", id=name)
    return Outgoing("results", "s", name, signal.type, encode(signal))


class _Log:
    """One topic of one partition, written by one run of the sink after another."""

    def __init__(self, broker: BrokerUnderTest, prefix: str) -> None:
        self._settings = broker.settings(prefix, partitions=1)
        self._topic = f"{prefix}results"
        KafkaAdmin(self._settings).ensure_topics([self._topic], partitions=1, replication=1)

    def run(self, state: object, *written: str) -> object:
        """Resume from `state`, write, and snapshot. What becomes of the returned state is the engine's affair."""
        sink = KafkaSink(self._settings, starts={("results", 0): 0})
        (name,) = sink.list_parts()
        part = sink.build_part("write", name, state)  # type: ignore[arg-type]  # its own earlier state
        part.write_batch([[_outgoing(one) for one in written]])
        state = part.snapshot()
        part.close()
        return state

    def ids(self) -> list[str]:
        records = KafkaReader(self._settings).read([self._topic], start="start", follow=False, timeout_s=30)
        return [decode(record.value).id for record in records]


def test_what_a_replay_has_not_reached_yet_is_still_known_after_a_second_crash(
    kafka: BrokerUnderTest, topic_prefix: str
) -> None:
    """A snapshot taken in the middle of a replay remembers which records the first run had written beyond it."""
    log = _Log(kafka, topic_prefix)
    saved = log.run(None, "a")
    log.run(saved, "b", "c")  # crashes before its snapshot is committed
    saved = log.run(saved, "new", "b")  # commits in the middle of the replay, and crashes
    log.run(saved, "c", "last")
    assert log.ids() == ["a", "b", "c", "new", "last"]
