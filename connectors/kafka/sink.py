"""The output: one engine partition per Kafka topic partition, so that each has one writer, and none writes twice.

`snapshot` waits until every record is acknowledged and saves a position that lies behind all of them. After a crash
the engine repeats the work since its last snapshot. Then the partition reads back what was written behind the saved
position, and leaves out each repeated record whose id it finds there. Ids repeat because they derive from their cause
(`signalbox.ids`). Until the repetition is over the position stays in front of what has not come again, so that a second
crash meanwhile doubles nothing either; that may take minutes when the snapshot was an older copy. Records that others
write to the same topics are read over and never suppressed.

What was read back is kept in memory until it has come again, or the process ends: about 300 bytes for each record that
was written since the saved position.

With transactions (`connectors.kafka.transactions`) a snapshot also commits. Nothing else changes: the engine saves its
own state after the commit, so an epoch can be committed and still be repeated, and reading back is what makes it one.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec  # type: ignore[attr-defined]

from connectors.kafka.client import IN_FLIGHT, client_config, is_passing, producer_config
from connectors.kafka.echo import Echo
from connectors.kafka.offsets import end_offsets
from connectors.kafka.parts import part_name, split_part
from connectors.kafka.transactions import Transactions
from signalbox.config import KafkaSettings
from signalbox.errors import Unreachable
from signalbox.ports import Outgoing

log = logging.getLogger(__name__)

#: An item without records: it only makes a partition save how far its topic has got.
PULSE: list[Outgoing] = []
_READ_BACK_TIMEOUT_S = 60.0
_FLUSH_LOG_EVERY_S = 5.0
#: When all input is repeated, the position still waits so long for what was read back to come again. What agents keep
#: back and actions take some time to bring about comes later than the input; the rest is somebody else's.
_REPEATED_WITHIN_S = 30.0
#: Topics that nobody waits for. A request to the broker holds records of one partition, and requests of one producer
#: follow each other; so these, many and small, would keep the others waiting. They go in fewer, larger requests of
#: their own.
_PATIENT = frozenset({"telemetry"})
_PATIENT_LINGER_MS = 50.0
#: A pulse reaches every partition at once; one look serves them all.
_LOOK_EVERY_S = 1.0


class KafkaSink(FixedPartitionedSink[list[Outgoing], int]):
    """Writes lists of records to the topic partitions that their keys name (`part_name`).

    Args:
        settings: the broker and the topic prefix.
        starts: topic without prefix and partition -> its end when this system first saw it. A partition that was
            never snapshotted is read back from there.
        caught_up: whether every input of the flow has handed over what it held when the flow started.
        transactions: those of this worker process.
        echo: is told of what was written to its topic.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        starts: Mapping[tuple[str, int], int],
        caught_up: Callable[[], bool] = lambda: True,
        transactions: Transactions | None = None,
        echo: Echo | None = None,
    ) -> None:
        self._starts = starts
        self._echo = echo
        self._index = {name: i for i, name in enumerate(sorted(part_name(*place) for place in starts))}
        self.hub = ProducerHub(settings, starts, caught_up, transactions)

    def list_parts(self) -> list[str]:
        # No worker of a cluster builds a partition before all of them were asked this, so none reads back too early.
        self.hub.take_over()
        return list(self._index)

    def part_fn(self, item_key: str) -> int:
        return self._index[item_key]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Partition":
        topic, partition = split_part(for_part)
        start = self._starts[topic, partition] if resume_state is None else resume_state
        echo = self._echo if self._echo is not None and self._echo.topic == topic else None
        return _Partition(self.hub, topic, partition, start, echo)


