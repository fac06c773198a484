"""What publisher, reader and admin promise, on every broker that we support."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.client import producer_config
from connectors.kafka.publisher import KafkaPublisher
from connectors.kafka.reader import KafkaReader
from schemas.signal import Signal, decode, new_signal
from signalbox import plugins
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, DeadlineExceeded, NotFound, SignalboxError, UsageError
from signalbox.ports import Record
from tests.support.kafka import BrokerUnderTest

PARTITIONS = 4


@pytest.fixture
def settings(any_broker: BrokerUnderTest, topic_prefix: str) -> KafkaSettings:
    return any_broker.settings(topic_prefix)


@pytest.fixture
def admin(settings: KafkaSettings) -> KafkaAdmin:
    return KafkaAdmin(settings)


@pytest.fixture
def topic(admin: KafkaAdmin, topic_prefix: str) -> str:
    name = f"{topic_prefix}signals"
    admin.ensure_topics([name], partitions=PARTITIONS, replication=1)
    return name


def make_signals(count: int, *, subjects: int = 7) -> list[Signal[Any]]:
    return [new_signal("demo.tick", {"n": n}, source="test", subject=f"s{n % subjects}") for n in range(count)]


def publish(settings: KafkaSettings, topic: str, signals: Sequence[Signal[Any]]) -> None:
    publisher = KafkaPublisher(settings)
    for signal in signals:
        publisher.publish(topic, signal)
    publisher.flush(10)
    publisher.close()


def read_all(settings: KafkaSettings, *topics: str, start: str | datetime = "start") -> list[Record]:
    return list(KafkaReader(settings).read(topics, start=start, follow=False, timeout_s=20))


def produce_batches(
    settings: KafkaSettings,
    topic: str,
    timestamps_ms: Sequence[int],
    *,
    batch: int,
    partition: int = 0,
    value: bytes = b"raw",
) -> None:
    """Write raw records to one partition, in batches of that many."""
    producer = Producer(producer_config(settings, **{"linger.ms": 50}))
    for number, timestamp in enumerate(timestamps_ms, start=1):
        producer.produce(topic, value, partition=partition, timestamp=timestamp)
        if number % batch == 0:
            producer.flush(10)
    assert producer.flush(10) == 0


class TestPublisher:
    def test_what_was_flushed_is_read_back_whole(self, settings: KafkaSettings, topic: str) -> None:
        """Every flushed signal is on the topic once, with its key and the headers of the CloudEvents binding."""
        signals = make_signals(500)
        publish(settings, topic, signals)
        records = read_all(settings, topic)
        assert sorted(decode(record.value).id for record in records) == sorted(signal.id for signal in signals)
        record = records[0]
        signal = decode(record.value)
        assert record.key == signal.key.encode()
        assert dict(record.headers) == {
            "ce_id": signal.id.encode(),
            "ce_type": b"demo.tick",
            "content-type": b"application/cloudevents+json",
        }
        assert record.timestamp is not None
        assert abs(record.timestamp - datetime.now(UTC)) < timedelta(minutes=1)

    def test_signals_of_one_subject_keep_their_order(self, settings: KafkaSettings, topic: str) -> None:
        """Signals with the same subject share a partition and stay in the order they were published in."""
        publish(settings, topic, make_signals(400, subjects=5))
        by_subject: dict[str, list[Record]] = {}
        for record in read_all(settings, topic):
            by_subject.setdefault(decode(record.value).key, []).append(record)
        assert len(by_subject) == 5
        for records in by_subject.values():
            assert len({record.partition for record in records}) == 1
            numbers = [decode(record.value).data["n"] for record in records]
            assert numbers == sorted(numbers)

    def test_keys_go_where_java_clients_put_them(self, settings: KafkaSettings, topic: str) -> None:
        """The partition of a key is murmur2 of it, so that Kafka Streams and others agree with us."""
        # Computed with org.apache.kafka.common.utils.Utils: toPositive(murmur2(key)) % 4.
        expected = {"a": 0, "host-1": 1, "system_monitor": 3, "été": 1}
        publish(settings, topic, [new_signal("demo.tick", source="test", subject=key) for key in expected])
        placed = {(record.key or b"").decode(): record.partition for record in read_all(settings, topic)}
        assert placed == expected

    def test_flush_of_nothing_returns_at_once(self, settings: KafkaSettings) -> None:
        """A publisher that published nothing has nothing to wait for, and closes."""
        publisher = KafkaPublisher(settings)
        publisher.flush(0)
        publisher.close()

    def test_a_raw_record_arrives_as_it_is(self, settings: KafkaSettings, topic: str) -> None:
        """Key, value and headers of a raw record are not touched, even where they are missing."""
        publisher = KafkaPublisher(settings)
        publisher.publish_raw(topic, None, b"\xff\x00not json", [("origin", b"x"), ("empty", None)])
        publisher.publish_raw(topic, b"k", None, [])
        publisher.flush(10)
        publisher.close()
        found = {(record.key, record.value, record.headers) for record in read_all(settings, topic)}
        assert found == {(None, b"\xff\x00not json", (("origin", b"x"), ("empty", None))), (b"k", None, ())}

    def test_a_signal_beyond_any_limit_is_refused_at_once(self, settings: KafkaSettings, topic: str) -> None:
        """A signal larger than any record may be raises when published, and the next one is delivered."""
        publisher = KafkaPublisher(settings)
        with pytest.raises(SignalboxError, match="too large"):
            publisher.publish(topic, new_signal("demo.tick", "x" * 5_000_000, source="test"))
        publisher.publish(topic, new_signal("demo.tick", source="test"))
        publisher.flush(10)
        publisher.close()
        assert len(read_all(settings, topic)) == 1


class TestReader:
    def test_without_follow_it_ends_at_the_end_of_every_partition(self, settings: KafkaSettings, topic: str) -> None:
        """Empty and filled partitions alike end the reading; each record is yielded once."""
        produce_batches(settings, topic, [1_000 + n for n in range(300)], batch=100)
        records = read_all(settings, topic)
        assert [(record.partition, record.offset) for record in records] == [(0, offset) for offset in range(300)]

    def test_an_empty_topic_yields_nothing(self, settings: KafkaSettings, topic: str) -> None:
        """Reading a topic without records ends at once."""
        begin = time.monotonic()
        assert read_all(settings, topic) == []
        assert time.monotonic() - begin < 5

    def test_records_written_after_the_beginning_are_left_out(self, settings: KafkaSettings, topic: str) -> None:
        """The end is settled when `read` is called, also where new records arrive before the old ones are all read."""
        produce_batches(settings, topic, [1_000] * 40, batch=1, value=b"x" * 50_000)
        produce_batches(settings, topic, [1_000], batch=1, partition=1)
        # So small a queue that partition 0 needs many requests, in which partition 1 takes its turn.
        small = {"queued.max.messages.kbytes": 256, "fetch.message.max.bytes": 100_000}
        reader = KafkaReader(settings.model_copy(update={"client": small}))
        records = reader.read([topic], start="start", follow=False, timeout_s=20)
        produce_batches(settings, topic, [1_000] * 5, batch=5, partition=1)
        assert Counter(record.partition for record in records) == {0: 40, 1: 1}

    def test_now_begins_at_the_true_end(self, settings: KafkaSettings, topic: str) -> None:
        """From "now" not one of the records that were there is yielded, and the very next one is."""
        produce_batches(settings, topic, [1_000] * 300, batch=100)
        records = KafkaReader(settings).read([topic], start="now", follow=True, timeout_s=20)
        publish(settings, topic, [expected := new_signal("demo.tick", source="test", subject="late")])
        assert decode(next(records).value).id == expected.id
        records.close()  # type: ignore[attr-defined]  # it is a generator

    def test_a_time_begins_with_the_first_record_of_that_time(self, settings: KafkaSettings, topic: str) -> None:
        """Records before the time are left out, also when the time lies within a batch or within a millisecond."""
        base = int(datetime.now(UTC).timestamp() * 1000) - 60_000
        produce_batches(settings, topic, [base + 10 * n for n in range(100)], batch=25)
        for first in (0, 1, 24, 25, 60, 99):
            start = datetime.fromtimestamp((base + 10 * first) / 1000, UTC)
            records = read_all(settings, topic, start=start - timedelta(microseconds=300))
            assert [record.offset for record in records] == list(range(first, 100)), first

    def test_a_time_to_come_yields_nothing(self, settings: KafkaSettings, topic: str) -> None:
        """A time after the last record leaves all of them out."""
        publish(settings, topic, make_signals(50))
        assert read_all(settings, topic, start=datetime.now(UTC) + timedelta(hours=1)) == []

    def test_following_from_a_time_to_come_waits_for_it(self, settings: KafkaSettings, topic: str) -> None:
        """Records of an earlier time that arrive meanwhile are left out; the first of that time is yielded."""
        start = datetime.now(UTC) + timedelta(minutes=5)
        records = KafkaReader(settings).read([topic], start=start, follow=True, timeout_s=20)
        at = int(start.timestamp() * 1000)
        produce_batches(settings, topic, [at - 10_000, at - 1, at + 1], batch=1)
        assert next(records).offset == 2
        records.close()  # type: ignore[attr-defined]

    def test_following_ends_when_the_time_is_up(self, settings: KafkaSettings, topic: str) -> None:
        """A followed reading yields what is there, and ends quietly at its deadline."""
        publish(settings, topic, make_signals(5))
        begin = time.monotonic()
        assert len(list(KafkaReader(settings).read([topic], start="start", follow=True, timeout_s=1))) == 5
        assert 0.9 < time.monotonic() - begin < 5

    def test_following_ends_when_it_is_told_to_stop(self, settings: KafkaSettings, topic: str) -> None:
        """A followed reading without a deadline ends soon after `stop` turns true."""
        stop = threading.Event()
        records = KafkaReader(settings).read([topic], start="start", follow=True, timeout_s=None, stop=stop.is_set)
        reading = threading.Thread(target=list, args=(records,))
        reading.start()
        stop.set()
        reading.join(5)
        assert not reading.is_alive()

    @pytest.mark.parametrize("count", [0, 1, 200])
    def test_it_tells_when_it_has_caught_up(self, settings: KafkaSettings, topic: str, count: int) -> None:
        """`caught_up` is called once, after what was on the topic when reading began and before what came later."""
        publish(settings, topic, make_signals(count))
        told: list[str] = []
        records = KafkaReader(settings).read(
            [topic], start="start", follow=True, timeout_s=15, caught_up=lambda: told.append("caught up")
        )
        for _ in range(count):
            next(records)
            told.append("old")
        publish(settings, topic, make_signals(3))
        for _ in range(3):
            next(records)
            told.append("new")
        records.close()  # type: ignore[attr-defined]
        assert told == ["old"] * count + ["caught up"] + ["new"] * 3

    def test_without_follow_it_has_caught_up_at_the_end(self, settings: KafkaSettings, topic: str) -> None:
        """A reading that ends by itself tells so as well, once."""
        publish(settings, topic, make_signals(20))
        told: list[bool] = []
        reader = KafkaReader(settings)
        read = reader.read([topic], start="start", follow=False, timeout_s=20, caught_up=lambda: told.append(True))
        assert (len(list(read)), told) == (20, [True])

    def test_without_follow_a_deadline_is_an_error(self, settings: KafkaSettings, topic: str) -> None:
        """A reading that may not take its time does not pass for a whole one."""
        publish(settings, topic, make_signals(5))
        records = KafkaReader(settings).read([topic], start="start", follow=False, timeout_s=0)
        with pytest.raises(DeadlineExceeded):
            list(records)

    def test_several_topics_are_read_together(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """Records of all named topics are yielded, each with the name of its own."""
        names = [f"{settings.topic_prefix}{name}" for name in ("alerts", "results")]
        admin.ensure_topics(names, partitions=2, replication=1)
        for count, name in enumerate(names, start=1):
            publish(settings, name, make_signals(count))
        assert sorted(record.topic for record in read_all(settings, *names)) == [names[0], names[1], names[1]]

    def test_an_unknown_topic_is_not_found(self, settings: KafkaSettings, topic: str, admin: KafkaAdmin) -> None:
        """An unknown topic raises with the names like it, and is not created by asking."""
        with pytest.raises(NotFound) as caught:
            KafkaReader(settings).read([f"{topic}x"], start="start", follow=False, timeout_s=5)
        assert topic in (caught.value.hint or "")
        assert f"{topic}x" not in {known.name for known in admin.topics()}

    def test_a_start_that_means_nothing_is_refused(self, settings: KafkaSettings, topic: str) -> None:
        """A misspelt start and a time without a zone raise before anything is read."""
        for start in ("yesterday", datetime(2026, 1, 1)):  # noqa: DTZ001 - it is what is refused
            with pytest.raises(UsageError):
                KafkaReader(settings).read([topic], start=start, follow=False, timeout_s=5)


class TestAdmin:
    def test_ends_are_the_next_offsets(self, settings: KafkaSettings, admin: KafkaAdmin, topic: str) -> None:
        """A topic's end offsets are right after batches of many records, and zero for empty partitions."""
        produce_batches(settings, topic, [1_000] * 730, batch=100)
        info = next(info for info in admin.topics() if info.name == topic)
        assert info.partitions == PARTITIONS
        assert dict(info.end_offsets) == {0: 730, 1: 0, 2: 0, 3: 0}

    def test_internal_topics_are_not_listed(self, settings: KafkaSettings, admin: KafkaAdmin, topic: str) -> None:
        """The broker's own topics are left out, and the rest comes by name."""
        commit(settings, "group", TopicPartition(topic, 0, 0))
        names = [info.name for info in admin.topics()]
        assert topic in names
        assert names == sorted(names)
        assert not [name for name in names if name.startswith("__")]

    def test_topics_are_created_once(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """Missing topics are created and named; existing ones stay as they are, also with other partitions."""
        a, b = (f"{settings.topic_prefix}{name}" for name in ("a", "b"))
        assert admin.ensure_topics([a], partitions=2, replication=1) == [a]
        assert admin.ensure_topics([a, b, b], partitions=3, replication=1) == [b]
        assert admin.ensure_topics([a, b], partitions=5, replication=1) == []
        assert {i.name: i.partitions for i in admin.topics() if i.name in (a, b)} == {a: 2, b: 3}

    def test_a_race_to_create_is_no_error(self, settings: KafkaSettings) -> None:
        """When several nodes create the same topics at once, one creates each, and all can use them."""
        names = [f"{settings.topic_prefix}{n}" for n in range(6)]
        created: list[str] = []
        failures: list[BaseException] = []

        def create() -> None:
            try:
                created.extend(KafkaAdmin(settings).ensure_topics(names, partitions=2, replication=1))
                publish(settings, names[-1], make_signals(1))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(created) == names
        assert len(read_all(settings, names[-1])) == 4

    def test_some_topics_are_shaped_for_their_use(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """The registry is compacted and dead letters may be large, whatever the prefix; others are the broker's own."""
        registry, letters, other = (
            f"{settings.topic_prefix}{name}" for name in ("registry", "dead-letters", "signals")
        )
        admin.ensure_topics([registry, letters, other], partitions=1, replication=1)
        sizes = admin.max_message_bytes([letters, other, f"{settings.topic_prefix}unknown"])
        assert sizes[letters] == 4_194_304
        assert sizes[other] >= 1_000_000
        assert sizes[f"{settings.topic_prefix}unknown"] == 1_000_000
        assert topic_setting(settings, registry, "cleanup.policy") == "compact"
        assert topic_setting(settings, letters, "cleanup.policy") != "compact"

    def test_a_setting_of_a_topic_is_told(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """A setting is given as the broker has it; of what it does not know there is none."""
        registry = f"{settings.topic_prefix}registry"
        admin.ensure_topics([registry], partitions=1, replication=1)
        assert admin.topic_setting(registry, "cleanup.policy") == "compact"
        assert admin.topic_setting(registry, "segment.ms") == "3600000"
        assert admin.topic_setting(registry, "no.such.setting") is None
        assert admin.topic_setting(f"{settings.topic_prefix}unknown", "cleanup.policy") is None

    def test_an_existing_registry_is_taken_as_it_is(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """A topic that somebody made otherwise is not changed."""
        registry = f"{settings.topic_prefix}registry"
        new = NewTopic(registry, num_partitions=1, replication_factor=1, config={"cleanup.policy": "delete"})
        client = AdminClient({"bootstrap.servers": settings.bootstrap})
        client.create_topics([new])[registry].result()
        assert admin.ensure_topics([registry], partitions=1, replication=1) == []
        assert admin.topic_setting(registry, "cleanup.policy") == "delete"

    def test_a_large_dead_letter_is_delivered(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """A record of four megabytes goes to `dead-letters` and comes back whole."""
        letters = f"{settings.topic_prefix}dead-letters"
        admin.ensure_topics([letters], partitions=1, replication=1)
        publisher = KafkaPublisher(settings)
        value = b"x" * 4_000_000
        publisher.publish_raw(letters, b"k", value, [])
        publisher.flush(10)
        publisher.close()
        assert [record.value == value for record in read_all(settings, letters)] == [True]

    def test_lag_is_end_minus_position(self, settings: KafkaSettings, admin: KafkaAdmin, topic: str) -> None:
        """Each partition's lag counts from the mirrored position; it is unknown where nothing was mirrored."""
        produce_batches(settings, topic, [1_000] * 100, batch=100)
        group = f"{settings.topic_prefix}flow"
        assert [lag.records for lag in admin.lag(group, [topic])] == [None] * PARTITIONS
        commit(settings, group, TopicPartition(topic, 0, 70), TopicPartition(topic, 1, 0))
        lags = admin.lag(group, [topic])
        assert [(lag.partition, lag.position, lag.end, lag.records) for lag in lags] == [
            (0, 70, 100, 30),
            (1, 0, 0, 0),
            (2, None, 0, None),
            (3, None, 0, None),
        ]

    def test_no_topics_have_no_ends_and_no_lag(self, admin: KafkaAdmin) -> None:
        """Asking about nothing gives nothing, not an error."""
        assert admin.lag("group", []) == []
        assert admin.max_message_bytes([]) == {}
        assert admin.ensure_topics([], partitions=1, replication=1) == []

    def test_lag_of_an_unknown_topic_is_not_found(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """Asking for the lag on a topic that is not there says so."""
        with pytest.raises(NotFound, match="there is no topic"):
            admin.lag("group", [f"{settings.topic_prefix}nowhere"])

    def test_the_cluster_has_an_id(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        """The cluster id is not empty and the same for every client."""
        assert admin.cluster_id()
        assert admin.cluster_id() == KafkaAdmin(settings).cluster_id()


class TestClients:
    def test_the_core_finds_them(self, settings: KafkaSettings, topic: str) -> None:
        """The plugin loader hands out clients that work together."""
        publisher = plugins.publisher(settings)
        publisher.publish(topic, new_signal("demo.tick", source="test"))
        publisher.flush(10)
        publisher.close()
        (record,) = plugins.reader(settings).read([topic], start="start", follow=False, timeout_s=10)
        assert record.topic == topic
        assert plugins.admin(settings).lag("group", [topic])

    def test_a_client_setting_that_does_not_exist_is_a_config_error(
        self, any_broker: BrokerUnderTest, topic_prefix: str
    ) -> None:
        """A wrong key or value in `kafka.client` is named by every client."""
        for client in ({"no.such.setting": 1}, {"security.protocol": "carrier-pigeon"}):
            settings = any_broker.settings(topic_prefix, client=client)
            name = next(iter(client))
            with pytest.raises(ConfigError, match=name):
                KafkaAdmin(settings)
            with pytest.raises(ConfigError, match=name):
                KafkaReader(settings).read(["x"], start="now", follow=False, timeout_s=5)
            with pytest.raises(ConfigError, match=name):
                KafkaPublisher(settings)


def commit(settings: KafkaSettings, group: str, *positions: TopicPartition) -> None:
    """Mirror positions to a group, as a flow does."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": group, "log_level": 0})
    consumer.commit(offsets=list(positions), asynchronous=False)
    consumer.close()


def topic_setting(settings: KafkaSettings, topic: str, name: str) -> str | None:
    """One setting of a topic, as the broker has it."""
    client = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    (described,) = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    entry = described.result(10).get(name)
    return None if entry is None else entry.value
