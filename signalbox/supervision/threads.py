"""Blocking calls from an asyncio program, in a daemon thread that lives as long as the process.

Two things an executor does not give: a process tied to the thread that started it (see `parent.die_with_parent`) is not
killed by a thread's end, and a call that hangs does not keep the program from ending.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class CallerThread:
    """Makes calls one after another in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call `function` there, and return what it returns or raise what it raises.

        Cancelling this does not end the call; later calls wait for it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # a None here is the function's own

        def work() -> None:
            result: T | None = None
            raised: BaseException | None = None
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                raised = error
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(settle, result, raised)

        self._calls.put(work)
        return await future

    def _work(self) -> None:
        while True:
            self._calls.get()()
