import asyncio
import threading

import pytest

from signalbox.supervision.threads import CallerThread


def test_calls_run_in_order_in_one_thread_that_is_not_the_caller() -> None:
    """Every call of one CallerThread runs in the same daemon thread, one after another."""

    async def scenario() -> list[tuple[int, threading.Thread]]:
        thread = CallerThread("t")
        return await asyncio.gather(*(thread.call(lambda n=n: (n, threading.current_thread())) for n in range(3)))

    answers = asyncio.run(scenario())
    assert [n for n, _ in answers] == [0, 1, 2]
    assert len({thread.ident for _, thread in answers}) == 1
    assert answers[0][1].daemon
    assert answers[0][1] is not threading.current_thread()


def test_what_a_call_raises_reaches_the_caller() -> None:
    """An exception crosses the threads, and the next call works."""

    async def scenario() -> str:
        thread = CallerThread("t")
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda: 1 / 0)
        return await thread.call(str.upper, "still here")

    assert asyncio.run(scenario()) == "STILL HERE"


def test_a_call_that_hangs_does_not_keep_the_loop_from_ending() -> None:
    """Giving up on a call returns at once; its late answer goes nowhere."""
    release = threading.Event()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(CallerThread("t").call(release.wait), 0.01)

    asyncio.run(scenario())
    release.set()
