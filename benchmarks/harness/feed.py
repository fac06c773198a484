"""An open-loop sender: signals leave on schedule, whatever becomes of the earlier ones. `python -m harness.feed JSON`.

It runs in a process of its own, so that it neither waits for the receiving side nor shares an interpreter with it. A
signal that leaves late counts from the time it should have left: its latency is measured from the schedule.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass

from confluent_kafka import Producer

from harness.job import SIGNAL_TYPE, Reading, partition_of

#: Of all subjects; far fewer than in the throughput job, as a rate of 1,000 per second visits each often enough.
SUBJECTS = 1000
_VALUE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`count` signals, the i-th at `begin_s + i / rate` on the machine's monotonic clock."""

    bootstrap: str
    topic: str
    begin_s: float
    rate: float
    count: int

    def due_s(self, seq: int) -> float:
        """When a signal should leave."""
        return self.begin_s + seq / self.rate

    def command(self) -> list[str]:
        """Run this schedule in another process."""
        return [sys.executable, "-m", "harness.feed", json.dumps(asdict(self))]


def open_producer(bootstrap: str) -> Producer:
    """A producer that sends at once."""
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0})


def send(producer: Producer, topic: str, seq: int) -> None:
    """Send the signal of this number; its value is over the threshold."""
    subject = f"host-{seq % SUBJECTS:05d}"
    reading = Reading(seq, subject, partition_of(subject), _VALUE)
    headers: list[tuple[str, str | bytes | None]] = [("ce_id", reading.id), ("ce_type", SIGNAL_TYPE)]
    producer.produce(topic, reading.encode(), subject, reading.partition, headers=headers)
    producer.poll(0)


def main() -> None:
    """Send what the schedule on the command line says."""
    schedule = Schedule(**json.loads(sys.argv[1]))
    producer = open_producer(schedule.bootstrap)
    for seq in range(schedule.count):
        wait_s = schedule.due_s(seq) - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        send(producer, schedule.topic, seq)
    producer.flush(30)


if __name__ == "__main__":
    main()
