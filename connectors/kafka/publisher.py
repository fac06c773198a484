"""Puts signals on topics with checked delivery: what `flush` did not raise for is on the broker.

For the command line, sensors and tests. The dataflows have `connectors.kafka.sink`, which also survives a crash
without loss or doubling; this does not: what was queued dies with the process.
"""

import logging
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, Producer

from connectors.kafka.client import LastError, producer_config, translated, translating
from schemas.signal import HEADER_PREFIX, Signal, encode
from signalbox.config import KafkaSettings
from signalbox.errors import NotFound, SignalboxError, Unreachable

#: Structured mode, in the words of the CloudEvents Kafka binding.
_CONTENT_TYPE = "application/cloudevents+json"
_QUEUE_RECORDS = 100_000
_QUEUE_KIB = 65_536
#: How long `publish` waits for room in a full queue.
_ROOM_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 5.0
#: A broker that answers and still does not know a topic after so long does not have it.
_TOPIC_TIMEOUT_MS = 5_000

log = logging.getLogger(__name__)


class KafkaPublisher:
    """See `signalbox.ports.Publisher`. Use it from one thread.

    A flush that raises leaves nothing in the queue. Signals that were under way may have arrived all the same, so
    publishing them again can double them; receivers know a double by its id.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        """Begin to connect, without waiting: an idempotent producer needs half a second before its first delivery.

        Raises:
            ConfigError: `kafka.client` is wrong.
        """
        self._settings = settings
        self._last_error = LastError()
        self._failed = 0
        self._failure: KafkaError | None = None
        self._producer: Producer | None = self._connect()

    def publish(self, topic: str, signal: Signal[object]) -> None:
        """Queue one signal; its partition follows from its subject, as with Java clients.

        Raises:
            Unreachable: the queue is full and stays full.
            SignalboxError: the signal is larger than any record may be.
        """
        value, key = encode(signal), signal.key.encode()
        headers: list[tuple[str, str | bytes | None]] = [
            (f"{HEADER_PREFIX}id", signal.id.encode()),
            (f"{HEADER_PREFIX}type", signal.type.encode()),
            ("content-type", _CONTENT_TYPE.encode()),
        ]
        self._queue(topic, value, key, headers, f"signal {signal.id!r} ({len(value)} bytes)")

    def publish_raw(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Queue one record as it is. Raises as `publish` does."""
        self._queue(topic, value, key, list(headers), f"a record ({len(value or b'')} bytes)")

    def _queue(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Sequence[tuple[str, str | bytes | None]],
        what: str,
    ) -> None:
        producer = self._producer = self._producer or self._connect()
        deadline = 0.0
        while True:
            try:
                with translating(self._settings, f"publish {what} on {topic!r}"):
                    producer.produce(topic, value, key, headers=list(headers), on_delivery=self._on_failure)
                producer.poll(0)
            except BufferError:
                deadline = deadline or time.monotonic() + _ROOM_TIMEOUT_S
                if time.monotonic() > deadline:
                    raise self._undelivered(len(producer), "its queue is full") from None
                producer.poll(0.05)
            else:
                return

    def flush(self, timeout_s: float) -> None:
        """See `Publisher`.

        Raises:
            Unreachable: the broker refused or did not answer in time; the message counts what is undelivered.
            NotFound: the broker has no such topic.
        """
        if self._producer is None:
            return
        left = self._producer.flush(timeout_s)
        undelivered = left + self._failed
        if undelivered:
            error = self._undelivered(undelivered, f"no answer within {timeout_s:g} s")
            self._discard()
            raise error

    def close(self) -> None:
        """Give what is queued a last chance, and log how much was lost. Flush first to be sure."""
        try:
            self.flush(_CLOSE_TIMEOUT_S)
        except SignalboxError as error:
            log.warning("closing a publisher: %s", error)
        self._discard()

    def _connect(self) -> Producer:
        own: dict[str, object] = {
            "queue.buffering.max.messages": _QUEUE_RECORDS,
            "queue.buffering.max.kbytes": _QUEUE_KIB,
            "topic.metadata.propagation.max.ms": _TOPIC_TIMEOUT_MS,
            "delivery.report.only.error": True,
            "error_cb": self._last_error.note,
        }
        with translating(self._settings, "make a Kafka producer"):
            return Producer(producer_config(self._settings, **own))

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed += 1
            self._failure = self._failure or error

    def _undelivered(self, count: int, otherwise: str) -> SignalboxError:
        """The error for a flush or a publish that failed; `otherwise` is the reason where the client knows none."""
        doing = f"deliver {count} signal{'s' if count > 1 else ''}"
        known = self._failure or KafkaError(KafkaError._MSG_TIMED_OUT, otherwise)
        error = translated(self._last_error.explain(known), self._settings, doing)
        return error if isinstance(error, NotFound | Unreachable) else Unreachable(str(error), hint=error.hint)

    def _discard(self) -> None:
        """Drop the client with its queue. A purged idempotent producer is of no more use on every broker."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
        self._producer, self._last_error = None, LastError()
        self._failed, self._failure = 0, None
