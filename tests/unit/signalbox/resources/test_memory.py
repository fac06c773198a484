"""Memory is read from the system, but not all the time."""

from datetime import timedelta

import pytest

from signalbox.clock import SystemClock, VirtualClock
from signalbox.config import ResourceSettings
from signalbox.resources import MemoryWatch, ResourceExhausted, ResourceManager
from tests.support.resources import Memory, make_manager


def test_the_memory_of_this_process_is_read():
    """By default the resident memory of the present process counts: more than 10 MB, less than 100 GB."""
    watch = MemoryWatch(1 << 30, SystemClock())
    assert 10_000_000 < watch.used_bytes < 100_000_000_000
    assert watch.ratio == watch.used_bytes / (1 << 30)


def test_a_reading_is_used_for_a_second():
    """However often it is asked for, the system is asked at most once per second."""
    clock = VirtualClock()
    memory = Memory(clock)
    assert [memory.watch.ratio for _ in range(5)] == [0.1] * 5
    memory.used_bytes = 70
    clock.advance(timedelta(seconds=0.999))
    assert (memory.watch.ratio, memory.samples) == (0.1, 1)
    clock.advance(timedelta(seconds=0.001))
    assert (memory.watch.ratio, memory.samples) == (0.7, 2)


def test_beyond_the_limit_nothing_new_begins():
    """Above its part of the memory a process gives out no tokens, and does again when memory has come back."""
    clock = VirtualClock()
    memory = Memory(clock)
    manager = make_manager(clock=clock, memory=memory)
    memory.used_bytes = 101
    with pytest.raises(ResourceExhausted, match="memory") as refusal:
        manager.try_acquire("p", holder="h")
    assert (refusal.value.retryable, "resources.memory_mb" in str(refusal.value.hint)) == (True, True)
    memory.used_bytes = 100
    clock.advance(timedelta(seconds=1))
    assert manager.try_acquire("p", holder="h").tokens == 1


def test_a_worker_has_its_part_of_the_memory():
    """The limit of a process is its share of `memory_mb`."""
    settings = ResourceSettings(memory_mb=3)
    limits = [ResourceManager(settings, VirtualClock(), workers=2, index=one).memory.limit_bytes for one in range(2)]
    assert limits == [3 << 19, 3 << 19]


@pytest.mark.parametrize(("used", "level"), [(89, "normal"), (90, "warning"), (100, "warning"), (101, "critical")])
def test_a_reading_tells_when_memory_gets_short(used, level):
    """From `alert_threshold` on a reading is a warning, and critical where requests are refused."""
    clock = VirtualClock()
    memory = Memory(clock)
    memory.used_bytes = used
    [reading] = [one for one in make_manager(clock=clock, memory=memory).readings() if one.resource == "memory"]
    assert (reading.ratio, reading.level) == (used / 100, level)
