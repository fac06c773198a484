from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from signalbox.clock import VirtualClock
from signalbox.config import SupervisionSettings
from signalbox.supervision.restarts import Restart, RestartPolicy

_pauses = st.lists(st.floats(0.0, 200.0), min_size=1, max_size=60)
_settings = st.builds(
    SupervisionSettings,
    backoff_min_s=st.floats(0.01, 5.0),
    backoff_max_s=st.floats(0.01, 60.0),
    crash_limit=st.integers(1, 12),
    crash_window_s=st.floats(1.0, 120.0),
    quarantine_s=st.floats(1.0, 120.0),
)


def _history(settings: SupervisionSettings, uptimes: list[float]) -> list[tuple[float, Restart]]:
    """Crash after each uptime, waiting as told between crashes; returns (time of crash, decision)."""
    clock = VirtualClock()
    policy = RestartPolicy(settings, clock)
    history = []
    for uptime in uptimes:
        clock.advance(timedelta(seconds=uptime))
        decision = policy.crashed()
        history.append((clock.monotonic(), decision))
        clock.advance(timedelta(seconds=decision.after_s))
    return history


def test_the_wait_doubles_from_the_least_to_the_most() -> None:
    """A process that crashes at once is started again after 0.2, 0.4, 0.8 ... and never more than 10 seconds."""
    settings = SupervisionSettings(crash_limit=100, crash_window_s=1000.0)
    waits = [decision.after_s for _, decision in _history(settings, [0.0] * 9)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_the_fifth_crash_within_a_minute_is_quarantine() -> None:
    """With the defaults, five crashes in a row mean a minute's rest, after which counting starts afresh."""
    decisions = [decision for _, decision in _history(SupervisionSettings(), [1.0] * 6)]
    assert [decision.quarantined for decision in decisions] == [False] * 4 + [True, False]
    assert decisions[4].after_s == 60.0
    assert decisions[5].after_s == 0.2


@given(_settings, _pauses)
def test_a_wait_is_never_outside_its_bounds(settings: SupervisionSettings, uptimes: list[float]) -> None:
    """Whatever the settings and the history, a wait lies between least and most, or is the quarantine."""
    for _, decision in _history(settings, uptimes):
        if decision.quarantined:
            assert decision.after_s == settings.quarantine_s
        else:
            assert decision.after_s >= settings.backoff_min_s
            assert decision.after_s <= max(settings.backoff_min_s, settings.backoff_max_s)


@given(_settings, _pauses)
def test_no_window_holds_more_crashes_than_the_limit_without_quarantine(
    settings: SupervisionSettings, uptimes: list[float]
) -> None:
    """As many crashes as the limit within one window always end in quarantine, and fewer never do."""
    free: list[float] = []
    for at, decision in _history(settings, uptimes):
        free = [earlier for earlier in free if at - earlier < settings.crash_window_s] + [at]
        assert decision.quarantined == (len(free) >= settings.crash_limit)
        if decision.quarantined:
            free = []


@given(_settings, _pauses)
def test_a_process_that_was_well_for_a_window_starts_afresh(
    settings: SupervisionSettings, uptimes: list[float]
) -> None:
    """After a whole window without a crash the next wait is the shortest again."""
    history = _history(settings, [*uptimes, settings.crash_window_s])
    last = history[-1][1]
    assert last.quarantined == (settings.crash_limit == 1)
    if not last.quarantined:
        assert last.after_s == settings.backoff_min_s
