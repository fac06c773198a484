"""What the supervisor has to tell on topics: taken at once, and written by a thread as soon as the broker takes it.

Nothing that the supervisor does waits for the broker. What a broker that is away keeps waiting is tried again, so a
signal may come twice, under the same id; the oldest are dropped, and counted in the log, when too many wait. What waits
when the supervisor dies is lost: what has to survive is in `targets.py`.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from schemas.signal import Signal
from signalbox import plugins
from signalbox.config import Settings
from signalbox.errors import SignalboxError
from signalbox.ports import Publisher
from signalbox.telemetry.logs import get_logger

_KEPT = 10_000
_TOGETHER = 500
_RETRY_S = 0.5
_ACKNOWLEDGE_S = 5.0

log = get_logger(__name__)


class Outbox:
    """Signals on their way to topics, in order."""

    def __init__(self, settings: Settings, *, make_publisher: Callable[[], Publisher] | None = None) -> None:
        """`make_publisher` replaces the publisher to the broker that the settings name."""
        self._settings = settings
        self._make_publisher = make_publisher or (lambda: plugins.publisher(settings.kafka))
        self._waiting: deque[tuple[str, Signal[Any]]] = deque(maxlen=_KEPT)
        self._changed = threading.Condition()
        self._open = True
        self._held = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def send(self, topic: str, signal: Signal[Any]) -> None:
        """Have a signal written to a topic, by its name without prefix. Never waits."""
        with self._changed:
            if len(self._waiting) == _KEPT:
                log.warning("the broker is away for long: the oldest notice is dropped", type=self._waiting[0][1].type)
            self._waiting.append((topic, signal))
            self._changed.notify()

    def hold(self) -> None:
        """Drop what waits, and leave the broker alone until `release`."""
        with self._changed:
            self._held = True
            self._waiting.clear()

    def release(self) -> None:
        """Write again."""
        with self._changed:
            self._held = False
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Write what waits, if that takes no longer than so many seconds."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        publisher: Publisher | None = None
        failing = False
        while (batch := self._next(failing)) is not None:
            try:
                publisher = publisher or self._make_publisher()
                for topic, signal in batch:
                    publisher.publish(self._settings.topic(topic), signal)
                publisher.flush(_ACKNOWLEDGE_S)
                failing = False
            except SignalboxError as error:
                if not failing:
                    log.warning("the broker takes no notices; they wait", error=str(error))
                failing = True
                with self._changed:
                    if not self._held:
                        self._waiting.extendleft(reversed(batch))
        if publisher is not None:
            publisher.close()

    def _next(self, failing: bool) -> list[tuple[str, Signal[Any]]] | None:
        """The signals to write next; None when it is closed and nothing waits, or nothing can be written."""
        with self._changed:
            if failing and self._open:
                self._changed.wait(_RETRY_S)
            while self._open and (self._held or not self._waiting):
                self._changed.wait()
            if not self._open and (failing or self._held or not self._waiting):
                return None
            return [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
