"""What follows from two looks at a flow, and what must stay unknown."""

from typing import Any

import pytest

from signalbox.sensors.load_meter import FlowMeter, Look, PoolMeter


def worker(pid: int = 1, *, state: str = "running", **told: Any) -> dict[str, Any]:
    return {"pid": pid, "state": state, "busy_s": 0.0, "actions_in_flight": 0, "throttled": 0, "memory": 0.1, **told}


def at(positions: dict[str, int]) -> dict[str, list[int | None]]:
    return {part: [position, None] for part, position in positions.items()}


def look(when: float, ends: dict[str, int] | None, *answers: dict[str, Any] | None, **more: Any) -> Look:
    return Look(at=when, answers=list(answers), ends=ends, **more)


def meter() -> FlowMeter:
    return FlowMeter(max_in_flight=100)


def test_rates_are_those_between_two_looks() -> None:
    """Arrivals come from the ends, the processed from the positions of all workers and topics together."""
    one = meter()
    first = one.measure(
        look(
            0,
            {"signals-0": 100, "effects-1": 10},
            worker(1, positions=at({"signals-0": 90})),
            worker(2, positions=at({"effects-1": 10})),
        )
    )
    assert (first.units, first.lag, first.arrivals, first.processed, first.busy) == (2, 10, None, None, None)
    second = one.measure(
        look(
            2,
            {"signals-0": 300, "effects-1": 30},
            worker(1, positions=at({"signals-0": 200}), busy_s=1.0, throttled=3),
            worker(2, positions=at({"effects-1": 30}), busy_s=0.5, memory=0.7, throttled=1),
        )
    )
    assert (second.arrivals, second.processed, second.lag) == (110.0, 65.0, 100)
    assert second.busy == pytest.approx((0.5 + 0.25) / 2)
    assert (second.throttled, second.memory) == (2.0, 0.7)
    assert second.service_s == pytest.approx(1.5 / 130)
    assert (second.partitions, second.hottest) == (1, 1.0)


def test_a_worker_full_of_actions_is_busy_although_its_thread_is_not() -> None:
    """Of the time of the thread and the places for actions, the fuller one counts."""
    one = meter()
    for when, busy_s in ((0, 0.0), (2, 0.2)):
        told = one.measure(
            look(when, {"signals-0": 0}, worker(positions=at({"signals-0": 0}), busy_s=busy_s, actions_in_flight=80))
        )
    assert told.busy == pytest.approx(0.8)


def test_a_silent_worker_leaves_gaps_and_no_wrong_numbers() -> None:
    """While one of two does not answer, only arrivals are known; after that, rates begin anew."""
    one = meter()
    parts = ({"signals-0": 5}, {"signals-1": 5})
    ends = {"signals-0": 5, "signals-1": 9}
    told = []
    for when, is_silent in ((0, False), (2, True), (4, False), (6, False)):
        ends = {part: end + 10 for part, end in ends.items()}
        second = None if is_silent else worker(2, positions=at(parts[1]), busy_s=when)
        told.append(one.measure(look(when, dict(ends), worker(1, positions=at(parts[0]), busy_s=when / 4), second)))
    assert [load.arrivals for load in told] == [None, 10.0, 10.0, 10.0]
    assert [load.lag for load in told] == [24, None, 64, 84]
    assert [load.processed for load in told] == [None, None, None, 0.0]
    assert [load.busy for load in told] == [None, None, None, pytest.approx(0.625)]
    assert [load.changing for load in told] == [False, True, False, False]


def test_a_broker_that_is_away_leaves_arrivals_and_lag_unknown() -> None:
    """What the workers did is known all the same, and the reason is told."""
    one = meter()
    one.measure(look(0, {"signals-0": 10}, worker(positions=at({"signals-0": 0}))))
    gone = one.measure(look(2, None, worker(positions=at({"signals-0": 8})), silence="the broker does not answer"))
    assert (gone.arrivals, gone.lag, gone.processed, gone.unknown) == (None, None, 4.0, "the broker does not answer")
    back = one.measure(look(4, {"signals-0": 30}, worker(positions=at({"signals-0": 8}))))
    assert (back.arrivals, back.lag) == (None, 22)


def test_without_workers_what_waits_is_still_known() -> None:
    """A flow that has none has no one to ask: its progress is what it last told the broker."""
    one = meter()
    for when, end in ((0, 10), (2, 50)):
        told = one.measure(look(when, {"signals-0": end}, mirrored={"signals-0": 10}))
    assert (told.units, told.arrivals, told.processed, told.lag, told.busy, told.changing) == (
        0,
        20.0,
        0.0,
        40,
        None,
        False,
    )


def test_a_partition_that_nobody_holds_makes_the_lag_unknown() -> None:
    """Between two generations of workers a partition may have no reader: part of the lag is no lag."""
    told = meter().measure(look(0, {"signals-0": 5, "signals-1": 5}, worker(positions=at({"signals-0": 5}))))
    assert told.lag is None


