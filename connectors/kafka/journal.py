"""Appends to the topic `effects` from the executor, and tells when the broker has each record."""

import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.kafka.client import IN_FLIGHT, producer_config
from connectors.kafka.echo import Echo
from schemas.signal import HEADER_PREFIX, Signal, encode
from signalbox.config import EFFECTS_TOPIC, KafkaSettings

_POLL_S = 0.1
#: What is not acknowledged by then is found on the topic, or not, by the next start.
_CLOSE_TIMEOUT_S = 2.0


class KafkaJournal:
    """See `signalbox.actions.executor.Journal`. Any thread may append."""

    def __init__(self, settings: KafkaSettings, echo: Echo | None = None) -> None:
        """It begins to connect at once: an idempotent producer needs half a second before its first delivery.

        `echo` is told of what was appended.
        """
        self._echo = echo
        self._prefix = settings.topic_prefix
        # A record waits for its broker as long as it takes, as the sink's do.
        self._producer = Producer(producer_config(settings, **{"message.timeout.ms": 0, "max.in.flight": IN_FLIGHT}))
        self._closed = threading.Event()
        threading.Thread(target=self._tell, name="journal", daemon=True).start()

    def append(self, partition: int, signal: Signal[Any], acknowledged: Callable[[BaseException | None], None]) -> None:
        """Write to a partition of `effects`; `acknowledged` hears None when the broker has it, else why not."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None and self._echo is not None:
                self._echo.heard(message)
            acknowledged(None if error is None else KafkaException(error))

        self._produce(EFFECTS_TOPIC, signal, partition=partition, on_delivery=delivered)

    def announce(self, topic: str, signal: Signal[Any]) -> None:
        """Write to another topic, where nothing depends on it."""
        self._produce(topic, signal)

    def _produce(self, topic: str, signal: Signal[Any], **options: Any) -> None:
        headers: list[tuple[str, str | bytes | None]] = [
            (f"{HEADER_PREFIX}id", signal.id),
            (f"{HEADER_PREFIX}type", signal.type),
        ]
        name = self._prefix + topic
        while True:
            try:
                self._producer.produce(name, encode(signal), signal.key, headers=headers, **options)
                return
            except BufferError:
                self._closed.wait(_POLL_S)

    def close(self) -> None:
        """Wait a little for what is under way, and let go."""
        self._closed.set()
        self._producer.flush(_CLOSE_TIMEOUT_S)

    def _tell(self) -> None:
        """Let the library call back for what the broker has taken."""
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)
