"""A node's part in the registry, with a broker in memory: what it tells, and how its view outlives the broker."""

import asyncio
import queue
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.signal import Signal, encode
from signalbox.clock import VirtualClock
from signalbox.config import Settings
from signalbox.errors import Unreachable
from signalbox.ports import Record
from signalbox.supervision import follower
from signalbox.supervision.registry import Heartbeat, RegistryFeed
from signalbox.telemetry.metrics import REGISTRY_DROPPED
from tests.support.eventually import eventually
from tests.support.fakes import MemoryBroker, MemoryPublisher
from tests.support.registry import heartbeat, registered

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
Event = Signal[Any] | Exception | str


class ScriptedReader:
    """Follows a topic that a test writes, in runs: each call of `read` begins the next one."""

    def __init__(self, *runs: list[Event]) -> None:
        self.runs = list(runs)
        self.more: queue.SimpleQueue[Event] = queue.SimpleQueue()
        """What comes after the last run."""
        self.reads = 0

    def read(
        self, topics: list[str], *, stop: Callable[[], bool], caught_up: Callable[[], None], **how: Any
    ) -> Iterator[Record]:
        assert (topics, how) == (["p-registry"], {"start": "start", "follow": True, "timeout_s": None})
        self.reads += 1
        return self._records(self.runs.pop(0) if self.runs else None, stop, caught_up)

    def _records(
        self, run: list[Event] | None, stop: Callable[[], bool], caught_up: Callable[[], None]
    ) -> Iterator[Record]:
        offset = 0
        for event in self._following(stop) if run is None else run:
            if isinstance(event, Exception):
                raise event
            if event == "caught up":
                caught_up()
                continue
            if event == "begin anew":
                offset = 0
                continue
            assert not isinstance(event, str)
            yield Record(topic="p-registry", partition=0, offset=offset, key=event.key.encode(), value=encode(event))
            offset += 1

    def _following(self, stop: Callable[[], bool]) -> Iterator[Event]:
        while not stop():
            try:
                yield self.more.get(timeout=0.01)
            except queue.Empty:
                continue


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate(
        {
            "node": {"name": "n"},
            "kafka": {"topic_prefix": "p-"},
            "registry": {"heartbeat_s": 0.01},
            "resources": {"registry_size": 2},
        }
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_RETRY_S", 0.01)


@pytest.fixture
def follow(settings: Settings) -> Iterator[Callable[[ScriptedReader], RegistryFeed]]:
    """Begins to follow what a reader reads; ended with the test."""
    feeds: list[RegistryFeed] = []

    def begin(reader: ScriptedReader) -> RegistryFeed:
        feeds.append(RegistryFeed(settings, VirtualClock(), make_reader=lambda: reader))
        feeds[-1].release()
        return feeds[-1]

    yield begin
    for feed in feeds:
        asyncio.run(feed.hold())


def ids(feed: RegistryFeed) -> list[str]:
    return [row["agent_id"] for row in feed.view.find(limit=100)]


def test_the_view_follows_the_topic(follow):
    """What is on the topic is known, complete when its end is reached, and goes on from there."""
    reader = ScriptedReader()
    feed = follow(reader)
    reader.more.put(registered("a"))
    eventually(lambda: ids(feed) == ["a"])
    assert feed.view.complete is False
    reader.more.put("caught up")
    eventually(lambda: feed.view.complete)
    reader.more.put(registered("b"))
    eventually(lambda: ids(feed) == ["a", "b"])


def test_the_view_outlives_a_failing_broker(follow):
    """While the topic cannot be read the view stays; it is replaced when a new one is complete, and not before."""
    reader = ScriptedReader([registered("a"), "caught up", Unreachable("gone")], [Unreachable("still gone")])
    feed = follow(reader)
    eventually(lambda: reader.reads == 3)
    before = feed.view
    assert (ids(feed), before.complete) == (["a"], True)
    reader.more.put(registered("b"))
    reader.more.put("caught up")
    eventually(lambda: feed.view is not before)
    assert ids(feed) == ["b"]


def test_any_error_is_outlived(follow):
    """Not even a bug in a client ends the reading for good."""
    reader = ScriptedReader([RuntimeError("a bug")])
    feed = follow(reader)
    reader.more.put(registered("a"))
    eventually(lambda: ids(feed) == ["a"])


def test_a_topic_that_begins_anew_is_read_anew(follow):
    """Offsets that go back belong to another topic of the same name, so nothing of the old one is kept."""
    reader = ScriptedReader([registered("a"), registered("b"), "caught up", "begin anew", registered("c")])
    feed = follow(reader)
    reader.more.put(registered("c"))
    reader.more.put("caught up")
    eventually(lambda: ids(feed) == ["c"])
    assert reader.reads == 2


def test_a_held_feed_leaves_the_broker_alone(follow):
    """Held, it reads nothing and keeps what it knows; released, it begins at the start."""
    reader = ScriptedReader()
    feed = follow(reader)
    for event in (registered("a"), "caught up"):
        reader.more.put(event)
    eventually(lambda: feed.view.complete)
    asyncio.run(feed.hold())
    reader.more.put(registered("b"))
    assert (ids(feed), reader.reads) == (["a"], 1)
    feed.release()
    feed.release()
    reader.more.put("caught up")
    eventually(lambda: ids(feed) == ["b"])
    assert reader.reads == 2


def test_records_that_are_not_kept_are_counted(follow):
    """The metric counts them by reason."""

    def counts() -> list[float]:
        return [REGISTRY_DROPPED.labels(reason)._value.get() for reason in ("full", "invalid")]

    before = counts()
    wrong = registered("x")
    wrong.type = "agent.unheard_of"
    reader = ScriptedReader([registered("a"), registered("b"), registered("c"), wrong, "caught up"])
    feed = follow(reader)
    eventually(lambda: feed.view.complete)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1]


