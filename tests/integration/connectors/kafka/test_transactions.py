"""The sink with transactions on Apache Kafka: what readers see, what a crash leaves, and who may write."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.kafka import sink as sink_module
from connectors.kafka import transactions as transactions_module
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.offsets import end_offsets
from connectors.kafka.reader import KafkaReader
from connectors.kafka.sink import KafkaSink
from connectors.kafka.source import CaughtUp, KafkaSource
from connectors.kafka.transactions import Transactions
from schemas.signal import encode, new_signal
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, Conflict, SignalboxError, Unreachable
from signalbox.ids import derived_id
from signalbox.ports import Outgoing
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest

pytestmark = pytest.mark.kafka
TOPIC = "results"
START = {(TOPIC, 0): 0}
UNCOMMITTED = {"isolation.level": "read_uncommitted"}


def record(name: str) -> Outgoing:
    """A record with a derived id that follows from its name."""
    id_ = derived_id(name, "test", 1)
    return Outgoing(TOPIC, name, id_, "test.made", encode(new_signal("test.made", name, source="test", id=id_)))


class Topic:
    """One topic with one partition, and worker processes that write to it."""

    def __init__(self, settings: KafkaSettings, directory: Path) -> None:
        self.settings = settings
        self.directory = directory
        self.name = settings.topic_prefix + TOPIC
        KafkaAdmin(settings).ensure_topics([self.name], partitions=1, replication=1)

    def transactions(
        self, *, index: int = 0, workers: int = 1, epoch_ms: int = 1000, used: bool = True
    ) -> Transactions:
        return Transactions(
            self.settings,
            directory=self.directory,
            flow="test",
            index=index,
            workers=workers,
            epoch_ms=epoch_ms,
            used=used,
        )

    def run(self, resume: int | None = None, **options: Any) -> Any:
        """A partition of the sink as a new process builds it."""
        sink = KafkaSink(self.settings, starts=START, transactions=self.transactions(**options))
        return sink.build_part("write", sink.list_parts()[0], resume)

    def id(self, index: int) -> str:
        """The transactional id of a worker."""
        return f"{self.settings.topic_prefix}signalbox.test.{index}"

    def names(self, **client: str) -> str:
        """The one-letter names of all records that a reader sees, in order."""
        reader = KafkaReader(self.settings.model_copy(update={"client": client}))
        return "".join(
            (one.key or b"?").decode() for one in reader.read([self.name], start="start", follow=False, timeout_s=20)
        )

    def end(self, *, uncommitted: bool = True) -> int:
        place = (self.name, 0)
        return end_offsets(self.settings, [place], timeout_s=20, uncommitted=uncommitted)[place]


@pytest.fixture
def topic(kafka: BrokerUnderTest, topic_prefix: str, tmp_path: Path) -> Topic:
    return Topic(kafka.settings(topic_prefix), tmp_path / "transactions")


def write(part: Any, names: str) -> None:
    """Write one record for each letter; returns when the broker has them."""
    part.write_batch([[record(name)] for name in names])
    part._hub.flush()


def test_an_epoch_is_seen_when_its_snapshot_is_taken(topic: Topic) -> None:
    """Records are on the broker at once, and shown to readers of what is committed only after `snapshot`."""
    part = topic.run()
    write(part, "ab")
    assert (topic.names(**UNCOMMITTED), topic.names()) == ("ab", "")
    assert part.snapshot() == 2
    assert topic.names() == "ab"
    write(part, "c")
    assert topic.names() == "ab"
    assert part.snapshot() == 4  # behind the mark that ended the first transaction
    assert topic.names() == "abc"
    part.close()


def test_an_epoch_without_records_commits_nothing(topic: Topic) -> None:
    """A snapshot without a write leaves no mark in the topic."""
    part = topic.run()
    write(part, "a")
    part.snapshot()
    end = topic.end()
    part.write_batch([sink_module.PULSE])
    part.snapshot()
    assert topic.end() == end


def test_a_crash_takes_back_the_epoch_and_its_repetition_is_seen_once(topic: Topic) -> None:
    """What a crashed run wrote since its last snapshot is never shown; the successor writes it again."""
    first = topic.run()
    write(first, "a")
    saved = first.snapshot()
    write(first, "bc")
    second = topic.run(saved)
    second.write_batch([[record("b"), record("c"), record("d")]])
    second.snapshot()
    assert second._hub.skipped.total() == 0
    assert topic.names() == "abcd"
    assert topic.names(**UNCOMMITTED) == "abcbcd"


def test_what_was_committed_and_not_saved_is_left_out(topic: Topic) -> None:
    """A crash between the commit and the engine's own save repeats an epoch that is seen; it is not written again."""
    first = topic.run()
    write(first, "ab")
    first.snapshot()
    second = topic.run(None)
    second.write_batch([[record("a"), record("b"), record("c")]])
    second.snapshot()
    assert topic.names(**UNCOMMITTED) == "abc"


