"""Takes one sensor's samples: in a thread or in the loop, with a deadline, and never two at once.

Whatever a sensor does wrong ends here, as a count and a text. When to sample is `runner.py`'s business.
"""

import asyncio
import inspect
import random
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from schemas.signal import Signal, decode, encode
from signalbox.sensors.contract import SampleContext, Sensor
from signalbox.sensors.threads import in_daemon_thread
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import SENSOR_COLLECT, SENSOR_ERRORS, SENSOR_LAST_SUCCESS, SENSOR_SAMPLES

log = get_logger(__name__)

#: Intervals and retries vary by this share either way, so that sensors and nodes do not act in step.
_JITTER = 0.1
#: The first retry comes after so long, or after the interval if that is shorter; each further one after twice as long,
_RETRY_S = 1.0
#: up to so many intervals: what is broken is then looked at less often than what works.
_RETRY_INTERVALS = 4.0
_ERROR_CHARACTERS = 500
#: The default deadline is the interval, but a short interval does not make a busy machine fast.
_LEAST_TIMEOUT_S = 1.0


@dataclass(slots=True)
class SensorStatus:
    """How a sensor is doing, as `signalbox status` shows it."""

    interval_s: float
    samples: int = 0
    errors: int = 0
    consecutive_errors: int = 0
    last_error: str | None = None
    """Kept after the sensor has recovered; `consecutive_errors` is 0 then."""
    last_success: str | None = None
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLimits:
    """What one sample may yield."""

    signals: int
    signal_bytes: int


class Sampler:
    """Drives one sensor. `accept` gets the signals of every sample, of failed ones too."""

    def __init__(
        self,
        sensor: Sensor,
        context: SampleContext,
        limits: SampleLimits,
        accept: Callable[[str, list[Signal[Any]]], None],
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.name = sensor.name
        self.status = SensorStatus(sensor.settings.interval_s)
        self._sensor = sensor
        self._context = context
        self._limits = limits
        self._accept = accept
        self._rng = rng or random.Random()  # noqa: S311  # spreads load, keeps no secret
        self._timeout_s = sensor.settings.timeout_s or max(sensor.settings.interval_s, _LEAST_TIMEOUT_S)
        self._started = False
        self._work: asyncio.Future[None] | None = None

    def first_delay_s(self) -> float:
        """Soon, but not at once: the node is still busy with starting, and that is not what should be measured."""
        return min(1.0, self.status.interval_s * _JITTER) * self._rng.uniform(0.5, 1.0)

    async def attempt(self) -> float:
        """Take a sample, and return after how many seconds the next one is due."""
        begun = self._context.monotonic()
        try:
            await self._sample()
        except Exception as error:  # noqa: BLE001 - a sensor is a guest: it may raise anything
            return self._failed(error)
        took = self._context.monotonic() - begun
        self.status.samples += 1
        self.status.consecutive_errors = 0
        self.status.last_success = self._context.now().isoformat()
        SENSOR_SAMPLES.labels(self.name).inc()
        SENSOR_COLLECT.labels(self.name).observe(took)
        SENSOR_LAST_SUCCESS.labels(self.name).set(self._context.now().timestamp())
        return max(0.0, self._jittered(self.status.interval_s) - took)

    async def stop(self, timeout_s: float) -> None:
        """Close the sensor, unless it never started or a sample still runs after the timeout. Never raises."""
        if self._work and not self._work.done():
            await asyncio.wait({self._work}, timeout=timeout_s / 2)
        if not self._started:
            return
        try:
            await self._call(self._sensor.stop, _ignore, timeout_s / 2)
        except Exception as error:  # noqa: BLE001 - the process ends either way
            log.warning("a sensor did not stop cleanly", sensor=self.name, error=_text(error))

    async def _sample(self) -> None:
        if not self._started:
            await self._call(self._sensor.start, self._mark_started, self._timeout_s)
        reading = _Reading(self._limits)
        try:
            await self._call(self._sensor.sample, reading.add, self._timeout_s)
        finally:
            self._accept(self.name, reading.close())

    async def _call(
        self, method: Callable[[SampleContext], Any], take: Callable[[Any], None], timeout_s: float
    ) -> None:
        """Run one method of the sensor where it belongs and give `take` what it returns, all within `timeout_s`."""
        if self._work and not self._work.done():
            msg = "the call that timed out still runs; waiting for it to end"
            raise TimeoutError(msg)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            self._work = asyncio.ensure_future(_call_in_loop(method, self._context, take))
        else:
            self._work = in_daemon_thread(lambda: take(method(self._context)))
        self._work.add_done_callback(_retrieve)
        try:
            done, _ = await asyncio.wait({self._work}, timeout=timeout_s)
        finally:
            if isinstance(self._work, asyncio.Task):
                self._work.cancel()  # does nothing to one that is done
        if not done:
            msg = f"{method.__name__} took longer than {timeout_s:g} s"
            raise TimeoutError(msg)
        if self._work.cancelled():
            msg = f"{method.__name__} cancelled itself"
            raise RuntimeError(msg)
        self._work.result()

    def _mark_started(self, _result: object) -> None:
        """Part of the call, so that a start that ends after its timeout is not repeated."""
        self._started = True

    def _failed(self, error: Exception) -> float:
        first = self.status.consecutive_errors == 0
        self.status.errors += 1
        self.status.consecutive_errors += 1
        self.status.last_error = _text(error)
        SENSOR_ERRORS.labels(self.name).inc()
        interval = self.status.interval_s
        growth = 2.0 ** min(self.status.consecutive_errors - 1, 30)
        retry_s = self._jittered(min(min(_RETRY_S, interval) * growth, interval * _RETRY_INTERVALS))
        log.warning(
            "a sensor failed",
            sensor=self.name,
            error=self.status.last_error,
            consecutive=self.status.consecutive_errors,
            retry_s=round(retry_s, 3),
            exc_info=error if first else None,
        )
        return retry_s

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - _JITTER, 1 + _JITTER)


