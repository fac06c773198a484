"""What a worker counts of the actions of its pools."""

from signalbox.actions.tally import Tally, percentile


def pool_of(agent_id: str) -> str | None:
    return "task_agent" if agent_id.startswith("task_agent_") else None


def test_actions_are_counted_by_pool() -> None:
    """All members count together, agents of no pool not at all, and the time is that of nearly all actions."""
    tally = Tally(pool_of)
    for number in range(100):
        tally.asked(f"task_agent_{number % 5 + 1}")
    tally.asked("system_monitor")
    for number in range(40):
        tally.ended(f"task_agent_{number % 5 + 1}", number / 10)
    tally.ended("system_monitor", 99.0)
    assert tally.told() == {"task_agent": {"asked": 100, "ended": 40, "service_s": 3.7}}


def test_only_the_latest_durations_count() -> None:
    """A slow past is forgotten, and what is kept is bounded."""
    tally = Tally(pool_of)
    tally.asked("task_agent_1")
    for duration_s in (*[60.0] * 500, *[1.0] * 200):
        tally.ended("task_agent_1", duration_s)
    assert tally.told()["task_agent"]["service_s"] == 1.0


def test_a_percentile_is_one_of_the_values() -> None:
    """By nearest rank: of none there is none, of one it is that one."""
    assert [percentile(values, 0.95) for values in ([], [3.0], [float(one) for one in range(1, 21)])] == [
        None,
        3.0,
        19.0,
    ]
