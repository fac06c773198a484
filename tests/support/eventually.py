"""Wait for a condition with a deadline, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], *, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """Call `check` until it returns something true, and return that.

    An `AssertionError` raised by `check` counts as "not yet". At the deadline the last failure is raised.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        failure: AssertionError | None = None
        try:
            if result := check():
                return result
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure or AssertionError(f"not within {timeout_s} s: {check}")
        time.sleep(every_s)
