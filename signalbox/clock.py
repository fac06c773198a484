"""Time as an argument: `SystemClock` in production, `VirtualClock` in tests and in the harness.

Agents, timers and policies read time only from here, so a test moves it by hand and never sleeps.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of the present time."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def now_ms(self) -> int:
        """The wall clock as Unix time in milliseconds: cheaper where no more is needed."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class VirtualClock:
    """A clock that stands still until it is advanced."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._now = start

    def now(self) -> datetime:
        return self._now

    def now_ms(self) -> int:
        return int(self._now.timestamp() * 1000)

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    def advance(self, by: timedelta) -> None:
        """Move forward.

        Raises:
            ValueError: `by` is negative; time does not run backwards.
        """
        if by < timedelta(0):
            msg = f"cannot advance by {by}: time does not run backwards"
            raise ValueError(msg)
        self._now += by
