"""When to start a crashed process again: a decision about times, with no process in it.

The wait doubles with every crash of the last window; too many of them, and the process is left alone for a while.
A process that has been well for a whole window starts afresh.
"""

from collections import deque
from dataclasses import dataclass

from signalbox.clock import Clock
from signalbox.config import SupervisionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What to do after a crash: start again after `after_s` seconds."""

    after_s: float
    quarantined: bool


class RestartPolicy:
    """Remembers the crashes of one process and says how long to wait after each."""

    def __init__(self, settings: SupervisionSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._crashes: deque[float] = deque()

    def crashed(self) -> Restart:
        """Note a crash that happened now, and decide."""
        settings, now = self._settings, self._clock.monotonic()
        while self._crashes and now - self._crashes[0] >= settings.crash_window_s:
            self._crashes.popleft()
        self._crashes.append(now)
        if len(self._crashes) >= settings.crash_limit:
            self._crashes.clear()
            return Restart(after_s=settings.quarantine_s, quarantined=True)
        doubled = settings.backoff_min_s * 2.0 ** min(len(self._crashes) - 1, 32)
        return Restart(after_s=max(settings.backoff_min_s, min(settings.backoff_max_s, doubled)), quarantined=False)
