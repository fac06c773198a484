"""The clocks: the machine's, and one that is moved by hand."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.clock import SystemClock, VirtualClock


def test_the_system_clock_tells_utc() -> None:
    """The present has a zone, agrees in both forms, and the monotonic clock does not run backwards."""
    clock = SystemClock()
    before_ms, now, after_ms = clock.now_ms(), clock.now(), clock.now_ms()
    assert now.tzinfo is UTC
    assert before_ms <= now.timestamp() * 1000 <= after_ms + 1
    assert clock.monotonic() <= clock.monotonic()


def test_a_virtual_clock_stands_still() -> None:
    """Without being advanced, a virtual clock always shows the same."""
    clock = VirtualClock(datetime(2030, 1, 1, tzinfo=UTC))
    assert (clock.now(), clock.monotonic()) == (datetime(2030, 1, 1, tzinfo=UTC), 0.0)
    assert clock.now() == clock.now()


@given(st.lists(st.integers(0, 10**9), max_size=20))
def test_a_virtual_clock_moves_exactly(steps_ms: list[int]) -> None:
    """Steps add up to the millisecond in all three forms."""
    clock = VirtualClock()
    start_ms, start = clock.now_ms(), clock.now()
    for step in steps_ms:
        clock.advance(timedelta(milliseconds=step))
    assert clock.now_ms() - start_ms == sum(steps_ms)
    assert clock.now() - start == timedelta(milliseconds=sum(steps_ms))
    assert clock.monotonic() == pytest.approx(sum(steps_ms) / 1000)


def test_time_does_not_run_backwards() -> None:
    """A negative step is refused and changes nothing."""
    clock = VirtualClock()
    before = clock.now()
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(timedelta(microseconds=-1))
    assert clock.now() == before
