"""The sink by itself on Apache Kafka: what it leaves out after a crash, what it does not, and what its place means."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from connectors.kafka import sink as sink_module
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.reader import KafkaReader
from connectors.kafka.sink import PULSE, KafkaSink
from schemas.signal import encode, new_signal
from signalbox.config import KafkaSettings
from signalbox.errors import Unreachable
from signalbox.ids import derived_id
from signalbox.ports import Outgoing
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest

pytestmark = pytest.mark.kafka
TOPIC = "results"
START = {(TOPIC, 0): 0}


def record(name: str) -> Outgoing:
    """A record with a derived id that follows from its name."""
    id_ = derived_id(name, "test", 1)
    return Outgoing(TOPIC, name, id_, "test.made", encode(new_signal("test.made", name, source="test", id=id_)))


class Topic:
    """One topic with one partition, and runs of a sink on it."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.name = settings.topic_prefix + TOPIC
        self.parts: list[Any] = []
        KafkaAdmin(settings).ensure_topics([self.name], partitions=1, replication=1)

    def run(self, resume: int | None = None, caught_up: Callable[[], bool] = lambda: True) -> Any:
        """A partition of the sink as a new process builds it."""
        part = KafkaSink(self.settings, starts=START, caught_up=caught_up).build_part("write", f"{TOPIC}-0", resume)
        self.parts.append(part)
        return part

    def names(self) -> list[str]:
        """The names of all records, in order; `?` for what is no signal."""
        reader = KafkaReader(self.settings)
        found = reader.read([self.name], start="start", follow=False, timeout_s=20)
        return [one.key.decode() if one.key else "?" for one in found]

    def add_foreign(self, key: str, headers: list[tuple[str, Any]]) -> None:
        """What somebody else writes into the same topic."""
        producer = Producer({"bootstrap.servers": self.settings.bootstrap})
        producer.produce(self.name, b"{}", key, headers=headers)
        assert producer.flush(10) == 0


@pytest.fixture
def topic(kafka: BrokerUnderTest, topic_prefix: str) -> Iterator[Topic]:
    made = Topic(kafka.settings(topic_prefix))
    yield made
    for part in made.parts:
        part._hub.failure = None
        part._hub.flush()


def test_a_snapshot_lies_behind_everything_written(topic: Topic) -> None:
    """`snapshot` returns when every record is acknowledged, with the offset behind the last of them."""
    part = topic.run()
    assert part.snapshot() == 0
    part.write_batch([[record("a"), record("b")], [record("c")]])
    assert part.snapshot() == 3
    assert topic.names() == ["a", "b", "c"]
    part.close()


def test_a_snapshot_waits_for_telemetry_too(topic: Topic) -> None:
    """Records that are written in their own time are acknowledged when `snapshot` returns, as all others."""
    KafkaAdmin(topic.settings).ensure_topics([f"{topic.settings.topic_prefix}telemetry"], partitions=1, replication=1)
    part = KafkaSink(topic.settings, starts={("telemetry", 0): 0}).build_part("write", "telemetry-0", None)
    part.write_batch([[record("a")]])
    assert part.snapshot() == 1
    part.close()


def test_what_a_crashed_run_wrote_is_left_out_once(topic: Topic) -> None:
    """Of the work repeated after a crash, exactly what is on the broker already is left out, in any order."""
    first = topic.run()
    first.write_batch([[record("a"), record("b")]])
    saved = first.snapshot()
    first.write_batch([[record("c"), record("d"), record("c")]])
    first.snapshot()  # on the broker, and then the process dies before this is saved
    second = topic.run(saved)
    second.write_batch([[record("d"), record("e"), record("c")], [record("f"), record("c"), record("c")]])
    second.snapshot()
    assert Counter(topic.names()) == Counter("abcdcefc")
    assert topic.names()[:5] == ["a", "b", "c", "d", "c"]
    assert second._hub.skipped == Counter({TOPIC: 3})


def test_without_a_snapshot_reading_back_begins_at_the_recorded_start(topic: Topic) -> None:
    """A partition that was never saved is read back from where the data directory began."""
    first = topic.run()
    first.write_batch([[record("a"), record("b")]])
    first.snapshot()
    second = topic.run(None)
    second.write_batch([[record("a"), record("b"), record("c")]])
    second.snapshot()
    assert topic.names() == ["a", "b", "c"]


