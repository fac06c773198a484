"""The Kafka broker as the node sees it: run by the node itself, or somebody else's, whose answer is waited for.

A broker of the node that dies is started again on the same port. What the embedded one held is lost then, so the node
is told before and starts the flows afresh. `node.py` decides what that means; topics and clients are `connectors`' own.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from signalbox.clock import Clock
from signalbox.config import Settings
from signalbox.errors import SignalboxError, Unreachable
from signalbox.ports import Admin, LocalBroker
from signalbox.supervision.restarts import RestartPolicy
from signalbox.supervision.threads import CallerThread
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import RESTARTS

#: Topics every node needs, by our names for them; `Settings.topic` gives the broker's.
TOPICS = (
    "signals", "alerts", "scaling", "results", "telemetry", "control", "effects", "registry", "dead-letters",
)  # fmt: skip
_LOOK_S = 0.5
_CHECK_S = 5.0
_PROGRESS_S = 5.0
_RETRY_S = 0.25

log = get_logger(__name__)


class OwnBroker:
    """A broker process of this node."""

    def __init__(self, broker: LocalBroker, settings: Settings, clock: Clock) -> None:
        self._broker = broker
        self._settings = settings
        self._policy = RestartPolicy(settings.supervision, clock)
        # The broker is tied to the thread that started it, which therefore has to last.
        self._thread = CallerThread("local-broker")
        self._watch: asyncio.Task[None] | None = None
        self.bootstrap = ""
        self.problem: str | None = None

    async def start(self) -> str:
        """Start it and return `HOST:PORT`; for errors see `LocalBroker.start`."""
        timeout_s = self._settings.supervision.start_timeout_s
        log.info("starting the broker", kind=self._settings.kafka.broker)
        self.bootstrap = await self._thread.call(self._broker.start, timeout_s=timeout_s)
        return self.bootstrap

    def watch(
        self, *, lost: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]
    ) -> "asyncio.Task[None]":
        """From now on start it again when it dies, after `lost` and before `back`, until stopped."""
        self._watch = asyncio.create_task(self._keep(lost, back))
        return self._watch

    async def stop(self) -> None:
        """Stop it; does nothing if it does not run."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        await self._thread.call(self._broker.stop)

    async def _keep(self, lost: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._broker.alive():
                continue
            self.problem = "the local broker died and is being started again"
            log.error("the local broker died", kind=self._settings.kafka.broker)
            await lost()
            await self._start_again(back)
            self.problem = None

    async def _start_again(self, back: Callable[[], Awaitable[None]]) -> None:
        port = int(self.bootstrap.rpartition(":")[2])
        timeout_s = self._settings.supervision.start_timeout_s
        while True:
            await asyncio.sleep(self._policy.crashed().after_s)
            try:
                if not self._broker.alive():
                    RESTARTS.labels(process="broker", reason="exit").inc()
                    await self._thread.call(self._broker.start, port=port, timeout_s=timeout_s)
                await back()
            except SignalboxError as error:
                log.error("the local broker cannot be used", error=str(error))
            else:
                return


class OuterBroker:
    """A broker that somebody else runs."""

    def __init__(self, admin: Admin, settings: Settings, clock: Clock) -> None:
        self._admin = admin
        self._settings = settings
        self._clock = clock
        self._thread = CallerThread("broker-check")
        self._watch: asyncio.Task[None] | None = None
        self.bootstrap = settings.kafka.bootstrap
        self.problem: str | None = None

    async def start(self) -> str:
        """Wait until it answers, and return its address.

        Raises:
            Unreachable: it did not within `supervision.start_timeout_s`.
        """
        began = self._clock.monotonic()
        limit_s = self._settings.supervision.start_timeout_s
        reported_s = 0.0
        while True:
            try:
                await self._thread.call(self._admin.cluster_id)
            except Unreachable as error:
                waited_s = self._clock.monotonic() - began
                if waited_s >= limit_s:
                    msg = f"no Kafka broker answers at {self.bootstrap} (waited {waited_s:.0f} s): {error}"
                    hint = "start it, correct kafka.bootstrap, or run one here with --broker embedded or --broker kafka"
                    raise Unreachable(msg, hint=hint) from error
                if waited_s - reported_s >= _PROGRESS_S or not reported_s:
                    reported_s = max(waited_s, _RETRY_S)
                    log.warning(
                        "waiting for Kafka", bootstrap=self.bootstrap, waited_s=round(waited_s), limit_s=limit_s
                    )
                await asyncio.sleep(_RETRY_S)
            else:
                return self.bootstrap

    def watch(
        self, *, lost: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]
    ) -> "asyncio.Task[None]":
        """From now on notice when it does not answer. Clients reconnect by themselves, so nobody else is told."""
        self._watch = asyncio.create_task(self._check())
        return self._watch

    async def stop(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            try:
                await self._thread.call(self._admin.cluster_id)
            except SignalboxError as error:
                if self.problem is None:
                    log.warning("Kafka does not answer", bootstrap=self.bootstrap, error=str(error))
                self.problem = f"Kafka does not answer at {self.bootstrap}"
            else:
                self.problem = None
