"""Where partitions end, asked so that the answer is right on Apache Kafka and on the embedded broker.

The embedded broker answers ListOffsets "latest" with one past the *first* record of the last batch. What it says with a
fetch, the high watermark and the end-of-partition event, is right on both brokers. So "latest" is only where the search
begins, and a fetch from there has the last word.
"""

import time
from collections.abc import Collection, Iterable
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from connectors.kafka.client import LastError, client_config, translating
from signalbox.config import KafkaSettings
from signalbox.errors import Unreachable

Partition = tuple[str, int]
"""A topic's name and the number of a partition."""
#: What ListOffsets takes in place of a time in milliseconds.
EARLIEST, _LATEST = -2, -1
#: Of a partition whose leader was just chosen: the metadata name it a moment before it knows of it itself.
_UNSETTLED = (
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
_SETTLE_S = 0.02


def end_offsets(
    settings: KafkaSettings, partitions: Collection[Partition], *, timeout_s: float, uncommitted: bool = False
) -> dict[Partition, int]:
    """For each partition the offset where a reader would wait for the next record.

    That is where the first transaction began that is open, if any; with `uncommitted`, it is behind all records.

    Raises:
        Unreachable: the broker did not answer for all of them in time.
        NotFound: there is no such partition.
    """
    if not partitions:
        return {}
    last_error = LastError()
    with translating(settings, "find where the topics end", last_error):
        isolation = {"isolation.level": "read_uncommitted"} if uncommitted else {}
        consumer = Consumer(_probe_config(settings, last_error) | isolation)
        try:
            return _end_offsets(consumer, settings, partitions, time.monotonic() + timeout_s)
        finally:
            consumer.close()


def offsets_at(
    consumer: Consumer, partitions: Iterable[Partition], timestamp_ms: int, *, timeout_s: float
) -> dict[Partition, int | None]:
    """For each partition the first offset whose record is of that time or later; None when there is none yet.

    With `EARLIEST` for a time it is the first record that is still there.

    The embedded broker knows only when a batch arrived, so its answer can be too early, and never too late: compare
    the records' own timestamps.
    """
    asked = [TopicPartition(topic, partition, timestamp_ms) for topic, partition in partitions]
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answers = consumer.offsets_for_times(asked, timeout=max(0.0, deadline - time.monotonic()))
            for answer in answers:
                if answer.error:
                    raise KafkaException(answer.error)
        except KafkaException as error:
            if error.args[0].code() not in _UNSETTLED or time.monotonic() > deadline:
                raise
            time.sleep(_SETTLE_S)
        else:
            return {(it.topic, it.partition): it.offset if it.offset >= 0 else None for it in answers}


def _end_offsets(
    consumer: Consumer, settings: KafkaSettings, partitions: Collection[Partition], deadline: float
) -> dict[Partition, int]:
    latest = offsets_at(consumer, partitions, _LATEST, timeout_s=deadline - time.monotonic())
    ends = {place: 0 for place, offset in latest.items() if offset == 0}
    begin = {place: OFFSET_END if offset is None else offset for place, offset in latest.items() if offset != 0}
    consumer.assign([TopicPartition(*place, offset) for place, offset in begin.items()])
    while len(ends) < len(latest):
        message = consumer.poll(max(0.0, deadline - time.monotonic()))
        if message is None:
            if time.monotonic() < deadline:
                continue
            missing = _names(latest.keys() - ends.keys())
            msg = f"the broker at {settings.bootstrap} does not tell where these partitions end: {missing}"
            raise Unreachable(msg, hint="has each of them a leader?")
        place = (message.topic() or "", message.partition() or 0)
        error = message.error()
        if error is None:
            _, ends[place] = consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        elif error.code() == KafkaError._PARTITION_EOF:
            ends[place] = message.offset() or 0
        elif error.code() not in _UNSETTLED:
            raise KafkaException(error)
    return ends


def _probe_config(settings: KafkaSettings, last_error: LastError) -> dict[str, Any]:
    return client_config(
        settings,
        **{
            "error_cb": last_error.note,
            "group.id": "signalbox-offsets",  # the library wants one; nothing is joined or committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # One batch of each partition is enough, and an empty answer need not wait for more.
            "max.partition.fetch.bytes": 1,
            "fetch.wait.max.ms": 10,
        },
    )


def _names(places: Iterable[Partition]) -> str:
    return ", ".join(f"{topic}/{partition}" for topic, partition in sorted(places))
