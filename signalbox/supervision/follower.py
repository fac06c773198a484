"""Follows a topic from a thread of its own, and goes on following whatever the broker does."""

import asyncio
import threading
import time
from collections.abc import Callable

from signalbox.telemetry.logs import get_logger

#: A reading that ended, or failed, is begun again after this long.
_RETRY_S = 1.0
#: How long a held reading may take to end: it looks up several times a second, unless a broker keeps it waiting.
_END_S = 2.0
#: Trouble that comes again within so long is the same trouble, and told once.
_SAME_TROUBLE_S = 60.0

log = get_logger(__name__)


class Follower:
    """Calls `follow` again and again in its thread, from `release` to `hold`."""

    def __init__(self, name: str, follow: Callable[[threading.Event], None], *, trouble: str) -> None:
        """Args:
        name: of the thread.
        follow: reads until the event it is given is set, or until there is a reason to begin anew.
        trouble: what to say when it raises.
        """
        self._name = name
        self._follow = follow
        self._trouble = trouble
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def release(self) -> None:
        """Begin to follow, unless that goes on already."""
        if self._thread is not None and not self._stop.is_set():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name=self._name, daemon=True)
        self._thread.start()

    async def hold(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _END_S)

    def _run(self, stop: threading.Event) -> None:
        failed_s: float | None = None
        while not stop.is_set():
            try:
                self._follow(stop)
            except Exception as error:  # noqa: BLE001 - the node outlives whatever the broker does
                now_s = time.monotonic()
                if not stop.is_set() and (failed_s is None or now_s - failed_s > _SAME_TROUBLE_S):
                    log.warning(self._trouble, error=str(error))
                failed_s = now_s
            stop.wait(_RETRY_S)