def test_a_predecessor_that_wakes_up_writes_nothing(topic: Topic) -> None:
    """Once its successor has begun, a worker can neither commit, nor write, and is told why."""
    asleep = topic.run()
    write(asleep, "a")
    successor = topic.run()
    successor.write_batch([[record("b")]])
    successor.snapshot()
    with pytest.raises(Conflict, match="may not write any more") as caught:
        asleep.snapshot()
    assert topic.id(0) in (caught.value.hint or "")
    with pytest.raises(Conflict):
        asleep.write_batch([[record("c")]])
    assert topic.names() == "b"
    asleep.close()


def test_a_predecessor_between_two_epochs_writes_nothing_either(topic: Topic) -> None:
    """A worker that sleeps without an open transaction cannot begin one after its successor has."""
    asleep = topic.run()
    write(asleep, "a")
    asleep.snapshot()
    topic.run()
    asleep.write_batch([[record("b")]])
    with pytest.raises(Conflict):
        asleep.snapshot()
    assert topic.names() == "a"


def test_the_places_of_workers_there_are_no_more_are_fenced(topic: Topic) -> None:
    """Fewer workers take over the ids of all that there were, and share out the work; other flows' are left alone."""
    many = [topic.run(index=index, workers=4) for index in range(4)]
    for part in many:
        part.write_batch([sink_module.PULSE])  # reads back; in a flow, no two workers write to the same partition
    for part, name in zip(many, "abcd", strict=True):
        write(part, name)
    others = {f"{topic.settings.topic_prefix}signalbox.other.7", f"{topic.id(0)}.x"}
    for name in others:
        (topic.directory / name).touch()
    fewer = [topic.run(index=index, workers=2) for index in range(2)]
    for part in many:
        with pytest.raises(Conflict):
            part.snapshot()
    assert {path.name for path in topic.directory.iterdir()} == {topic.id(0), topic.id(1), *others}
    for part, name in zip(fewer, "ef", strict=True):
        write(part, name)
        part.snapshot()
    assert topic.names() == "ef"


def test_a_run_without_transactions_ends_those_of_the_run_before(topic: Topic) -> None:
    """After a change of `delivery` no transaction stays open, and no former worker writes."""
    before = topic.run()
    write(before, "a")
    after = topic.run(used=False)
    after.write_batch([[record("a")]])
    after.snapshot()
    with pytest.raises(Conflict):
        before.snapshot()
    assert topic.names() == "a"
    assert list(topic.directory.iterdir()) == []


def test_an_error_takes_back_what_was_written(topic: Topic) -> None:
    """A worker that stops for an error leaves nothing open that readers would have to wait for."""
    part = topic.run()
    write(part, "a")
    with pytest.raises(SignalboxError, match=r"(?i)too large"):
        part.write_batch([[record("b")._replace(value=b"x" * 4_300_000)]])
    assert topic.end(uncommitted=False) == topic.end()
    assert topic.names() == ""


def test_reading_back_waits_for_a_transaction_of_somebody_else(topic: Topic) -> None:
    """What lies behind an open transaction of others is not shown yet; it is waited for and not written twice."""
    first = topic.run()
    first.write_batch([sink_module.PULSE])  # has read back
    with foreign_transaction(topic) as foreign:
        foreign.produce(topic.name, b"{}", b"x", partition=0)
        foreign.flush()
        write(first, "a")
        first.snapshot()
        assert topic.names() == ""
        second = topic.run(None)
        ended = threading.Timer(1.0, foreign.commit_transaction)
        ended.start()
        write(second, "ab")
        second.snapshot()
        ended.join()
    assert topic.names() == "xab"


