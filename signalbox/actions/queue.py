"""Which of the waiting actions may begin: the more urgent and then the older first, as far as every limit allows.

What waits for one limit is set aside and does not hold up others; when a place there comes free, the first in line for
it is looked at again. So each change costs the logarithm of the number that wait, however many there are.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from signalbox.actions.dependency import TokenBucket

Key: TypeAlias = tuple[str, object]
"""What a limit is about, such as `("action", "charge")`."""

_order = itertools.count()


@dataclass(slots=True, eq=False)
class Waiting:
    """Something that waits for its places."""

    limits: tuple[tuple[Key, int], ...] = ()
    """The limits that it counts against, and how many may run under each."""
    bucket: TokenBucket | None = None
    """The rate that it counts against."""
    priority: int = 0
    """Higher goes first."""
    is_step: bool = False
    """Whether it runs within another one, in whose place of the total it is."""
    order: int = field(default_factory=lambda: next(_order))
    withdrawn: bool = False
    freed: Key | None = None
    """The limit whose free place it has been called up for."""

    def __lt__(self, other: "Waiting") -> bool:
        return (-self.priority, self.order) < (-other.priority, other.order)


class ActionQueue:
    """The line before the limits of one worker process. Not thread-safe."""

    def __init__(self, total: int) -> None:
        """`total` may run at once, steps within others not counted."""
        self._total = total
        self._busy = 0
        self._line: list[Waiting] = []
        self._steps: list[Waiting] = []
        self._aside: dict[Key, list[Waiting]] = {}
        self._rated: dict[TokenBucket, list[Waiting]] = {}
        self._running: Counter[Key] = Counter()
        self._changed: dict[Key, int] = {}
        """Limits that have changed, whatever those in line were told."""

    def push(self, waiting: Waiting) -> None:
        """Stand in line."""
        heapq.heappush(self._steps if waiting.is_step else self._line, waiting)

    def withdraw(self, waiting: Waiting) -> None:
        """Leave the line; one that has been admitted is to be released instead."""
        waiting.withdrawn = True

    def limit(self, key: Key, places: int) -> None:
        """Let so many run under `key` from now on. More than that may still be at it."""
        self._changed[key] = places
        for _ in range(places - self._running[key]):
            self._call_up(key)

    def admitted(self) -> Iterator[Waiting]:
        """Those that may begin now, in order; each has its places once it is given."""
        for bucket, aside in self._rated.items():
            for _ in range(min(bucket.available, len(aside))):
                self.push(heapq.heappop(aside))
        self._rated = {bucket: aside for bucket, aside in self._rated.items() if aside}
        while (waiting := self._next()) is not None:
            called, waiting.freed = waiting.freed, None
            full = next((key for key, limit in waiting.limits if self._is_full(key, limit)), None)
            if waiting.withdrawn:
                self._call_up(called)
            elif full is not None:
                heapq.heappush(self._aside.setdefault(full, []), waiting)
                if called != full:
                    self._call_up(called)
            elif waiting.bucket is not None and not waiting.bucket.available:
                heapq.heappush(self._rated.setdefault(waiting.bucket, []), waiting)
                self._call_up(called)
            else:
                self._take(waiting)
                yield waiting

    def release(self, waiting: Waiting) -> None:
        """Give back the places of one that has been admitted."""
        self._busy -= not waiting.is_step
        for key, _ in waiting.limits:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
            self._call_up(key)

    def wait_s(self) -> float | None:
        """Seconds until a rate lets the next one pass; None if nobody waits for a rate."""
        return min((bucket.wait_s for bucket in self._rated), default=None)

    def _is_full(self, key: Key, limit: int) -> bool:
        return self._running[key] >= self._changed.get(key, limit)

    def _next(self) -> Waiting | None:
        if self._steps:
            return heapq.heappop(self._steps)
        return heapq.heappop(self._line) if self._line and self._busy < self._total else None

    def _call_up(self, key: Key | None) -> None:
        """Let the first that waits for a place under `key` be looked at again."""
        if key is not None and (aside := self._aside.get(key)):
            first = heapq.heappop(aside)
            first.freed = key
            self.push(first)
            if not aside:
                del self._aside[key]

    def _take(self, waiting: Waiting) -> None:
        self._busy += not waiting.is_step
        for key, _ in waiting.limits:
            self._running[key] += 1
        if waiting.bucket is not None:
            waiting.bucket.take()
