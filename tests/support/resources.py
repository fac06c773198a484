"""Resource managers for tests: memory that is told, and time that is moved by hand."""

from typing import Any

from signalbox.clock import Clock, VirtualClock
from signalbox.config import ResourceSettings
from signalbox.resources import MemoryWatch, ResourceManager


class Memory:
    """Resident memory, as a test wants it; the limit is 100 bytes."""

    def __init__(self, clock: Clock) -> None:
        self.used_bytes = 10
        self.samples = 0
        self.watch = MemoryWatch(100, clock, self._read)

    def _read(self) -> int:
        self.samples += 1
        return self.used_bytes


def make_manager(
    *, clock: Clock | None = None, memory: Memory | None = None, workers: int = 1, index: int = 0, **settings: Any
) -> ResourceManager:
    """A manager with the pool `p` of 4 tokens that expire after 10 s, unless the settings say otherwise."""
    settings = {"pools": {"p": {"tokens": 4, "ttl_s": 10}}, **settings}
    clock = clock or VirtualClock()
    watch = (memory or Memory(clock)).watch
    return ResourceManager(ResourceSettings(**settings), clock, workers=workers, index=index, memory=watch)
