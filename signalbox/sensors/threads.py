"""Runs blocking work beside the event loop without ever keeping the process alive for it.

`asyncio.to_thread` will not do: its pool is joined when the interpreter ends, so one sensor that hangs would hang the
exit. Nothing here stops a thread: who gives up on one leaves it behind.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


def in_daemon_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Run `work` in a daemon thread of its own; the future gets its result, or its exception.

    What is no plain error (`SystemExit`, `StopIteration`, ...) arrives as a `RuntimeError`, because a future cannot
    hold it or would end the loop with it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it ends here, in a thread that nobody joins
            plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
            failure = error if plain else RuntimeError(repr(error))
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="sensor", daemon=True).start()
    return future
