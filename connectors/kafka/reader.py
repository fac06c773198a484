"""Reads topics for people and scripts: no consumer group, nothing committed, so readers do not disturb each other.

Records come in order within a partition; across partitions as they arrive. The dataflows read with
`connectors.kafka.source`, which keeps its place across restarts; this does not.
"""

import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from connectors.kafka.client import CALL_TIMEOUT_S, LastError, client_config, is_passing, translating
from connectors.kafka.offsets import EARLIEST, Partition, end_offsets, offsets_at
from signalbox.config import KafkaSettings
from signalbox.errors import DeadlineExceeded, NotFound, UsageError
from signalbox.ports import Record

#: How soon a waiting reader notices `stop` and its deadline.
_WAIT_S = 0.1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KafkaReader:
    """See `signalbox.ports.Reader`."""

    def __init__(self, settings: KafkaSettings, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """`timeout_s` bounds each question to the broker, and how long a reading without `follow` may stall."""
        self._settings = settings
        self._timeout_s = timeout_s

    def read(
        self,
        topics: Sequence[str],
        *,
        start: str | datetime,
        follow: bool,
        timeout_s: float | None,
        stop: Callable[[], bool] | None = None,
        caught_up: Callable[[], None] | None = None,
    ) -> Iterator[Record]:
        """See `Reader`. Where to begin and to end is settled before this returns.

        With a time as `start`, only records whose own timestamp is not before it are yielded.

        Raises:
            NotFound: there is no such topic; the hint has names like it.
            UsageError: `start` is neither "start", nor "now", nor a time with a zone.
            Unreachable: no broker answers, now or while a reading without `follow` goes on.
            DeadlineExceeded: a reading without `follow` has not reached the end after `timeout_s`.
        """
        since = _since(start)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        last_error = LastError()
        with translating(self._settings, f"read {', '.join(topics)}", last_error):
            consumer = Consumer(_config(self._settings, last_error))
            try:
                partitions = self._partitions(consumer, topics)
                ends = end_offsets(self._settings, partitions, timeout_s=self._timeout_s)
                begin = self._begin(consumer, start, ends)
            except BaseException:
                consumer.close()
                raise
        reading = _Reading(
            settings=self._settings,
            consumer=consumer,
            last_error=last_error,
            begin=begin,
            ends={place: end for place, end in ends.items() if begin[place] < end},
            follow=follow,
            since=since,
            deadline=deadline,
            stop=stop or (lambda: False),
            caught_up=caught_up or (lambda: None),
            stall_s=self._timeout_s,
        )
        return reading.records()

    def _partitions(self, consumer: Consumer, topics: Sequence[str]) -> list[Partition]:
        # Asking for all topics: the embedded broker creates one that is asked for by name.
        known = consumer.list_topics(timeout=self._timeout_s).topics
        for name in topics:
            if name not in known:
                similar = difflib.get_close_matches(name, known) or sorted(known)[:10]
                msg = f"there is no topic {name!r} at {self._settings.bootstrap}"
                raise NotFound(
                    msg, hint=f"did you mean: {', '.join(similar)}?" if similar else "it has no topics at all"
                )
        return [(name, partition) for name in dict.fromkeys(topics) for partition in known[name].partitions]

    def _begin(self, consumer: Consumer, start: str | datetime, ends: Mapping[Partition, int]) -> dict[Partition, int]:
        if start == "now":
            return dict(ends)
        timestamp_ms = EARLIEST
        if isinstance(start, datetime):
            timestamp_ms = max(0, (start - _EPOCH) // timedelta(milliseconds=1))
        found = offsets_at(consumer, ends, timestamp_ms, timeout_s=self._timeout_s)
        return {place: ends[place] if offset is None else offset for place, offset in found.items()}


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One call of `read` under way."""

    settings: KafkaSettings
    consumer: Consumer
    last_error: LastError
    begin: dict[Partition, int]
    """The offset to begin with, per partition."""
    ends: dict[Partition, int]
    """The partitions that are not read yet to what was their end when reading began."""
    follow: bool
    """Whether to go on from there."""
    since: datetime | None
    deadline: float | None
    stop: Callable[[], bool]
    caught_up: Callable[[], None]
    stall_s: float

    def records(self) -> Iterator[Record]:
        try:
            with translating(self.settings, "go on reading", self.last_error):
                # Not before the first record is asked for: the client fetches ahead from here on.
                wanted = self.begin if self.follow else self.ends
                self.consumer.assign([TopicPartition(*place, self.begin[place]) for place in wanted])
                if self.ends:
                    yield from self._records(until_the_ends=True)
                if not self.ends:
                    self.caught_up()
                    if self.follow:
                        yield from self._records(until_the_ends=False)
        finally:
            self.consumer.close()

    def _records(self, *, until_the_ends: bool) -> Iterator[Record]:
        heard = time.monotonic()
        while (self.ends or not until_the_ends) and not self.stop() and not self._overdue():
            message = self.consumer.poll(_WAIT_S)
            if message is not None:
                heard = time.monotonic()
                if self._takes(message):
                    yield _record(message)
            elif not self.follow and time.monotonic() - heard > self.stall_s:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"silent for {self.stall_s:g} s"))

    def _overdue(self) -> bool:
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        if self.ends and not self.follow:
            msg = f"did not reach the end of {len(self.ends)} partitions in time"
            raise DeadlineExceeded(msg, hint="allow more time (--timeout), or begin later")
        return True

    def _takes(self, message: Message) -> bool:
        """Whether the message is a record that was asked for; keeps track of what is left to read."""
        place = (message.topic() or "", message.partition() or 0)
        offset = message.offset() or 0
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if is_passing(error):  # the client connects again by itself
                return False
            raise KafkaException(error)
        end = self.ends.get(place, 0)
        wanted = self.follow or offset < end
        if error is not None or offset >= end - 1:
            self.ends.pop(place, None)
        return error is None and wanted and (self.since is None or _time(message) >= self.since)


def _since(start: str | datetime) -> datetime | None:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            msg = f"{start.isoformat()} has no time zone"
            raise UsageError(msg, hint="write it with one, such as 2026-01-31T12:00:00Z")
        return start
    if start not in ("start", "now"):
        msg = f"cannot start reading at {start!r}"
        raise UsageError(msg, hint='use "start", "now" or a time such as 2026-01-31T12:00:00Z')
    return None


def _record(message: Message) -> Record:
    kind, _ = message.timestamp()
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=tuple(cast("list[tuple[str, bytes | None]]", message.headers() or [])),
        timestamp=None if kind == TIMESTAMP_NOT_AVAILABLE else _time(message),
    )


def _time(message: Message) -> datetime:
    _, milliseconds = message.timestamp()
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _config(settings: KafkaSettings, last_error: LastError) -> dict[str, Any]:
    return client_config(
        settings,
        **{
            "group.id": "signalbox-reader",  # the library wants one; nothing is joined or committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            # The embedded broker sits out this time even when a record arrives meanwhile.
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
            "error_cb": last_error.note,
        },
    )
