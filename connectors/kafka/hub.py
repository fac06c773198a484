"""One consumer for all partitions that a worker reads, on the engine's thread, so that no record waits for a lock.

It polls when a partition has nothing left, hands each what came for it, and mirrors progress to a consumer group for
lag tools, which decides nothing. What a partition does with its records: `source.py`; how many are taken: `pace.py`.
Records that the process itself writes may come another way (`echo.py`); their partitions are not fetched all the time.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.kafka.client import client_config
from connectors.kafka.echo import Echo
from connectors.kafka.hot_keys import HotKeys
from connectors.kafka.pace import Pace
from connectors.kafka.parts import part_name
from connectors.kafka.rests import Rests
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, SignalboxError

if TYPE_CHECKING:
    from connectors.kafka.source import Partition

log = logging.getLogger(__name__)

#: Rounds' worth of records taken from the client and not yet handed to the engine; beyond it the consumer is left to
#: fill its own queue.
_BUFFERED_ROUNDS = 16
#: An empty poll is not repeated sooner, however many partitions ask.
_POLL_EVERY_S = 0.0005
#: So often partitions are fetched whose records the process itself writes, for what others may have written.
_LOOK_EVERY_S = 0.5
_METADATA_TIMEOUT_S = 30.0
#: How often progress is mirrored to the consumer group.
_MIRROR_EVERY_S = 1.0
#: A drain waits so long for the last mirroring. A group's coordinator is found in milliseconds, in a new cluster later.
_LAST_MIRROR_S = 2.0


class OffsetLost(SignalboxError):
    """The broker no longer has the records where this partition would go on."""

    exit_code = 3


class ConsumerHub:
    """One consumer for all partitions of a worker. It runs on the engine's thread, so no record waits for a lock."""

    def __init__(
        self, settings: KafkaSettings, group: str, poll_records: int, rests: Rests, echo: Echo | None = None
    ) -> None:
        self.rests = rests
        self._echo = echo
        self._settings = settings
        self._group = group
        self._pace = Pace(poll_records)
        self.hot_keys = HotKeys()
        self._consumer: Consumer | None = None
        self._parts: dict[tuple[str, int], Partition] = {}
        self._buffered = 0
        self._unfetched: set[Partition] = set()
        """Those that only `_echo` brings records for at the moment."""
        self._at_end: set[Partition] = set()
        """Echoed ones that were fetched to their end."""
        self._heard = 0
        """Records that `_echo` has brought since the last poll."""
        self._looked_at = 0.0
        self._polled_at = 0.0
        self._mirrored_at = 0.0
        self._mirrored_count = 0
        self._released: list[TopicPartition] = []
        """Where partitions that are let go have ended."""
        self.epoch_at = time.monotonic()
        """When an epoch last ended; an idle flow ends epochs too."""
        self.saved_at: float | None = None
        """When the last epoch was saved everywhere and records were taken again; None while one is being saved."""
        self._learned_at = 0.0
        self.epochs = 0
        """Epochs that partitions have ended, summed up over partitions."""
        self.reading_since: float | None = None
        """When the first partition was first asked for records, on the monotonic clock."""

    @property
    def busy_s(self) -> float:
        """Seconds the worker has spent on records since the start. Another thread may ask."""
        return self._pace.busy_s(time.monotonic())

    def connect(self) -> Consumer:
        """The consumer, connected and without partitions at first."""
        if self._consumer is None:
            self._consumer = Consumer(_consumer_config(self._settings, self._group, self._count_mirrored))
            # A consumer that is assigned partitions before it knows their leaders waits half a second for nothing.
            self._consumer.list_topics(timeout=_METADATA_TIMEOUT_S)
        return self._consumer

    def register(self, part: "Partition") -> None:
        """Take on a partition, whose records begin to come from its position on."""
        consumer = self.connect()
        place = (self._settings.topic_prefix + part.topic, part.partition)
        (consumer.incremental_assign if self._parts else consumer.assign)([TopicPartition(*place, part.position)])
        self._parts[place] = part
        if self._echo is not None and self._echo.topic == part.topic:
            part.is_echoed = True
            self._echo.listen(part.partition)

    def take(self, part: "Partition") -> list[Message]:
        """The records that wait for a partition, after polling if there are none."""
        now = time.monotonic()
        if self.reading_since is None:
            self.reading_since = now
        pace = self._pace
        pace.asked(part, now)
        if part.is_echoed:
            self._hear(part)
        room = self._buffered < _BUFFERED_ROUNDS * pace.records
        if not part.waiting and room and now - self._polled_at >= _POLL_EVERY_S:
            self._poll(now)
        waiting = part.waiting
        if waiting:
            self.hot_keys.look(part.name, waiting, now)
            part.waiting = waiting[pace.records :]
            waiting = waiting[: pace.records] if part.waiting else waiting
            self._buffered -= len(waiting)
            pace.handed(len(waiting), now)
        return waiting

    def saved(self, began_s: float) -> None:
        """An epoch that ended then is saved everywhere, as each partition notices that is asked again."""
        self.saved_at = time.monotonic()
        if began_s >= self._learned_at:
            self._learned_at = self.saved_at
            self.rests.saved(self.saved_at - began_s)

    def positions(self) -> dict[str, list[int | None]]:
        """Per partition: the offset of the next record to process, and the end as of the last fetch, if known.

        Another thread may call it.
        """
        found: dict[str, list[int | None]] = {}
        for (topic, partition), part in list(self._parts.items()):
            end: int | None = None
            if (consumer := self._consumer) is not None:
                with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                    _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                    end = max(high, part.position) if high >= 0 else None
            found[part_name(part.topic, partition)] = [part.position, end]
        return found

    def switched(self, pool: str, size: int) -> bool:
        """Whether all partitions of this worker spread records over so many members of a pool.

        Another thread may call it.
        """
        return all(part.told is not None and part.told.get(pool) == size for part in list(self._parts.values()))

    def release(self, part: "Partition") -> None:
        """Let go of a partition; with the last one the consumer closes."""
        place = (self._settings.topic_prefix + part.topic, part.partition)
        self._parts.pop(place, None)
        if self._echo is not None and part.is_echoed:
            self._echo.ignore(part.partition)
            self._unfetched.discard(part)
            self._at_end.discard(part)
        self._released.append(TopicPartition(*place, part.position))
        if not self._parts and self._consumer is not None:
            # Out of sight first: nobody may look into a consumer that is being taken apart.
            consumer, self._consumer = self._consumer, None
            self._mirror_last(consumer)
            consumer.close()

    def _poll(self, now: float) -> None:
        consumer = self.connect()
        self._polled_at = now
        messages = consumer.consume(self._pace.records, 0)
        self.rests.polled(len(messages) + self._heard)
        self._heard = 0
        if messages:
            self._distribute(messages, consumer)
        if self._echo is not None:
            self._look(consumer, now)
        if now - self._mirrored_at >= _MIRROR_EVERY_S:
            self._mirrored_at = now
            self._mirror(consumer)

    def _hear(self, part: "Partition") -> None:
        """Give a partition what was written to it here and is acknowledged."""
        assert self._echo is not None, "else no partition is echoed"
        heard = self._echo.take(part.partition, part.fetched)
        if heard:
            part.waiting.extend(heard)
            part.fetched += len(heard)
            self._heard += len(heard)
            self._buffered += len(heard)

    def _look(self, consumer: Consumer, now: float) -> None:
        """Fetch echoed partitions to their end from time to time."""
        prefix = self._settings.topic_prefix
        if self._at_end:
            consumer.incremental_unassign([TopicPartition(prefix + one.topic, one.partition) for one in self._at_end])
            self._unfetched |= self._at_end
            self._at_end = set()
        elif self._unfetched and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            places = [TopicPartition(prefix + one.topic, one.partition, one.fetched) for one in self._unfetched]
            consumer.incremental_assign(places)
            self._unfetched = set()

    def _distribute(self, messages: list[Message], consumer: Consumer) -> None:
        """Give each partition its records. A poll brings them in runs, so this looks at runs and not at records."""
        if any(map(Message.error, messages)):
            messages = [message for message in messages if not self._is_error(message)]
        for topic, of_topic in groupby(messages, Message.topic):
            for partition, run in groupby(of_topic, Message.partition):
                part = self._parts.get((topic, partition))  # type: ignore[arg-type]  # a record has both
                if part is not None:
                    if part.end_at_start is None:
                        place = TopicPartition(topic, partition)  # type: ignore[arg-type]  # as above
                        _, part.end_at_start = consumer.get_watermark_offsets(place, cached=True)
                    before = len(part.waiting)
                    part.waiting.extend(self._news(part, run))
                    self._buffered += len(part.waiting) - before

    def _news(self, part: "Partition", run: Iterable[Message]) -> Iterable[Message]:
        """Those among fetched records that had not been heard of."""
        if self._echo is None or not part.is_echoed:
            return run
        news = [one for one in run if (one.offset() or 0) >= part.fetched]
        if news:
            part.fetched = (news[-1].offset() or 0) + 1
            self._echo.forget(part.partition, part.fetched)
        return news

    def _is_error(self, message: Message) -> bool:
        if (error := message.error()) is None:
            return False
        if error.code() != KafkaError._PARTITION_EOF:
            self._explain(error, message)
        elif part := self._parts.get((message.topic(), message.partition())):  # type: ignore[arg-type]  # as above
            part.end = end = message.offset() or 0
            # Lower than where the records end, if somebody has a transaction open there.
            part.end_at_start = end if part.end_at_start is None else min(end, part.end_at_start)
            if part.is_echoed and part.has_caught_up and part not in self._unfetched:
                self._at_end.add(part)
        return True

    def _explain(self, error: KafkaError, message: Message) -> None:
        """Raise for what stops the flow; log what the client mends by itself."""
        place = f"{message.topic()}/{message.partition()}"
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise self._offset_lost(message, error)
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            msg = f"cannot read {place}: {error.str()}"
            raise ConfigError(msg, hint="was the topic deleted, or its access withdrawn?")
        if error.fatal():
            raise KafkaException(error)
        log.warning("consumer: %s: %s", place, error.str())

    def _offset_lost(self, message: Message, error: KafkaError) -> OffsetLost:
        """Say which records are gone, as far as the broker tells."""
        place = TopicPartition(message.topic() or "", message.partition() or 0)
        part = self._parts.get((place.topic, place.partition))
        begin, gone = part.position if part else message.offset() or 0, error.str()
        with contextlib.suppress(KafkaException):
            assert self._consumer is not None, "it has brought the error"
            low, high = self._consumer.get_watermark_offsets(place, timeout=_METADATA_TIMEOUT_S, cached=False)
            held = f"it has {low} to {high - 1}" if low < high else "it has none"
            if begin < low:
                gone = f"{held}, so the {low - begin} records from {begin} to {low - 1} are lost to this flow"
            else:
                gone = f"{held}, so the topic was made anew or cut back"
        msg = f"the broker no longer has the offset where {place.topic}/{place.partition} would go on, {begin}"
        hint = (
            "put back a newer copy of the recovery directory; or, to go on from the earliest record there is and accept"
            " the gap, remove the recovery directory: docs/how-to/recover.md"
        )
        return OffsetLost(f"{msg}: {gone}", hint=hint)

    def _mirror(self, consumer: Consumer) -> None:
        moved = [part for part in self._parts.values() if part.saved is not None and part.saved != part.mirrored]
        if not moved:
            return
        prefix = self._settings.topic_prefix
        offsets = [TopicPartition(prefix + part.topic, part.partition, part.saved or 0) for part in moved]
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.debug("progress could not be mirrored: %s", error)
            return
        for part in moved:
            part.mirrored = part.saved

    def _mirror_last(self, consumer: Consumer) -> None:
        """Mirror where all partitions ended; a broker that does not answer soon is not waited for."""
        answered = self._mirrored_count
        deadline = time.monotonic() + _LAST_MIRROR_S
        try:
            consumer.commit(offsets=self._released, asynchronous=True)
            while self._mirrored_count == answered and time.monotonic() < deadline:
                consumer.poll(0.02)
        except KafkaException as error:
            log.debug("progress could not be mirrored: %s", error)

    def _count_mirrored(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        self._mirrored_count += 1


def _consumer_config(
    settings: KafkaSettings, group: str, on_commit: Callable[[KafkaError | None, list[TopicPartition]], None]
) -> dict[str, object]:
    return client_config(
        settings,
        **{
            "group.id": group,
            "on_commit": on_commit,
            # What a transaction may still take back is not acted on.
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 5,
            # Enough to keep the worker fed between polls, small enough to bound memory: partitions x this.
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 65_536,
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
        },
    )
