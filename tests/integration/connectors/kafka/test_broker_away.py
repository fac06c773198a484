"""Clients of a broker that is down, frozen, restarted or not what it seems."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.brokers.embedded import EmbeddedBroker
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.publisher import KafkaPublisher
from connectors.kafka.reader import KafkaReader
from schemas.signal import decode, new_signal
from signalbox.config import KafkaSettings
from signalbox.errors import NotFound, Unreachable
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest, silent_port

TIMEOUT_S = 1.0


def read(settings: KafkaSettings, topic: str = "x") -> None:
    list(KafkaReader(settings, timeout_s=TIMEOUT_S).read([topic], start="start", follow=False, timeout_s=None))


def publish(settings: KafkaSettings, topic: str = "x", *, timeout_s: float = 10.0) -> None:
    publisher = KafkaPublisher(settings)
    publisher.publish(topic, new_signal("demo.tick", source="test"))
    publisher.flush(timeout_s)


def admin(settings: KafkaSettings) -> KafkaAdmin:
    return KafkaAdmin(settings, timeout_s=TIMEOUT_S)


CALLS: dict[str, Callable[[KafkaSettings], object]] = {
    "cluster_id": lambda settings: admin(settings).cluster_id(),
    "topics": lambda settings: admin(settings).topics(),
    "ensure_topics": lambda settings: admin(settings).ensure_topics(["x"], partitions=1, replication=1),
    "lag": lambda settings: admin(settings).lag("group", ["x"]),
    "max_message_bytes": lambda settings: admin(settings).max_message_bytes(["x"]),
    "read": read,
    "publish": lambda settings: publish(settings, timeout_s=TIMEOUT_S),
}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """An embedded broker to mistreat."""
    broker = EmbeddedBroker(tmp_path)
    yield broker
    broker.stop()


@pytest.mark.parametrize("call", CALLS)
def test_no_broker_is_unreachable_in_time(call: str) -> None:
    """With nobody at the address, every call raises in about its timeout, with the address and what to check."""
    settings = KafkaSettings(bootstrap=f"127.0.0.1:{silent_port()}")
    with within(5 * TIMEOUT_S), pytest.raises(Unreachable) as caught:
        CALLS[call](settings)
    assert settings.bootstrap in str(caught.value)
    assert "kafka.bootstrap" in (caught.value.hint or "")


def test_a_host_without_address_is_unreachable() -> None:
    """A name that does not resolve is reported as such."""
    with within(5 * TIMEOUT_S), pytest.raises(Unreachable, match=r"broker\.invalid:9092"):
        admin(KafkaSettings(bootstrap="broker.invalid:9092")).cluster_id()


@pytest.mark.parametrize("call", CALLS)
def test_a_frozen_broker_is_unreachable_in_time(call: str, broker: EmbeddedBroker) -> None:
    """A broker that accepts connections and never answers holds no call for longer than about its timeout."""
    settings = KafkaSettings(bootstrap=broker.start())
    admin(settings).ensure_topics(["x"], partitions=1, replication=1)
    process = psutil.Process(broker.pid)
    process.suspend()
    eventually(lambda: process.status() == psutil.STATUS_STOPPED)
    with within(6 * TIMEOUT_S), pytest.raises(Unreachable):
        CALLS[call](settings)


def test_a_broker_that_refuses_the_credentials_is_told_apart(any_broker: BrokerUnderTest) -> None:
    """When the broker refuses to authenticate us, the error says so, and does not show the password."""
    client = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}
    settings = any_broker.settings(client={**client, "sasl.username": "somebody", "sasl.password": "hunter2"})
    with within(5 * TIMEOUT_S), pytest.raises(Unreachable, match="refused this client") as caught:
        admin(settings).cluster_id()
    assert "sasl.*" in (caught.value.hint or "")
    assert "hunter2" not in str(caught.value)


def test_a_broker_that_does_not_speak_tls_is_unreachable(any_broker: BrokerUnderTest) -> None:
    """When the client's TLS gets no answer, the error comes in time and its hint covers that case."""
    with within(5 * TIMEOUT_S), pytest.raises(Unreachable) as caught:
        admin(any_broker.settings(client={"security.protocol": "ssl"})).cluster_id()
    assert "kafka.client" in (caught.value.hint or "")