def test_a_crash_during_the_repetition_doubles_nothing(topic: Topic) -> None:
    """A place saved while repeated work is still to come lies in front of it, so another crash leaves it out too."""
    first = topic.run()
    first.write_batch([[record("a"), record("b"), record("c")]])
    first.snapshot()
    second = topic.run(0)
    second.write_batch([[record("a"), record("new")]])
    saved = second.snapshot()
    assert saved == 1
    third = topic.run(saved)
    third.write_batch([[record("b"), record("c"), record("newer")]])
    assert third.snapshot() == 3  # in front of "new", which another run after this one might still repeat
    assert topic.names() == ["a", "b", "c", "new", "newer"]


def test_the_place_does_not_wait_for_ever(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read back and does not come again holds the place back only for a while."""
    first = topic.run()
    first.write_batch([[record("only once")]])
    first.snapshot()
    monkeypatch.setattr(sink_module, "_REPEATED_WITHIN_S", 0.0)
    second = topic.run(0)
    second.write_batch([[record("other")]])
    assert second.snapshot() == 2


def test_the_place_waits_as_long_as_input_is_repeated(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the repetition takes, a second crash in it doubles nothing: its end counts, and not the time."""
    monkeypatch.setattr(sink_module, "_REPEATED_WITHIN_S", 0.0)
    first = topic.run()
    first.write_batch([[record("a"), record("b"), record("c")]])
    first.snapshot()
    repeated = threading.Event()
    second = topic.run(0, repeated.is_set)
    second.write_batch([[record("a"), record("new")]])
    saved = second.snapshot()
    assert saved == 1
    third = topic.run(saved, repeated.is_set)
    third.write_batch([[record("b"), record("c"), record("newer")]])
    assert third.snapshot() == 3
    assert topic.names() == ["a", "b", "c", "new", "newer"]
    repeated.set()
    assert third.snapshot() == 5


@pytest.mark.parametrize(
    "headers",
    [[], [("ce_id", None)], [("ce_id", b"\xff\xfe")], [("ce_id", "x"), ("ce_id", "y")], [("other", b"\x00")]],
)
def test_records_of_others_are_read_over(topic: Topic, headers: list[tuple[str, Any]]) -> None:
    """What others write to the topic, with whatever headers, neither disturbs reading back nor is taken for ours."""
    first = topic.run()
    first.write_batch([[record("a")]])
    saved = first.snapshot()
    topic.add_foreign("foreign", headers)
    first.write_batch([[record("b")]])
    first.snapshot()
    topic.add_foreign("foreign", headers)
    second = topic.run(saved)
    second.write_batch([[record("b"), record("c")]])
    second.snapshot()
    assert topic.names() == ["a", "foreign", "b", "foreign", "c"]


def test_a_pulse_moves_the_place_of_a_partition_that_writes_nothing(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulses let an idle partition follow the end of its topic, so that little is read back after a crash."""
    monkeypatch.setattr(sink_module, "_LOOK_EVERY_S", 0.0)
    part = topic.run()
    for _ in range(5):
        topic.add_foreign("foreign", [])

    def moved() -> bool:
        part.write_batch([PULSE])
        return bool(part.snapshot() == 5)

    eventually(moved)


def test_a_record_that_the_broker_refuses_stops_the_flow(topic: Topic) -> None:
    """A record that cannot be written is never passed over: the snapshot fails, and the work is repeated later."""
    part = topic.run()
    large = record("a")._replace(value=b"x" * 4_300_000)

    def write_and_save() -> None:
        part.write_batch([[large]])
        part.snapshot()

    with pytest.raises(Exception, match=r"(?i)too large|size"):
        write_and_save()


def test_a_failed_delivery_fails_every_later_snapshot(topic: Topic) -> None:
    """After one refused record no snapshot succeeds any more, so nothing behind it is taken as written."""
    part = topic.run()
    part._hub.flush()
    part._hub.failure = _Refusal()
    for _ in range(2):
        with pytest.raises(Unreachable, match="refused a record: no room"):
            part.snapshot()


class _Refusal:
    def str(self) -> str:
        return "no room"
