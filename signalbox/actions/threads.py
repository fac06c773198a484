"""Threads for actions that are plain functions.

A function that does not come back in time is left to itself: it keeps its thread and another one takes its place in
the pool, so a few that block for ever slow down nobody. The threads are daemons, so they do not hold up the end of the
process either.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from signalbox.actions.retry import ActionError

#: So many times the size of the pool may be lost to functions that do not come back.
_MOST_LOST = 4

Post: TypeAlias = Callable[..., None]
"""Calls a function with arguments in the event loop, from any thread."""


@dataclass(slots=True, eq=False)
class _Job:
    future: "asyncio.Future[Any]"
    call: Callable[[], Any]
    begun: bool = False
    given_up: bool = False


class ThreadPool:
    """At most `size` functions at once, besides those that were given up. Used from one event loop."""

    def __init__(self, size: int, post: Post) -> None:
        self._size = size
        self._post = post
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._live = 0
        self._wanted = 0
        self.lost = 0
        """Threads that are held by functions which were given up."""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in a thread; whoever is cancelled here leaves the function to itself.

        Raises:
            ActionError: too many threads are lost; it may be tried again.
            BaseException: the function raised it.
        """
        if self.lost >= _MOST_LOST * self._size:
            msg = f"{self.lost} threads are held by actions that do not come back"
            raise ActionError(msg, type="threads_exhausted", retryable=True)
        context = contextvars.copy_context()
        job = _Job(asyncio.get_running_loop().create_future(), lambda: context.run(function, *args))
        with self._lock:
            self._wanted += 1
            self._grow()
        self._jobs.put(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise

    def close(self) -> None:
        """Let the idle threads end; no further function will be run."""
        for _ in range(self._live):
            self._jobs.put(None)

    def _grow(self) -> None:
        if self._live - self.lost < min(self._size, self._wanted - self.lost):
            self._live += 1
            threading.Thread(target=self._work, name="action", daemon=True).start()

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            job.given_up = True
            if job.begun:
                self.lost += 1
                self._grow()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                job.begun = not job.given_up
            if job.begun:
                self._perform(job)
            with self._lock:
                self._wanted -= 1
                if job.begun and job.given_up:
                    self.lost -= 1
                if self._live - self.lost > self._size:
                    self._live -= 1
                    return

    def _perform(self, job: _Job) -> None:
        try:
            self._post(_settle, job.future, job.call(), None)
        except BaseException as error:  # noqa: BLE001 - a function may raise anything; it is for who waits
            self._post(_settle, job.future, None, error)


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        # A future cannot carry this one, which would end an iteration.
        future.set_exception(RuntimeError("StopIteration") if isinstance(error, StopIteration) else error)
