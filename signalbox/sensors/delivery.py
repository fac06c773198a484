"""Brings buffered signals to the broker, at least once, and in order as long as the broker answers.

A batch leaves the buffer when the broker has acknowledged all of it. Otherwise its publisher is thrown away, together
with what that still queued, and the batch is published again with the same ids: a signal whose acknowledgement came too
late is on the topic twice, and consumers tell by its id. While the broker is away the buffer drops and counts.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from schemas.signal import Signal
from signalbox.ports import Publisher
from signalbox.sensors.buffer import SignalBuffer
from signalbox.sensors.threads import in_daemon_thread
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import SENSOR_DROPPED

log = get_logger(__name__)

#: Large enough to empty a full buffer in seconds. After a failure batches start again at one signal, so that few are
#: published twice, however often a broker takes signals without acknowledging them.
_BATCH = 500
#: A broker that acknowledges nothing for so long counts as away.
_ACKNOWLEDGE_S = 5.0
_BACKOFF_MIN_S = 0.2
_BACKOFF_MAX_S = 5.0

RunBlocking = Callable[[Callable[[], None]], Awaitable[None]]


class Delivery:
    """Publishes to one topic from a buffer. `run` is its only task; all else is called in the same loop."""

    def __init__(
        self,
        buffer: SignalBuffer,
        make_publisher: Callable[[], Publisher],
        topic: str,
        *,
        run_blocking: RunBlocking = in_daemon_thread,
    ) -> None:
        self.buffer = buffer
        self._make_publisher = make_publisher
        self._topic = topic
        self._run_blocking = run_blocking
        self._publisher: Publisher | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._failures = 0
        self._size = _BATCH

    def put(self, sensor: str, signals: Iterable[Signal[Any]]) -> None:
        """Buffer what a sensor said."""
        for signal in signals:
            if not self.buffer.add(sensor, signal):
                SENSOR_DROPPED.inc()
        self._wake.set()

    def close(self) -> None:
        """Let `run` end as soon as the buffer is empty."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until closed and empty. Whatever goes wrong is logged and tried again, never raised."""
        while True:
            batch = self.buffer.take(self._size)
            if batch:
                await self._deliver(batch)
            elif self._closing:
                break
            else:
                await self._wake.wait()
                self._wake.clear()
        await self._run_blocking(self._discard_publisher)

    async def _deliver(self, batch: list[Signal[Any]]) -> None:
        try:
            await self._run_blocking(partial(self._send, batch))
        except Exception as error:  # noqa: BLE001 - a sensor process outlives whatever the broker does
            self.buffer.release()
            self._size = 1
            self._failures += 1
            if self._failures.bit_count() == 1:  # the 1st, 2nd, 4th, 8th, ... in a row: enough to know, not to drown
                log.warning("the broker takes no signals; buffering", error=str(error), buffered=len(self.buffer))
            await asyncio.sleep(min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** min(self._failures - 1, 10)))
            return
        self.buffer.confirm()
        if self._failures:
            log.info("the broker takes signals again", buffered=len(self.buffer), dropped=self.buffer.dropped.total())
        self._failures = 0
        self._size = min(_BATCH, self._size * 2)

    def _send(self, batch: list[Signal[Any]]) -> None:
        if self._publisher is None:
            self._publisher = self._make_publisher()
        try:
            for signal in batch:
                self._publisher.publish(self._topic, signal)
            self._publisher.flush(_ACKNOWLEDGE_S)
        except Exception:
            self._discard_publisher()
            raise

    def _discard_publisher(self) -> None:
        """Its queue may still hold signals that the buffer keeps too; a fresh one starts empty."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with contextlib.suppress(Exception):
                publisher.close()
