"""A node's part in the registry: it keeps a view by following the topic, and tells there that it lives.

Both go on while the broker is away: the view stays as it was and grows old, and heartbeats are tried again. An embedded
broker that dies takes the topic with it, and makes a new one of any shape when asked for it by name; so both can be
held until the node has made its topics. What a view knows is `signalbox.registry`'s.
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import signalbox
from schemas.payloads.base import Payload
from schemas.payloads.health import ResourceLevel, ResourceMetrics
from schemas.payloads.nodes import NodeHeartbeat, NodeStopped
from schemas.signal import new_signal
from signalbox import plugins
from signalbox.clock import Clock
from signalbox.config import REGISTRY_TOPIC, Settings
from signalbox.errors import SignalboxError
from signalbox.ports import Publisher, Reader
from signalbox.registry.view import NODE_KEY_PREFIX, RegistryView
from signalbox.resources import level_of
from signalbox.supervision.follower import Follower
from signalbox.supervision.threads import CallerThread
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import REGISTRY_DROPPED

#: A broker that acknowledges nothing for so long counts as away.
_ACKNOWLEDGE_S = 3.0

log = get_logger(__name__)


class RegistryFeed:
    """Keeps a view up to date from a thread of its own, from `release` to `hold`."""

    def __init__(self, settings: Settings, clock: Clock, *, make_reader: Callable[[], Reader] | None = None) -> None:
        """`make_reader` replaces the reader of the broker that the settings name."""
        self._settings = settings
        self._clock = clock
        self._make_reader = make_reader or (lambda: plugins.reader(settings.kafka))
        self._follower = Follower("registry", self._follow, trouble="the registry cannot be read; the view grows old")
        self.view = self._empty()
        """The latest view. Another takes its place when the topic had to be read anew, as soon as that is complete."""

    def release(self) -> None:
        """Begin to follow the topic, from its start, unless that goes on already."""
        self._follower.release()

    async def hold(self) -> None:
        """Stop following; the view stays as it is."""
        await self._follower.hold()

    def _follow(self, stop: threading.Event) -> None:
        """Read the topic into a fresh view until stopped, or until the topic has become another one."""
        view = self._empty()
        if not self.view.complete:
            self.view = view

        def caught_up() -> None:
            view.complete = True
            self.view = view
            log.info("the registry is known", **view.summary())

        records = self._make_reader().read(
            [self._settings.topic(REGISTRY_TOPIC)],
            start="start",
            follow=True,
            timeout_s=None,
            stop=stop.is_set,
            caught_up=caught_up,
        )
        for record in records:
            if view.has_read(record):
                log.warning("the registry topic begins anew: reading it from its start")
                return
            if (reason := view.apply(record)) is not None:
                REGISTRY_DROPPED.labels(reason).inc()

    def _empty(self) -> RegistryView:
        size, ttl_s = self._settings.resources.registry_size, self._settings.registry.ttl_s
        return RegistryView(size=size, ttl_s=ttl_s, clock=self._clock)


class Heartbeat:
    """Tells on the registry topic that this node lives, and in the end that it stopped. Use it in one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        started_at: datetime,
        census: Callable[[], tuple[int, int | None]],
        fill_ratio: Callable[[], float] = lambda: 0.0,
        make_publisher: Callable[[], Publisher] | None = None,
    ) -> None:
        """Args:
        settings: name of the node, broker and intervals.
        started_at: when the node's supervisor started.
        census: gives the number of worker processes, and of agents on them if it is known.
        fill_ratio: gives how much of the room for agents in the view of the registry is taken, 0 to 1.
        make_publisher: replaces the publisher to the broker that the settings name.
        """
        self._settings = settings
        self._started_at = started_at
        self._census = census
        self._fill_ratio = fill_ratio
        self._make_publisher = make_publisher or (lambda: plugins.publisher(settings.kafka))
        self._publisher: Publisher | None = None
        self._thread = CallerThread("heartbeat")
        self._released = asyncio.Event()
        self._failing = False

    def release(self) -> None:
        """Begin to tell, at once."""
        self._released.set()

    async def hold(self) -> None:
        """Say nothing until released, and leave the broker alone."""
        self._released.clear()
        await self._thread.call(self._close)

    async def run(self) -> None:
        """Tell for ever; whatever goes wrong is logged once, and tried again."""
        while True:
            await self._released.wait()
            await self._tell(REGISTRY_TOPIC, "node.heartbeat", self._alive())
            await self._tell("signals", "system.resources.metrics", self._fullness())
            await asyncio.sleep(self._settings.registry.heartbeat_s)

    async def end(self, reason: str) -> None:
        """Tell that the node has stopped, and why."""
        stopped = NodeStopped(node=self._settings.node.name, reason=reason, stopped_at=datetime.now(UTC))
        if self._released.is_set():
            await self._tell(REGISTRY_TOPIC, "node.stopped", stopped)
        await self._thread.call(self._close)

    def _alive(self) -> NodeHeartbeat:
        workers, agents = self._census()
        return NodeHeartbeat(
            node=self._settings.node.name,
            version=signalbox.__version__,
            started_at=self._started_at,
            interval_s=self._settings.registry.heartbeat_s,
            workers=workers,
            agents=agents,
        )

    def _fullness(self) -> ResourceMetrics:
        """For the monitor, which raises an alert before agents have to be left out."""
        ratio, threshold = self._fill_ratio(), self._settings.resources.alert_threshold
        full = ResourceLevel(resource="registry", ratio=ratio, level=level_of(ratio, threshold, critical=ratio >= 1))
        return ResourceMetrics(levels=(full,), alert_threshold=threshold, timestamp=datetime.now(UTC))

    async def _tell(self, topic: str, type: str, data: Payload) -> None:
        try:
            await self._thread.call(self._publish, topic, type, data)
        except SignalboxError as error:
            if not self._failing:
                log.warning("the broker takes no heartbeat", error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _publish(self, topic: str, type: str, data: Payload) -> None:
        if not self._released.is_set():  # held since this was asked for
            return
        if self._publisher is None:
            self._publisher = self._make_publisher()
        name = self._settings.node.name
        subject = NODE_KEY_PREFIX + name if topic == REGISTRY_TOPIC else name
        signal = new_signal(type, data, source=f"signalbox/{name}", subject=subject)
        self._publisher.publish(self._settings.topic(topic), signal)
        self._publisher.flush(_ACKNOWLEDGE_S)

    def _close(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()
