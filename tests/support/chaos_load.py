"""Open-loop load: records are sent at their times, whatever becomes of those before them.

The producer is idempotent and never gives up, so what it was given is on the topic exactly once, in order, when
`finish` returns. It shares nothing with the system under test but the broker.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer

from schemas.signal import Signal, encode, new_signal

_TICK_S = 0.01
_FLUSH_S = 120.0
_PERIOD_S, _FLAPPING_S = 8.0, 3.0


class OpenLoop(threading.Thread):
    """Sends the signals of `make` at `rate` per second until stopped."""

    def __init__(self, bootstrap: str, topic: str, make: Callable[[int], Signal[object]], *, rate: float) -> None:
        """`make(n)` gives the n-th signal, from 0."""
        super().__init__(name="open loop", daemon=True)
        self.sent = 0
        self._topic = topic
        self._make = make
        self._rate = rate
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "chaos-load",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                # An outage is waited out; a full queue would turn the open loop into a closed one.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 5_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        try:
            self._send_until_stopped()
        except BaseException as error:
            self._failure = error

    def run_for(self, seconds: float) -> None:
        """Let the load go on for a while. Raises what has ended it, if anything."""
        self.check()
        self._stopped.wait(seconds)

    def check(self) -> None:
        """Raise what has ended the load, if anything."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> int:
        """Stop, wait until all is on the topic, and return how many signals that are."""
        self._stopped.set()
        self.join()
        left = self._producer.flush(_FLUSH_S)
        self.check()
        assert not left, f"{left} of {self.sent} signals could not be sent"
        return self.sent

    def close(self) -> None:
        """Stop, and forget what was not sent."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        self._producer.purge()
        self._producer.flush(0)

    def _send_until_stopped(self) -> None:
        began = time.monotonic()
        while not self._stopped.wait(_TICK_S):
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                signal = self._make(self.sent)
                self._producer.produce(self._topic, encode(signal), signal.key, on_delivery=self._delivered)
                self.sent += 1
            self._producer.poll(0)
            self.check()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failure = RuntimeError(f"the load could not be sent: {error.str()}")


def tasks(subjects: int, *, source: str) -> Callable[[int], Signal[object]]:
    """Tasks for `echo`; the n-th has the task id `str(n)`, and one of so many subjects at random."""
    rng = random.Random(source)

    def make(number: int) -> Signal[object]:
        data = {"task_id": str(number), "action": "echo", "params": {"value": number}}
        subject = task_subject(rng.randrange(subjects))
        return new_signal("task.submitted", data, source=source, subject=subject, id=f"{source}-{number}")

    return make


def task_subject(number: int) -> str:
    """The name of a subject."""
    return f"customer-{number}"


def task_subjects(subjects: int, *, source: str) -> Iterator[str]:
    """The subjects of the tasks of `tasks`, in order and without end."""
    rng = random.Random(source)
    while True:
        yield task_subject(rng.randrange(subjects))


def readings(subjects: int, *, source: str, rate: float, moving: float = 0.0) -> Callable[[int], Signal[object]]:
    """Health readings of so many hosts at a time. The memory of each flaps for a while and is calm for a while in turn.

    `moving` hosts per second are replaced by new ones.
    """
    rng = random.Random(source)

    def make(number: int) -> Signal[object]:
        second = number / rate
        which = rng.randrange(subjects) + int(second * moving)
        flaps = (second + which) % _PERIOD_S < _FLAPPING_S
        value = rng.choice((0.3, 0.5, 0.9, 0.97)) if flaps else 0.5
        return reading(number, host(which), value, source=source)

    return make


def reading(number: int, subject: str, memory: float, *, source: str) -> Signal[object]:
    """One reading of one host."""
    level = "critical" if memory >= 0.95 else "warning" if memory >= 0.8 else "normal"
    data = {
        "memory_usage": memory,
        "cpu_usage": 0.1,
        "disk_usage": 0.1,
        "process_count": 1,
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return new_signal(f"system.health.{level}", data, source=source, subject=subject, id=f"{source}-{number}")


def host(number: int) -> str:
    """The name of a host."""
    return f"host-{number}"
