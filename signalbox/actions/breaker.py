"""A circuit breaker: while a dependency fails, it is left alone, and asked carefully whether it is back.

Closed, it watches the latest calls. When too many of them failed it opens, and calls are refused. After a while it is
half open: a few probes pass, and their results decide. (Nygard, "Release It!", 2007, chapter 5.)
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the breaker of a dependency opens, and how it closes again."""

    window: int = 20
    """So many of the latest calls are looked at."""
    min_calls: int = 5
    """With fewer than so many it does not open."""
    failure_ratio: float = 0.5
    """At this share of failures among them it opens."""
    open_s: float = 5.0
    """So long it refuses calls."""
    probes: int = 2
    """So many calls pass while it is half open; when all of them succeeded it closes, at the first failure it opens."""


class BreakerOpen(Exception):
    """The dependency is left alone.

    Attributes:
        retry_after_s: when it is worth to try again.
    """

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name} failed too often and is left alone for {retry_after_s:.1f} s more")
        self.retry_after_s = retry_after_s


class CircuitBreaker:
    """The state of one breaker. Any thread may use it; no lock is held during a call.

    Each change of state begins a new generation, and results of calls from an earlier one no longer count: a slow call
    from before the breaker opened cannot close it.
    """

    def __init__(
        self,
        name: str,
        policy: Breaker,
        monotonic: Callable[[], float],
        changed: Callable[[str, State, State], None] = lambda name, before, after: None,
    ) -> None:
        """`changed` is called with the name, the state before and the one after; it must not raise or wait."""
        self.name = name
        self.policy = policy
        self._changed = changed
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._generation = 0
        self._latest: deque[bool] = deque(maxlen=policy.window)
        self._opened_s = 0.0
        self._probes_left = 0
        self._probes_succeeded = 0

    @property
    def state(self) -> State:
        """As it is now; an open one becomes half open when a call asks for it."""
        return self._state

    def admit(self) -> int:
        """Ask for permission to call; give what this returns to `record`.

        Raises:
            BreakerOpen: not now.
        """
        with self._lock:
            if self._state is State.OPEN:
                left_s = self._opened_s + self.policy.open_s - self._monotonic()
                if left_s > 0:
                    raise BreakerOpen(self.name, left_s)
                self._become(State.HALF_OPEN)
            if self._state is State.HALF_OPEN:
                if not self._probes_left:
                    # The probes may end at any moment.
                    raise BreakerOpen(self.name, self.policy.open_s / 10)
                self._probes_left -= 1
            return self._generation

    def record(self, permit: int, *, ok: bool | None) -> None:
        """Tell how a permitted call ended; None if that says nothing about the dependency."""
        with self._lock:
            if permit != self._generation:
                return
            if self._state is State.HALF_OPEN:
                self._record_probe(ok)
            elif ok is not None:
                self._latest.append(ok)
                failures = self._latest.count(False)
                enough = len(self._latest) >= self.policy.min_calls
                if enough and failures >= self.policy.failure_ratio * len(self._latest) and not ok:
                    self._become(State.OPEN)

    def _record_probe(self, ok: bool | None) -> None:
        if ok is None:
            self._probes_left += 1
        elif not ok:
            self._become(State.OPEN)
        else:
            self._probes_succeeded += 1
            if self._probes_succeeded == self.policy.probes:
                self._become(State.CLOSED)

    def _become(self, state: State) -> None:
        before, self._state = self._state, state
        self._generation += 1
        self._latest.clear()
        self._probes_succeeded = 0
        self._probes_left = self.policy.probes if state is State.HALF_OPEN else 0
        if state is State.OPEN:
            self._opened_s = self._monotonic()
        self._changed(self.name, before, state)
