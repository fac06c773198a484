"""The bounded memory between sampling and publishing. Not thread-safe: the event loop alone touches it.

It is the only place where sensor signals wait: the publisher gets small batches and is emptied after each
(`delivery.py`), so `limit` bounds the memory and every loss is counted here.
"""

from collections import Counter, deque
from typing import Any

from schemas.signal import Signal


class SignalBuffer:
    """Holds at most `limit` signals in order; when it is full, the oldest that is not in flight is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: deque[tuple[str, Signal[Any]]] = deque()
        self._in_flight = 0
        self.dropped: Counter[str] = Counter()
        """Signals lost so far, by the name of the sensor that had made them."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, sensor: str, signal: Signal[Any]) -> bool:
        """Append a signal; false when that cost another one, or, with everything in flight, this one itself."""
        self._entries.append((sensor, signal))
        if len(self._entries) <= self._limit:
            return True
        loser, _ = self._entries[self._in_flight]
        del self._entries[self._in_flight]
        self.dropped[loser] += 1
        return False

    def take(self, count: int) -> list[Signal[Any]]:
        """The oldest signals, `count` at most, now in flight: they stay until `confirm` or `release`."""
        self._in_flight = min(count, len(self._entries))
        return [self._entries[index][1] for index in range(self._in_flight)]

    def confirm(self) -> None:
        """What was in flight has arrived."""
        for _ in range(self._in_flight):
            self._entries.popleft()
        self._in_flight = 0

    def release(self) -> None:
        """What was in flight has not arrived, and waits in its old place."""
        self._in_flight = 0
