"""How much memory this process uses of what it may use."""

from collections.abc import Callable

from signalbox.clock import Clock

SAMPLE_S = 1.0
"""A reading is used for so long."""


class MemoryWatch:
    """The resident memory of a process against a limit, read from the system at most once per second."""

    def __init__(self, limit_bytes: int, clock: Clock, read: Callable[[], int] | None = None) -> None:
        """`read` gives the resident memory in bytes; by default that of this process."""
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._read = read or _resident_reader()
        self._sampled_s: float | None = None
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Resident memory, up to `SAMPLE_S` old."""
        now_s = self._clock.monotonic()
        # Two threads may both read at the same moment: a reading too many does no harm.
        if self._sampled_s is None or now_s - self._sampled_s >= SAMPLE_S:
            self._used_bytes = self._read()
            self._sampled_s = now_s
        return self._used_bytes

    @property
    def ratio(self) -> float:
        """Memory in use as a ratio of the limit; above 1 if there is more."""
        return self.used_bytes / self.limit_bytes


def _resident_reader() -> Callable[[], int]:
    import psutil  # noqa: PLC0415 - commands that only list actions start without it

    process = psutil.Process()
    return lambda: int(process.memory_info().rss)
