"""Nodes tell of themselves on a real topic, and views of it agree, come back, and outlive the broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from connectors.brokers.apache import ApacheKafka
from connectors.brokers.embedded import EmbeddedBroker
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.publisher import KafkaPublisher
from connectors.kafka.reader import KafkaReader
from schemas.signal import Signal
from signalbox.clock import SystemClock
from signalbox.config import Settings
from signalbox.registry.query import Query
from signalbox.supervision.registry import Heartbeat, RegistryFeed
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest
from tests.support.registry import node_stopped, registered, stopped

PATIENCE_S = 60.0


def node_settings(bootstrap: str, name: str = "n1", prefix: str = "") -> Settings:
    return Settings.model_validate(
        {
            "node": {"name": name},
            "kafka": {"bootstrap": bootstrap, "topic_prefix": prefix},
            "registry": {"heartbeat_s": 0.2, "ttl_s": 1.5},
        }
    )


def make_topic(settings: Settings, *, partitions: int = 4) -> None:
    names = [settings.topic(name) for name in ("registry", "signals")]
    KafkaAdmin(settings.kafka).ensure_topics(names, partitions=partitions, replication=1)


def publish(settings: Settings, *signals: Signal[Any], deleted: str | None = None) -> None:
    publisher = KafkaPublisher(settings.kafka)
    for signal in signals:
        publisher.publish(settings.topic("registry"), signal)
    if deleted is not None:
        publisher.publish_raw(settings.topic("registry"), deleted.encode(), None, [])
    publisher.flush(10)
    publisher.close()


async def until(check: Callable[[], Any]) -> None:
    await asyncio.to_thread(eventually, check, timeout_s=PATIENCE_S)


@contextlib.asynccontextmanager
async def feeding(settings: Settings) -> AsyncIterator[RegistryFeed]:
    """A feed that follows the topic."""
    feed = RegistryFeed(settings, SystemClock())
    feed.release()
    try:
        yield feed
    finally:
        await feed.hold()


@contextlib.asynccontextmanager
async def beating(settings: Settings) -> AsyncIterator[Heartbeat]:
    """A node that tells that it lives; what ends with the context is as a process that was killed."""
    heartbeat = Heartbeat(settings, started_at=datetime.now(UTC), census=lambda: (1, 2))
    task = asyncio.create_task(heartbeat.run())
    heartbeat.release()
    try:
        yield heartbeat
    finally:
        task.cancel()
        await heartbeat.hold()


def statuses(feed: RegistryFeed) -> dict[str, str]:
    return {row["agent_id"]: row["status"] for row in feed.view.find(limit=1000)}


def nodes(feed: RegistryFeed) -> dict[str, str]:
    return {row["node"]: row["status"] for row in feed.view.nodes()}


def known(feed: RegistryFeed) -> list[dict[str, Any]]:
    """What a view knows, without what changes with time."""
    return [
        {name: value for name, value in row.items() if name not in ("age_s", "seen_s", "status")}
        for row in feed.view.find(limit=100_000)
    ]


def test_agents_of_a_lost_node_become_stale(any_broker: BrokerUnderTest, topic_prefix: str) -> None:
    """A view sees another node fall silent, come back and stop, and its agents with it; its own stay as they are."""

    async def scenario() -> None:
        one, two = (node_settings(any_broker.bootstrap, name, topic_prefix) for name in ("n1", "n2"))
        make_topic(one)
        publish(
            one, registered("a", node="n1"), registered("b", node="n2"), registered("c", node="n2", status="paused")
        )
        async with feeding(one) as feed, beating(one):
            async with beating(two):
                await until(lambda: statuses(feed) == {"a": "running", "b": "running", "c": "paused"})
            await until(lambda: statuses(feed) == {"a": "running", "b": "stale", "c": "stale"})
            [row] = feed.view.find(Query.parse("node=n2 and not type=x"), prefix="b", limit=9)
            assert row["seen_s"] > 1.5
            async with beating(two) as heartbeat:
                await until(lambda: statuses(feed) == {"a": "running", "b": "running", "c": "paused"})
                await heartbeat.end("drained")
                await until(lambda: nodes(feed) == {"n1": "running", "n2": "stopped"})
                assert statuses(feed) == {"a": "running", "b": "stale", "c": "stale"}

    asyncio.run(scenario())


def test_a_view_comes_back_as_it_was(any_broker: BrokerUnderTest, topic_prefix: str) -> None:
    """A node that starts again knows from the topic what it knew before, at once and completely."""

    async def scenario() -> None:
        settings = node_settings(any_broker.bootstrap, prefix=topic_prefix)
        make_topic(settings)
        agents = [
            registered(f"a:{n}", node=f"n{n % 3}", capabilities=[f"c{n % 5}"], metadata={"n": n}) for n in range(500)
        ]
        publish(settings, *agents, *(stopped(f"a:{n}") for n in range(0, 500, 7)), node_stopped("n2"))
        publish(settings, registered("a:0"), deleted="a:1")
        async with feeding(settings) as feed:
            await until(lambda: feed.view.complete)
            before = known(feed)
            assert nodes(feed) == {"n2": "stopped"}
        async with feeding(settings) as again:
            await until(lambda: again.view.complete)
            assert known(again) == before
        ids = {row["agent_id"] for row in before}
        assert ids == {f"a:{n}" for n in range(500) if n % 7 or n == 0} - {"a:1"}

    asyncio.run(scenario())


@pytest.mark.kafka
def test_the_topic_is_compacted(kafka: BrokerUnderTest, topic_prefix: str) -> None:
    """Apache Kafka keeps the registry by key, in segments that close every hour."""
    settings = node_settings(kafka.bootstrap, prefix=topic_prefix)
    make_topic(settings)
    admin = KafkaAdmin(settings.kafka)
    assert admin.topic_setting(settings.topic("registry"), "cleanup.policy") == "compact"
    assert admin.topic_setting(settings.topic("registry"), "segment.ms") == "3600000"


@pytest.mark.kafka
@pytest.mark.slow
def test_compaction_changes_no_view(kafka: BrokerUnderTest, topic_prefix: str) -> None:
    """When Kafka has removed what is out of date, a view made of the rest is the same, gaps in the offsets or not."""
    settings = node_settings(kafka.bootstrap, prefix=topic_prefix)
    make_topic(settings, partitions=1)
    topic = settings.topic("registry")
    hurry = {"segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "200"}
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in hurry.items()]
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for done in client.incremental_alter_configs(
        [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)]
    ).values():
        done.result()
    for version in ("1", "2", "3"):
        publish(settings, *(registered(f"a:{n}", version=version) for n in range(50)), stopped("a:7"))

    def remaining() -> int:
        publish(settings, registered("last"))  # closes the segment before
        records = list(KafkaReader(settings.kafka).read([topic], start="start", follow=False, timeout_s=20))
        return sum(record.key is not None and record.key.startswith(b"a:") for record in records)

    async def view() -> list[dict[str, Any]]:
        async with feeding(settings) as feed:
            await until(lambda: feed.view.complete)
            return known(feed)

    before = asyncio.run(view())
    eventually(lambda: remaining() == 50, timeout_s=PATIENCE_S, every_s=1.0)
    assert [row for row in asyncio.run(view()) if row["agent_id"] != "last"] == [
        row for row in before if row["agent_id"] != "last"
    ]
    assert {row["version"] for row in before if row["agent_id"] != "last"} == {"3"}


@pytest.mark.kafka
@pytest.mark.slow
def test_a_view_outlives_its_broker(own_kafka: ApacheKafka) -> None:
    """While Kafka is away the view stays and grows old; when it is back, both view and heartbeats go on."""

    async def scenario() -> None:
        bootstrap = await asyncio.to_thread(own_kafka.start)
        settings = node_settings(bootstrap)
        make_topic(settings)
        publish(settings, registered("a", node="n1"))
        async with feeding(settings) as feed, beating(settings):
            await until(lambda: statuses(feed) == {"a": "running"})
            view = feed.view
            own_kafka.kill()
            await until(lambda: view.summary()["age_s"] > 2)
            assert statuses(feed) == {"a": "stale"}
            await asyncio.to_thread(own_kafka.start, port=int(bootstrap.rpartition(":")[2]))
            await until(lambda: statuses(feed) == {"a": "running"} and feed.view.summary()["age_s"] < 1)

    asyncio.run(scenario())


def test_a_new_embedded_broker_has_a_new_registry(tmp_path: Path) -> None:
    """Held while an embedded broker is replaced, view and heartbeats begin anew on the topics that the node makes."""

    async def scenario() -> None:
        broker = EmbeddedBroker(tmp_path)
        bootstrap = await asyncio.to_thread(broker.start)
        settings = node_settings(bootstrap)
        make_topic(settings)
        publish(settings, registered("a", node="n1"))
        try:
            async with feeding(settings) as feed, beating(settings) as heartbeat:
                await until(lambda: statuses(feed) == {"a": "running"})
                broker.stop()
                await asyncio.gather(feed.hold(), heartbeat.hold())
                assert statuses(feed).keys() == {"a"}
                await asyncio.to_thread(broker.start, port=int(bootstrap.rpartition(":")[2]))
                make_topic(settings)
                publish(settings, registered("b", node="n1"))
                feed.release()
                heartbeat.release()
                await until(lambda: statuses(feed) == {"b": "running"})
                found = KafkaAdmin(settings.kafka).topics()
                assert {topic.name: topic.partitions for topic in found} == {"registry": 4, "signals": 4}
        finally:
            broker.stop()

    asyncio.run(scenario())
