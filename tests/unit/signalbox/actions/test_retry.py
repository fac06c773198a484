"""Retry policies: when another attempt follows, and after how long."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.actions import ActionError, Retry


@given(
    st.integers(1, 50), st.floats(0.001, 10), st.floats(1, 5), st.floats(0.001, 60), st.floats(0, 100), st.integers()
)
def test_a_wait_grows_within_its_bounds(
    attempts: int, first_s: float, factor: float, max_s: float, asked_s: float, seed: int
) -> None:
    """A wait is at least what the other side asked for, and exceeds that by the backoff at most."""
    retry = Retry(max_attempts=99, first_s=first_s, factor=factor, max_s=max_s)
    error = ActionError("busy", retryable=True, retry_after_s=asked_s)
    wait_s = retry.wait_s(error, attempts=attempts, chance=random.Random(seed))
    assert asked_s <= wait_s <= asked_s + min(max_s, first_s * factor ** (attempts - 1)) + 1e-9


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ActionError("x", retryable=True), True),
        (ActionError("x"), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), False),
        (ValueError(), False),
    ],
)
def test_what_may_pass_is_told_by_the_error(error: Exception, passing: bool) -> None:
    """An `ActionError` speaks for itself; of others the classes decide, and `give_up_on` wins."""
    retry = Retry(max_attempts=3, give_up_on=(ConnectionRefusedError,))
    assert retry.is_passing(error) is passing
    assert retry.allows(error, attempts=1, elapsed_s=0) is passing


def test_attempts_and_time_are_bounded() -> None:
    """No attempt follows the last allowed one, nor one that ended after the allowed time."""
    retry = Retry(max_attempts=3, max_elapsed_s=10)
    error = TimeoutError()
    assert retry.allows(error, attempts=2, elapsed_s=9.9)
    assert not retry.allows(error, attempts=3, elapsed_s=0)
    assert not retry.allows(error, attempts=1, elapsed_s=10)