class ProducerHub:
    """One producer, and one reader-back, for all partitions of a worker."""

    def __init__(
        self,
        settings: KafkaSettings,
        starts: Mapping[tuple[str, int], int],
        caught_up: Callable[[], bool],
        transactions: Transactions | None,
    ) -> None:
        self._starts = starts
        self._caught_up = caught_up
        self._caught_up_at: float | None = None
        self._succession = transactions
        self._transactions = transactions if transactions is not None and transactions.used else None
        self.prefix = settings.topic_prefix
        self._settings = settings
        self._producer: Producer | None = None
        self._patient: Producer | None = None
        """That of topics that nobody waits for; a transaction has them all in one."""
        self._unread: list[_Partition] = []
        self._parts: dict[tuple[str, int], _Partition] = {}
        self._ends_at_start: dict[tuple[str, int], int] | None = None
        """Where the topics ended before this worker wrote anything."""
        self._looked_at = 0.0
        self._ends: Mapping[TopicPartition, Future[ListOffsetsResultInfo]] = {}
        self._admin: AdminClient | None = None
        self.clean = False
        """Whether the run before has written and saved everything, so that there is nothing to read back."""
        self.failure: KafkaError | None = None
        self.waiting_since: float | None = None
        """Since when the broker has not acknowledged what was written, while that is waited for; monotonic."""
        self.produced: Counter[str] = Counter()
        """Records by topic since the start of the process."""
        self.skipped: Counter[str] = Counter()
        """Records left out because a crashed run had written them."""

    def take_over(self) -> None:
        """See to it that no earlier process writes in this one's place any more."""
        if self._succession is not None:
            self._succession.take_over(_producer_config(self._settings))
        if self._transactions is not None:
            self._producer = self._transactions.producer

    def connect(self) -> None:
        """Make the producers, which need up to a second before a first delivery; one with transactions takes over."""
        if self._producer is None and self._transactions is None:
            config = _producer_config(self._settings)
            self._producer = Producer(config)
            self._patient = Producer(config | {"linger.ms": max(_PATIENT_LINGER_MS, self._settings.linger_ms)})

    def register(self, part: "_Partition") -> None:
        """Take on a partition; it is read back with its siblings before the first write."""
        self.connect()
        self._unread.append(part)
        self._parts[self.prefix + part.topic, part.partition] = part

    def producer(self, topic: str) -> Producer:
        """The producer of a topic, after every new partition was read back."""
        assert self._producer is not None, "made when the first partition was registered"
        if self._unread:
            new, self._unread = self._unread, []
            if not self.clean:
                self._read_back(new)
        return self._patient if self._patient is not None and topic in _PATIENT else self._producer

    def gather(self) -> None:
        """Let the partitions know what the broker has acknowledged."""
        if self._producer is not None:
            self._producer.poll(0)

    def _read_back(self, parts: list["_Partition"]) -> None:
        if self._ends_at_start is None:
            everything = [(self.prefix + topic, partition) for topic, partition in self._starts]
            self._ends_at_start = end_offsets(
                self._settings, everything, timeout_s=_READ_BACK_TIMEOUT_S, uncommitted=True
            )
        behind: dict[tuple[str, int], _Partition] = {}
        for part in parts:
            place = (self.prefix + part.topic, part.partition)
            if part.end < self._ends_at_start[place]:
                behind[place] = part
        if behind:
            _read_back(self._settings, behind, self._ends_at_start)

    def has_repeated(self) -> bool:
        """Whether what was read back and has not come again is not to be waited for any longer."""
        if self._caught_up_at is None and self._caught_up():
            self._caught_up_at = time.monotonic()
        return self._caught_up_at is not None and time.monotonic() - self._caught_up_at > _REPEATED_WITHIN_S

    def flush(self) -> None:
        """Wait until the broker has everything.

        Raises:
            Unreachable: it refused a record for good; the flow must restart and repeat.
        """
        began = self.waiting_since = time.monotonic()
        for producer in filter(None, (self._patient, self._producer)):
            while left := producer.flush(_FLUSH_LOG_EVERY_S):
                waited = time.monotonic() - began
                log.warning("the broker has not acknowledged %d records for %.0f s", left, waited)
        self.waiting_since = None
        if self.failure is not None:
            msg = f"the broker refused a record: {self.failure.str()}"
            raise Unreachable(msg, hint="its log says why; a topic's limits or its access rights may have changed")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around whatever writes: explains an error, and takes back what is open."""
        with self._transactions.guard() if self._transactions is not None else contextlib.nullcontext():
            yield

    def begin(self) -> None:
        """To be called before a record is written."""
        if self._transactions is not None:
            self._transactions.begin()

    def settle(self) -> None:
        """Wait until the broker has everything and, with transactions, shows it to readers. Raises as `flush` does."""
        if self._transactions is None:
            self.flush()
            return
        self.waiting_since = time.monotonic()
        with self._transactions.guard():
            self._transactions.commit()
        self.waiting_since = None
        self._producer = self._transactions.producer

    def look_at_ends(self) -> None:
        """Learn the ends of the topics, without waiting: what was asked at the last call is answered by now.

        An older end is as good: it still lies before everything that this worker will write from here on.
        """
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        for place, answer in self._ends.items():
            part = self._parts.get((place.topic, place.partition))
            if part is not None and answer.done() and answer.exception() is None:
                part.end = max(part.end, answer.result().offset)
        if self._admin is None:
            self._admin = AdminClient(client_config(self._settings))
        wanted = {TopicPartition(topic, partition): OffsetSpec.latest() for topic, partition in self._parts}
        self._ends = self._admin.list_offsets(wanted, request_timeout=10.0)

    def release(self, part: "_Partition") -> None:
        """Let go of a partition; what it wrote was flushed by its last snapshot."""
        self._parts.pop((self.prefix + part.topic, part.partition), None)
        if not self._parts:
            if self._transactions is not None:
                self._transactions.abort()
            else:
                self.flush()
            self._producer = self._patient = self._admin = self._ends_at_start = None
            self._ends = {}


class _Partition(StatefulSinkPartition[list[Outgoing], int]):
    """One topic partition. Its state is an offset behind everything it has written and will not write again."""

    def __init__(self, hub: ProducerHub, topic: str, partition: int, start: int, echo: Echo | None) -> None:
        self.topic = topic
        self.partition = partition
        self.end = start
        self._written: dict[str, list[int]] = {}
        """Offsets by id of what lies on the broker behind the saved position, lowest last: what a crashed run wrote."""
        self._awaited: dict[int, None] = {}
        """The same offsets in order, of what has not come again."""
        self._hub = hub
        self._echo = echo
        hub.register(self)
        if echo is not None:
            echo.gather = hub.gather

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        with self._hub.writing():
            self._write(values)

    def _write(self, values: list[list[Outgoing]]) -> None:
        hub, written = self._hub, self._written
        producer = hub.producer(self.topic)
        topic, partition, produced = hub.prefix + self.topic, self.partition, 0
        for records in values:
            for record in records:
                if written and (offsets := written.get(record.id)):
                    self._awaited.pop(offsets.pop(), None)
                    hub.skipped[self.topic] += 1
                    continue
                if not produced:
                    hub.begin()
                headers: list[tuple[str, str | bytes | None]] = [("ce_id", record.id), ("ce_type", record.type)]
                while True:
                    try:
                        producer.produce(
                            topic,
                            record.value,
                            record.key,
                            partition=partition,
                            headers=headers,
                            on_delivery=self._delivered,
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
                produced += 1
        if produced:
            hub.produced[self.topic] += produced
            producer.poll(0)
        elif values == [PULSE]:
            hub.look_at_ends()

    def has_written(self, id: str, offset: int) -> None:
        """Note a record that was read back."""
        self._written.setdefault(id, []).insert(0, offset)
        self._awaited[offset] = None

    def snapshot(self) -> int:
        self._hub.settle()
        if self._awaited and self._hub.has_repeated():
            self._awaited.clear()
        return min(self.end, next(iter(self._awaited), self.end))

    def close(self) -> None:
        self._hub.release(self)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._hub.failure = error
        else:
            self.end = message.offset() + 1  # type: ignore[operator]  # a delivered record has an offset
            if self._echo is not None:
                self._echo.heard(message)


def _read_back(
    settings: KafkaSettings, parts: Mapping[tuple[str, int], _Partition], ends: Mapping[tuple[str, int], int]
) -> None:
    """Collect the ids of the records between each partition's position and its end.

    What is behind a transaction that somebody else has open is not shown before that ends, and is waited for.
    """
    consumer = Consumer(_reader_config(settings))
    waiting = set(parts)
    deadline = time.monotonic() + _READ_BACK_TIMEOUT_S
    try:
        consumer.assign([TopicPartition(*place, part.end) for place, part in parts.items()])
        while waiting:
            if time.monotonic() > deadline:
                msg = f"{len(waiting)} output partitions could not be read back in {_READ_BACK_TIMEOUT_S:.0f} s"
                hint = "is the broker up, do the topics still exist, and has somebody left a transaction open on them?"
                raise Unreachable(msg, hint=hint)
            message = consumer.poll(1.0)
            for one in (*((message,) if message else ()), *consumer.consume(10_000, 0)):
                place = (one.topic(), one.partition())
                if (error := one.error()) is None:
                    for id_ in _ids(one):
                        parts[place].has_written(id_, one.offset() or 0)
                    deadline = time.monotonic() + _READ_BACK_TIMEOUT_S
                elif error.code() == KafkaError._PARTITION_EOF:
                    if (one.offset() or 0) >= ends[place]:
                        waiting.discard(place)
                elif error.fatal() or not is_passing(error):
                    raise KafkaException(error)
    finally:
        consumer.close()


def _ids(message: Message) -> Iterable[str]:
    headers = message.headers() or ()
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        if name == "ce_id" and value is not None:
            # Ours are ASCII; those of others may be anything.
            yield value.decode("latin-1") if isinstance(value, bytes) else value


def _producer_config(settings: KafkaSettings) -> dict[str, object]:
    return producer_config(
        settings,
        **{
            "max.in.flight": IN_FLIGHT,
            # A record waits for its broker as long as it takes: giving up would only mean to repeat it.
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 500_000,
            "queue.buffering.max.kbytes": 524_288,
            "allow.auto.create.topics": False,
        },
    )


def _reader_config(settings: KafkaSettings) -> dict[str, object]:
    return client_config(
        settings,
        **{
            "group.id": "signalbox.read-back",
            # What was taken back has to be written again.
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            # Of a topic trimmed in the meantime, what is left is all that can be repeated in front of a reader.
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "allow.auto.create.topics": False,
        },
    )