def test_what_a_failed_flush_left_is_not_sent_later(broker: EmbeddedBroker) -> None:
    """After a flush that raised, the queue is empty: publishing again delivers the signal once."""
    settings = KafkaSettings(bootstrap=broker.start())
    admin(settings).ensure_topics(["x"], partitions=1, replication=1)
    publisher = KafkaPublisher(settings)
    publisher.publish("x", new_signal("demo.tick", source="test", id="before"))
    publisher.flush(10)
    bootstrap = settings.bootstrap
    broker.kill()
    publisher.publish("x", new_signal("demo.tick", source="test", id="lost"))
    with pytest.raises(Unreachable, match="deliver 1 signal"):
        publisher.flush(TIMEOUT_S)
    broker.start(port=int(bootstrap.rpartition(":")[2]))
    admin(settings).ensure_topics(["x"], partitions=1, replication=1)
    publisher.publish("x", new_signal("demo.tick", source="test", id="after"))
    publisher.flush(10)
    publisher.close()
    records = KafkaReader(settings).read(["x"], start="start", follow=False, timeout_s=10)
    assert [decode(record.value).id for record in records] == ["after"]


def test_a_queue_that_stays_full_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker the queue is bounded: once full, publishing raises after a while and counts what is queued."""
    monkeypatch.setattr("connectors.kafka.publisher._QUEUE_RECORDS", 10)
    monkeypatch.setattr("connectors.kafka.publisher._ROOM_TIMEOUT_S", 0.3)
    publisher = KafkaPublisher(KafkaSettings(bootstrap=f"127.0.0.1:{silent_port()}"))
    for _ in range(10):
        publisher.publish("x", new_signal("demo.tick", source="test"))
    with within(5), pytest.raises(Unreachable, match="10 signals"):
        publisher.publish("x", new_signal("demo.tick", source="test"))


def test_closing_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher with signals for a broker that is down closes without raising, and soon."""
    monkeypatch.setattr("connectors.kafka.publisher._CLOSE_TIMEOUT_S", 0.2)
    publisher = KafkaPublisher(KafkaSettings(bootstrap=f"127.0.0.1:{silent_port()}"))
    publisher.publish("x", new_signal("demo.tick", source="test"))
    with within(5):
        publisher.close()


def test_a_reading_does_not_wait_for_a_broker_that_went_away(broker: EmbeddedBroker) -> None:
    """When the broker dies before the end is reached, a reading without `follow` raises instead of ending short."""
    settings = KafkaSettings(bootstrap=broker.start())
    admin(settings).ensure_topics(["x"], partitions=1, replication=1)
    publish(settings)
    records = KafkaReader(settings, timeout_s=TIMEOUT_S).read(["x"], start="start", follow=False, timeout_s=None)
    broker.kill()
    with within(10), pytest.raises(Unreachable):
        list(records)


@pytest.mark.kafka
def test_publishing_to_a_topic_that_is_not_there_is_not_found(
    kafka: BrokerUnderTest, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apache Kafka creates no topics by itself: the flush says that it is missing, and how to see what is there."""
    monkeypatch.setattr("connectors.kafka.publisher._TOPIC_TIMEOUT_MS", 500)
    publisher = KafkaPublisher(kafka.settings(topic_prefix))
    publisher.publish(f"{topic_prefix}nowhere", new_signal("demo.tick", source="test"))
    with pytest.raises(NotFound) as caught:
        publisher.flush(20)
    assert "topic list" in (caught.value.hint or "")


@pytest.mark.kafka
def test_a_record_beyond_the_topics_limit_is_reported(kafka: BrokerUnderTest, topic_prefix: str) -> None:
    """A record that the broker refuses as too large fails the flush, and the publisher goes on with the next."""
    settings = kafka.settings(topic_prefix)
    name = f"{topic_prefix}small"
    client = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    client.create_topics([NewTopic(name, 1, 1, config={"max.message.bytes": "1000"})])[name].result(10)
    publisher = KafkaPublisher(settings)
    publisher.publish(name, new_signal("demo.tick", source="test", id="fits"))
    publisher.flush(10)
    publisher.publish_raw(name, None, b"x" * 2_000, [])
    with pytest.raises(Unreachable, match="too large"):
        publisher.flush(20)
    publisher.publish(name, new_signal("demo.tick", source="test", id="fits-too"))
    publisher.flush(10)
    publisher.close()
    records = KafkaReader(settings).read([name], start="start", follow=False, timeout_s=10)
    assert [decode(record.value).id for record in records] == ["fits", "fits-too"]