def test_a_restarted_worker_starts_its_counts_anew() -> None:
    """Another process, or counts that fall, say nothing about the time since the last look."""
    one = meter()
    for pid, busy_s in ((1, 50.0), (2, 1.0), (2, 0.5)):
        told = one.measure(look(pid * 10 + busy_s, {}, worker(pid, positions={}, busy_s=busy_s)))
        assert told.busy is None


def test_positions_that_went_back_do_not_count_as_negative_work() -> None:
    """After a crash, records are read again from the last snapshot."""
    one = meter()
    one.measure(look(0, {"signals-0": 100}, worker(1, positions=at({"signals-0": 100}))))
    told = one.measure(look(2, {"signals-0": 100}, worker(2, positions=at({"signals-0": 60}))))
    assert (told.processed, told.lag) == (0.0, 40)


def test_the_partitions_that_carry_load_are_those_of_the_last_minute() -> None:
    """Of the topic with most of them; in a minute without any, all could carry some."""
    one = meter()
    ends = {"signals-0": 0, "signals-1": 0, "signals-2": 0, "control-0": 0}

    def told(when: float) -> int | None:
        positions = at(ends)
        return one.measure(look(when, dict(ends), worker(positions=positions))).partitions

    assert told(0) == 3
    ends |= {"signals-0": 5, "signals-2": 5, "control-0": 5}
    assert told(2) == 2
    ends["signals-0"] = 6
    assert told(40) == 2
    assert told(63) == 1
    assert told(200) == 3


def test_the_hottest_partition_has_its_share_of_what_waits() -> None:
    """Most of the lag in one partition shows as that, whatever the others have."""
    ends = {"signals-0": 100, "signals-1": 20, "signals-2": 0}
    told = meter().measure(look(0, ends, worker(positions=at(dict.fromkeys(ends, 0)))))
    assert told.hottest == pytest.approx(100 / 120)


def test_a_hot_key_is_that_of_the_fullest_partition() -> None:
    """The hot key of another partition does not matter, nor does one where nothing waits."""
    hot = []
    for ends in ({"signals-0": 900, "signals-1": 20}, {"signals-0": 10, "signals-1": 20}, {"signals-0": 0}):
        one = worker(positions=at(dict.fromkeys(ends, 0)), hot_keys={"signals-0": "order-7"})
        hot.append(meter().measure(look(0, ends, one)).hot_key)
    assert hot == ["order-7", None, None]


def test_a_partition_that_stands_while_others_move_is_stuck() -> None:
    """A record that cannot be got past shows after a while, with what waits behind it."""
    one = meter()
    for when in range(0, 20, 2):
        ends = {"signals-0": 50, "signals-1": when * 10 + 5}
        positions = at({"signals-0": 7, "signals-1": when * 10})
        told = one.measure(look(when, ends, worker(positions=positions)))
        assert told.stuck == (when >= 16)
    assert told.stuck_lag == 43


def test_a_flow_with_all_it_can_take_is_not_stuck() -> None:
    """When no partition of a topic is read because too many actions are under way, none of them is at fault."""
    one = meter()
    for when in range(0, 40, 2):
        ends = {"signals-0": 50, "signals-1": 60, "effects-0": when + 2}
        positions = at({"signals-0": 7, "signals-1": 7, "effects-0": when})
        told = one.measure(look(when, ends, worker(positions=positions)))
        assert told.stuck == 0


def test_workers_that_come_or_go_are_a_change() -> None:
    """One that starts, stands by or drains makes the flow changing."""
    for state in ("starting", "standby", "draining"):
        assert meter().measure(look(0, {}, worker(state=state, positions={}))).changing


def pool_work(asked: int, ended: int, service_s: float | None = None) -> dict[str, Any]:
    return {"work": {"task_agent": {"asked": asked, "ended": ended, "service_s": service_s}}}


def test_a_pool_is_as_busy_as_its_slots_and_queues_what_is_beyond() -> None:
    """Actions under way on all workers, against what its agents are meant to have at once."""
    one = PoolMeter("task_agent")
    one.measure(look(0, {}, worker(1, **pool_work(10, 10)), worker(2, **pool_work(0, 0))), size=3, slots=2)
    told, queued = one.measure(
        look(2, {}, worker(1, **pool_work(16, 13, 0.5)), worker(2, **pool_work(2, 2, 0.75))), size=3, slots=2
    )
    assert (told.units, told.arrivals, told.processed, told.busy, told.lag, told.service_s) == (
        3,
        4.0,
        2.5,
        0.5,
        0,
        0.75,
    )
    told, queued = one.measure(
        look(4, {}, worker(1, **pool_work(26, 13)), worker(2, **pool_work(2, 2))), size=3, slots=2
    )
    assert (told.busy, told.lag, queued) == (1.0, 7, 7)


def test_a_pool_is_unknown_while_a_worker_is_silent() -> None:
    """Half of the actions is no measure of a pool; its size is known."""
    one = PoolMeter("task_agent")
    for when, second in ((0, worker(2)), (2, None), (4, worker(2))):
        told, queued = one.measure(look(when, {}, worker(1, **pool_work(3, 1)), second), size=3, slots=2)
        known = (told.lag, told.busy, queued) if second is None else None
        assert known in (None, (None, None, None))
        assert (told.units, told.arrivals) == (3, None)
