"""Calls into an event loop from other threads, many for one wake-up."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """Calls functions in the loop, in order. Each wake-up of a sleeping loop costs a system call, so they share one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver to this loop from now on."""
        self._loop = loop

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called soon. Any thread may; after the loop's end nothing happens."""
        self._calls.append((function, args))
        if not self._woken and self._loop is not None:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # In this order: what is posted from here on wakes the loop again, or is found below.
        self._woken = False
        while self._calls:
            function, args = self._calls.popleft()
            function(*args)