class _Reading:
    """What one sample has yielded so far. Checks each signal here, so that none can spoil a batch later."""

    def __init__(self, limits: SampleLimits) -> None:
        self._limits = limits
        self._signals: list[Signal[Any]] = []
        self._open = True

    def add(self, signals: Iterable[Signal[Any]]) -> None:
        if not isinstance(signals, Iterable):
            msg = f"sample returned {signals!r:.80}; return or yield signals"
            raise TypeError(msg)
        for signal in signals:
            self._check(signal)
            self._signals.append(signal)

    def close(self) -> list[Signal[Any]]:
        """The signals; a thread that was left behind can add no more, and ends at its next attempt."""
        self._open = False
        return list(self._signals)

    def _check(self, signal: Signal[Any]) -> None:
        if not isinstance(signal, Signal):
            msg = f"sample yielded {signal!r:.80}; make signals with context.signal(type, data)"
            raise TypeError(msg)
        encoded = encode(signal)
        decode(encoded)
        if len(encoded) > self._limits.signal_bytes:
            msg = f"a signal of {len(encoded)} bytes; limits.signal_bytes is {self._limits.signal_bytes}"
            raise ValueError(msg)
        if not self._open or len(self._signals) >= self._limits.signals:
            msg = f"one sample may yield {self._limits.signals} signals, and only until it times out"
            raise ValueError(msg)


async def _call_in_loop(
    method: Callable[[SampleContext], Any], context: SampleContext, take: Callable[[Any], None]
) -> None:
    try:
        result = method(context)
        if isinstance(result, AsyncIterable):
            async for item in result:
                take([item])
        else:
            take(await result)
    except SystemExit as error:  # would end the loop, and with it every other sensor
        raise RuntimeError(repr(error)) from error


def _ignore(_result: object) -> None:
    """What `stop` returns means nothing."""


def _retrieve(work: "asyncio.Future[None]") -> None:
    """Look at the outcome, so that asyncio does not complain about one that came after its timeout."""
    if not work.cancelled():
        work.exception()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]