def test_a_source_reaches_the_end_behind_the_marks(topic: Topic) -> None:
    """The marks that end transactions count as read, so that a reader that has everything shows no lag."""
    part = topic.run()
    for name in "abc":
        write(part, name)
        part.snapshot()
    source = KafkaSource(topic.settings, starts=START, group=topic.name, poll_records=100, drain=threading.Event())
    reading = source.build_part("read", f"{TOPIC}-0", None)
    batches: list[Any] = []

    def at_the_end() -> bool:
        batches.extend(reading.next_batch())
        ((position, end),) = source.hub.positions().values()
        return position == end == topic.end()

    eventually(at_the_end)
    assert [len(one.messages) for one in batches if not isinstance(one, CaughtUp)] == [3]
    assert [one.part for one in batches if isinstance(one, CaughtUp)] == [f"{TOPIC}-0"]
    write(part, "d")
    part._hub._transactions.abort()
    eventually(at_the_end)  # also behind what was taken back
    assert reading.snapshot() == topic.end()
    reading.close()


def test_a_longer_transaction_than_the_broker_allows_is_refused(topic: Topic) -> None:
    """With epochs so long that the broker would end their transactions, nothing starts, and the setting is named."""
    with pytest.raises(ConfigError, match="does not allow for transactions of 1060 s") as caught:
        topic.run(epoch_ms=200_000)
    assert "flows.agents.epoch_ms" in (caught.value.hint or "")


def test_the_embedded_broker_is_refused(embedded: BrokerUnderTest, topic_prefix: str, tmp_path: Path) -> None:
    """The embedded broker shows what was taken back, so nothing is started with it, wherever it runs."""
    with pytest.raises(ConfigError, match="embedded") as caught:
        Topic(embedded.settings(topic_prefix), tmp_path).transactions()
    assert "effectively_once" in (caught.value.hint or "")


class Shaky:
    """A producer whose commits meet trouble: each of `troubles` happens to one commit, None to none."""

    troubles: list[Any]

    def __init__(self, config: dict[str, Any]) -> None:
        self._on_error = config.get("error_cb")
        self._real = Producer(config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def commit_transaction(self, timeout: float) -> None:
        trouble = self.troubles.pop(0)
        if isinstance(trouble, KafkaException):
            raise trouble
        if trouble is not None:
            self._on_error(trouble)
        self._real.commit_transaction(timeout)


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Shaky]]:
    monkeypatch.setattr(transactions_module, "Producer", Shaky)
    yield Shaky
    assert Shaky.troubles == []


def test_a_commit_is_awaited_however_long_it_takes(topic: Topic, shaky: type[Shaky]) -> None:
    """A commit that is not confirmed in time is waited for further, never given up or begun anew."""
    slow = KafkaException(KafkaError(KafkaError._TIMED_OUT, "slow", False, True))
    part = topic.run(used=True)
    shaky.troubles = [slow, slow, None]
    write(part, "a")
    part.snapshot()
    assert topic.names() == "a"


def test_a_producer_in_doubt_is_not_used_again(topic: Topic, shaky: type[Shaky]) -> None:
    """After a commit during which a connection broke, the next epoch is written by a new producer under the same id."""
    part = topic.run()
    producers = []
    shaky.troubles = [None, KafkaError(KafkaError._TRANSPORT), None]
    for name in "abc":
        write(part, name)
        producers.append(part._hub._producer)
        part.snapshot()
    assert producers[0] is producers[1] is not producers[2]
    assert topic.names() == "abc"


def test_a_transaction_that_fails_is_taken_back_and_repeated(topic: Topic, shaky: type[Shaky]) -> None:
    """A commit that the broker refuses stops the worker; its epoch is not shown, and the next start writes it."""
    part = topic.run()
    shaky.troubles = [KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE, "no", False, False, True)), None]
    write(part, "a")
    with pytest.raises(Unreachable, match="taken back"):
        part.snapshot()
    assert topic.names() == ""
    again = topic.run(None)
    again.write_batch([[record("a")]])
    again.snapshot()
    assert topic.names() == "a"


@contextlib.contextmanager
def foreign_transaction(topic: Topic) -> Iterator[Producer]:
    """An open transaction of somebody else."""
    producer = Producer({"bootstrap.servers": topic.settings.bootstrap, "transactional.id": f"foreign-{topic.name}"})
    producer.init_transactions(20)
    producer.begin_transaction()
    yield producer