class Telling:
    """A heartbeat that runs, and the broker that hears it."""

    def __init__(self, settings: Settings) -> None:
        self.broker = MemoryBroker(["p-registry"])
        self.publishers: list[MemoryPublisher] = []
        self.census = (2, 7)
        self.heartbeat = Heartbeat(
            settings, started_at=STARTED, census=lambda: self.census, make_publisher=self._publisher
        )

    def _publisher(self) -> MemoryPublisher:
        self.publishers.append(MemoryPublisher(self.broker))
        return self.publishers[-1]

    def told(self, type: str = "node.heartbeat") -> list[Signal[Any]]:
        return [signal for signal in self.broker.signals("p-registry") if signal.type == type]

    async def hears(self, count: int) -> None:
        """Wait until so many heartbeats were told."""
        await asyncio.to_thread(eventually, lambda: len(self.told()) >= count)


def run(settings: Settings, scenario: Callable[[Telling], Any]) -> Telling:
    """Play a scenario with a heartbeat that was released, and end it."""

    async def play() -> Telling:
        telling = Telling(settings)
        beating = asyncio.create_task(telling.heartbeat.run())
        telling.heartbeat.release()
        await scenario(telling)
        beating.cancel()
        await telling.heartbeat.end("drained")
        return telling

    return asyncio.run(play())


def test_a_node_tells_that_it_lives(settings):
    """Again and again it tells who it is, since when it runs and how much runs on it, under its own key."""

    async def scenario(telling: Telling) -> None:
        await telling.hears(3)

    [first, *_] = run(settings, scenario).told()
    assert (first.subject, first.source) == ("node/n", "signalbox/n")
    assert first.data | {"version": "", "started_at": ""} == {
        "node": "n", "version": "", "started_at": "", "interval_s": 0.01, "workers": 2, "agents": 7,
    }  # fmt: skip
    assert datetime.fromisoformat(first.data["started_at"]) == STARTED


def test_a_node_tells_that_it_stopped(settings):
    """The last word is that it stopped, and why; the publisher is closed."""

    async def scenario(telling: Telling) -> None:
        await telling.hears(1)

    telling = run(settings, scenario)
    last = telling.broker.signals("p-registry")[-1]
    assert (last.type, last.subject, last.data["reason"]) == ("node.stopped", "node/n", "drained")
    assert [publisher.closed for publisher in telling.publishers] == [True]


def test_heartbeats_go_on_when_the_broker_is_back(settings):
    """A broker that takes none is tried again, and the node does not mind."""

    async def scenario(telling: Telling) -> None:
        await telling.hears(1)
        telling.broker.up = False
        before = len(telling.told())
        await asyncio.sleep(0.05)
        assert len(telling.told()) == before
        telling.broker.up = True
        await telling.hears(before + 1)

    run(settings, scenario)


def test_a_held_heartbeat_leaves_the_broker_alone(settings):
    """Held, it says nothing, not even that it stopped, and has no client that might ask for the topic."""

    async def scenario(telling: Telling) -> None:
        await telling.hears(1)
        await telling.heartbeat.hold()
        before = len(telling.told())
        await asyncio.sleep(0.05)
        assert len(telling.told()) == before
        assert all(publisher.closed for publisher in telling.publishers)

    assert run(settings, scenario).told("node.stopped") == []


def test_a_node_hears_itself(settings, follow):
    """What a node tells is what views take."""
    signal = heartbeat("n")
    reader = ScriptedReader([signal, "caught up"])
    feed = follow(reader)
    eventually(lambda: feed.view.complete)
    assert feed.view.summary()["nodes"] == 1
