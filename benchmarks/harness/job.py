"""The job every contender does, and the oracle that knows its right answer.

Read signals of 10,000 subjects from 8 partitions, keep count, last and maximum per subject, and send an alert for each
value over the threshold. The alert repeats the subject's count and maximum at that moment, so a contender that lost,
doubled or reordered a signal of a subject gives itself away. This module uses the standard library alone, because it
is also imported in the virtual environments of other libraries. How it is run: `harness.running`.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PARTITIONS = 8
SIGNAL_TYPE = "sensor.reading"
ALERT_TYPE = "alert.threshold.exceeded"
SOURCE = "bench/sensors"
THRESHOLD = 0.8
#: One signal in so many exceeds the threshold.
ALERT_EVERY = 100
_SEED = 20_260_101


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How much input there is."""

    signals: int = 400_000
    subjects: int = 10_000


@dataclass(frozen=True, slots=True)
class Reading:
    """One input signal before it is written."""

    seq: int
    subject: str
    partition: int
    value: float

    @property
    def id(self) -> str:
        return f"s-{self.seq:09d}"

    def encode(self) -> bytes:
        """The CloudEvents JSON, 190 bytes or so."""
        second, ms = divmod(self.seq, 1000)
        minute, second = divmod(second, 60)
        time = f"2026-01-01T{minute // 60 % 24:02d}:{minute % 60:02d}:{second:02d}.{ms:03d}Z"
        return (
            f'{{"specversion":"1.0","id":"{self.id}","source":"{SOURCE}","type":"{SIGNAL_TYPE}",'
            f'"subject":"{self.subject}","time":"{time}",'
            f'"data":{{"value":{self.value!r},"seq":{self.seq}}}}}'
        ).encode()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the alert about one signal must say."""

    subject: str
    count: int
    maximum: float


def partition_of(subject: str) -> int:
    """The partition of a subject: CRC-32, as librdkafka's `consistent` partitioner has it."""
    return zlib.crc32(subject.encode()) % PARTITIONS


def readings(job: Job) -> Iterator[Reading]:
    """The input in order of sending; the same for the same job.

    The last signal of every partition exceeds the threshold, so all alerts are out only when all input was read.
    """
    chance = random.Random(_SEED)
    subjects = [f"host-{number:05d}" for number in range(job.subjects)]
    partitions = {subject: partition_of(subject) for subject in subjects}
    last_of_partition = {partitions[subject]: subject for subject in subjects}
    order = chance.choices(subjects, k=job.signals - len(last_of_partition))
    order += [last_of_partition[partition] for partition in sorted(last_of_partition)]
    closing = job.signals - len(last_of_partition)
    for seq, subject in enumerate(order):
        high = seq % ALERT_EVERY == ALERT_EVERY - 1 or seq >= closing
        value = (8001 + seq % 1999 if high else chance.randrange(8000)) / 10_000
        yield Reading(seq, subject, partitions[subject], value)


def expected_alerts(job: Job) -> dict[str, Expected]:
    """The right output: signal id -> what its alert must say."""
    counts: dict[str, int] = {}
    maxima: dict[str, float] = {}
    alerts = {}
    for reading in readings(job):
        subject = reading.subject
        counts[subject] = counts.get(subject, 0) + 1
        maxima[subject] = max(maxima.get(subject, 0.0), reading.value)
        if reading.value > THRESHOLD:
            alerts[reading.id] = Expected(subject, counts[subject], maxima[subject])
    return alerts
