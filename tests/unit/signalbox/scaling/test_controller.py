"""The controller's decisions, reason by reason."""

import json
import math
import random

import msgspec
import pytest

from signalbox.errors import SignalboxError
from signalbox.scaling.controller import decide, replay
from signalbox.scaling.memory import Memory
from signalbox.scaling.model import Sample
from signalbox.scaling.policy import Policy
from tests.unit.signalbox.scaling.load import RATE, Target

QUICK = Policy(pause_s=0.3)


def test_units_within_the_band_are_kept():
    """At 70 % utilization nothing changes, and the decision says how much the units are used."""
    decision = Target().tell_for(60, 70)
    assert (decision.verdict, decision.reason, decision.desired) == ("hold", "in_band", 1)
    assert "70%" in decision.message


def test_a_step_is_served_by_one_decision_in_full():
    """Ten times the load is decided on by the second sample, with units for all of it and the backlog."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    assert target.tell(700, lag=1200).reason == "confirming"
    decision = target.tell(700, lag=2400)
    assert (decision.verdict, decision.reason) == ("scale", "lag")
    # ceil((700 / 0.75 + 2400 / 60 + 700 * 0.3 / 60) / 100)
    assert decision.desired == 10
    assert decision.terms["target"] == pytest.approx(700 / 0.75 + 40 + 3.5)


def test_a_single_odd_sample_changes_nothing():
    """One sample that asks for more is not enough, and the next one that does begins anew."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    for _ in range(5):
        assert target.tell(700, lag=1200).reason == "confirming"
        assert {target.tell(70, lag=0).verdict for _ in range(10)} == {"hold"}


def test_high_utilization_without_a_backlog_asks_for_more():
    """Above the band the load alone is a reason."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    decision = target.until_scaled(97)
    assert (decision.reason, decision.desired) == ("load", 2)


def test_a_rising_load_is_met_before_it_is_there():
    """A trend whose forecasts have come true raises what is provided for, before the present load would."""
    target = Target(Policy(max=10), units=2)
    load = 60.0
    decision = target.tell(load)
    while decision.verdict == "hold" and load < 200:
        load += 0.6
        decision = target.tell(load)
    assert decision.reason == "forecast"
    assert load < 180


def test_fewer_units_only_after_the_window():
    """A load that falls leaves the units as they are until two minutes have asked for fewer."""
    target = Target(QUICK, units=8)
    target.tell_for(200, 600)
    assert target.tell_for(60, 100).reason == "down_window"
    decision = target.until_scaled(100)
    assert decision.reason == "low_load"
    assert decision.desired < 8
    assert target.at > 1000 + 200 + 120


def test_the_window_begins_although_the_first_look_was_in_the_middle_of_a_change():
    """A target that is first seen while it changes, or before all is measured, can lose units like any other."""
    target = Target(QUICK, units=8)
    assert target.tell(600, changing=True).reason == "changing"
    target.tell_for(200, 600)
    assert target.until_scaled(100).reason == "low_load"


def test_units_with_little_to_do_do_not_belie_what_they_could_do_under_load():
    """What nearly idle units spend on themselves does not count once it is known what they can do."""
    target = Target(QUICK, units=2)
    assert target.tell_for(20, 4, busy=0.1).terms["capacity"] == 20
    assert target.tell_for(20, 150).terms["capacity"] == RATE
    assert target.tell_for(120, 4, busy=0.1).terms["capacity"] == RATE


def test_the_most_of_the_window_counts():
    """One sample of high load keeps the units for another two minutes."""
    target = Target(QUICK, units=8)
    target.tell_for(200, 100)
    target.units = 8
    target.tell_for(6, 600)
    before = target.at
    target.until_scaled(100)
    assert target.at - before >= 100


def test_low_use_inside_the_band_is_trimmed_in_the_end():
    """With 55 % utilization for four minutes, fewer units that would be used well are taken."""
    target = Target(QUICK, units=8)
    decision = target.until_scaled(440, within_s=400)
    assert (decision.reason, decision.desired) == ("trim", 6)
    assert target.at - 1000 >= 240
    assert target.tell_for(600, 440).desired == 6


def test_fewer_that_noise_would_bring_back_are_not_taken():
    """Eight units at 42 % stay if the next useful number, four, would be used to 85 %."""
    decision = Target(QUICK, units=8, partitions=8).tell_for(400, 340)
    assert (decision.verdict, decision.reason) == ("hold", "margin")


def test_uneven_partitions_count_once_a_backlog_shows_them():
    """Seven units share eight partitions no better than four do: used to 64 % they seem enough, until records wait."""
    target = Target(QUICK, units=7, partitions=8)
    assert target.tell_for(60, 450).reason == "in_band"
    assert target.until_scaled(450, lag=900, processed=400.0, busy=0.57, within_s=10).desired == 8


def test_a_backlog_keeps_the_units():
    """While records wait, none is taken away, however low the load is."""
    target = Target(QUICK, units=8)
    target.tell_for(200, 100, lag=0)
    target.units = 8
    assert target.tell_for(400, 10, lag=900).reason in ("backlog", "in_band", "steady")
    assert target.tell(10, lag=900).reason == "backlog"


def test_full_memory_keeps_the_units():
    """Fewer units would have to hold what is gone; above 85 % of the limit they are not asked to."""
    target = Target(QUICK, units=8, memory=0.9)
    assert target.tell_for(400, 100).reason == "memory"


def test_changes_keep_their_distance():
    """Ten times the longest of the last pauses has to pass between changes."""
    target = Target(Policy(), pauses=(0.3, 3.0))
    target.tell_for(60, 70)
    target.until_scaled(170, lag=500)
    assert target.tell_for(20, 900, lag=9000).reason == "cooldown"
    assert target.until_scaled(900, lag=9000, within_s=14).reason == "lag"


def test_a_change_that_costs_more_than_it_saves_is_not_made():
    """With a pause of 40 s, a small excess is left alone."""
    target = Target(Policy(up_samples=1), pauses=(40.0,))
    target.tell_for(500, 70)
    decision = target.tell_for(60, 91)
    assert (decision.verdict, decision.reason) == ("hold", "not_worth_it")


@pytest.mark.parametrize("missing", ["arrivals", "lag", "processed", "busy"])
def test_what_is_not_measured_holds(missing):
    """A missing metric holds, and says which it is."""
    target = Target()
    target.tell_for(20, 70)
    decision = target.tell(**{"arrivals": 700, "lag": 9000, missing: None})
    assert (decision.verdict, decision.reason) == ("hold", "no_metrics")
    assert missing in decision.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e300])
def test_nonsense_counts_as_not_measured(value):
    """A value that no sensor can have measured holds, and does not stop anything."""
    target = Target()
    assert target.tell(value).reason == "no_metrics"
    assert target.tell(70, memory=value, service_s=value, throttled=value, pauses=(value, 0.3)).reason == "in_band"


def test_metrics_that_come_back_are_not_trusted_at_once():
    """After half a minute without metrics, fewer units take a whole window again."""
    target = Target(QUICK, units=8)
    target.tell_for(400, 600)
    target.tell_for(300, None)
    assert target.tell_for(100, 50).reason == "down_window"


def test_an_old_sample_holds():
    """A sample that is not newer than the last decides nothing and leaves the memory as it is."""
    target = Target()
    target.tell_for(20, 70)
    before, target.at = target.memory, target.at - 10
    assert target.tell(700, lag=9000).reason == "stale"
    assert target.memory == before


def test_a_change_under_way_holds():
    """While units come or go, nothing new is decided."""
    target = Target()
    target.tell_for(20, 70)
    assert target.tell_for(20, 700, lag=9000, changing=True).reason == "changing"


def test_a_pause_says_nothing_about_capacity():
    """The sample after a change, part of which was a pause, does not enter the capacity."""
    target = Target()
    target.tell_for(60, 70)
    for _ in range(20):
        target.tell(70, changing=True, processed=0.0, busy=0.9)
        decision = target.tell(70, processed=5.0, busy=0.9)
    assert decision.terms["capacity"] == pytest.approx(100)


def test_a_saturated_unit_shows_its_capacity():
    """A unit that is always busy does what it can: its capacity is its rate."""
    target = Target()
    assert target.tell(700, lag=9000, processed=80.0, busy=1.0).terms["capacity"] == pytest.approx(80)


def test_a_unit_that_does_not_look_busy_is_judged_by_what_it_does():
    """With 15 s of input waiting, a unit that says it is half idle is taken to be as fast as it is."""
    target = Target(QUICK)
    decision = target.tell_for(4, 100, lag=4000, processed=60.0, busy=0.5)
    assert decision.terms["capacity"] == pytest.approx(60)


def test_nothing_known_about_capacity_holds():
    """Without a record processed so far, nobody knows how many units it takes."""
    assert Target().tell(70, lag=100, processed=0.0, busy=0.0).reason == "no_capacity"


@pytest.mark.parametrize(("key", "reason"), [(None, "hot_partition"), ("order-1", "hot_key")])
def test_a_hot_partition_is_reported_and_not_scaled(key, reason):
    """One partition with most of the lag cannot be helped by more units; a key that is known is named."""
    target = Target(QUICK, units=2, partitions=8)
    target.tell_for(60, 150)
    decision = target.tell_for(20, 250, lag=5000, hottest=0.8, hot_key=key)
    assert (decision.verdict, decision.reason) == ("hold", reason)
    assert key is None or key in decision.message


def test_a_partition_stays_hot_until_its_backlog_is_spread():
    """What is left of a hot partition's backlog is no new load."""
    target = Target(QUICK, units=2, partitions=8)
    target.tell_for(60, 150)
    target.tell_for(20, 250, lag=5000, hottest=0.8)
    assert target.tell_for(20, 250, lag=20000, hottest=0.4).reason == "hot_partition"
    assert target.until_scaled(250, lag=20000, hottest=0.15, within_s=6).reason == "lag"


def test_refused_calls_block_more_units():
    """While an outside service refuses calls, and for a while after, more units would be refused too."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    assert target.tell_for(20, 200, lag=3000, throttled=20.0).reason == "throttled"
    assert target.tell_for(10, 200, lag=3000).reason == "throttled"
    assert target.memory.block_s == 600


def test_the_block_ends_when_nothing_is_refused_any_more():
    """Twenty seconds at full use without a refusal show that the limit is gone."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    target.tell_for(20, 200, lag=3000, throttled=20.0)
    assert target.until_scaled(200, lag=3000, within_s=30).reason == "lag"


def test_a_block_that_is_needed_again_is_twice_as_long():
    """Refusals that come back soon block for 20 minutes, and never for more than four hours."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    lengths = []
    for _ in range(8):
        target.tell_for(4, 200, lag=3000, throttled=20.0)
        lengths.append(target.memory.block_s)
        target.at += target.memory.block_s
        target.tell(70)
    assert lengths == [600, 1200, 2400, 4800, 9600, 14400, 14400, 14400]


def test_a_scale_up_that_did_not_help_is_undone():
    """If the rate stays where it was although records wait, the units go, and no more come for ten minutes."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    assert target.until_scaled(200, lag=3000).reason == "lag"
    stuck = {"lag": 5000, "processed": 101.0, "busy": 1.0}
    decision = target.until_scaled(200, **stuck)
    assert (decision.reason, decision.desired) == ("undo", 1)
    assert target.tell_for(300, 200, **stuck).reason == "ineffective"
    assert target.memory.block_s == 600


def test_a_scale_up_that_helped_stays():
    """If the rate rises as it should, the units stay while they work the backlog off."""
    target = Target(QUICK)
    target.tell_for(60, 70)
    target.until_scaled(200, lag=3000)
    units = target.units
    assert units > 2
    for _ in range(30):
        assert target.tell(200, lag=3000).desired >= units
    assert target.memory.trial is None


def test_partitions_bound_the_units():
    """More units than partitions that carry load are never asked for, and the decision says so."""
    target = Target(QUICK, partitions=4)
    target.tell_for(60, 70)
    assert target.until_scaled(900, lag=20000).desired == 4
    target.tell_for(20, 900, lag=20000)
    assert target.tell(900, lag=20000).reason == "at_partitions"


def test_the_policy_bounds_the_units():
    """More than the policy's most are never asked for, and the decision says so."""
    target = Target(Policy(max=3, pause_s=0.3))
    target.tell_for(60, 70)
    assert target.until_scaled(900, lag=20000).desired == 3
    target.tell_for(20, 900, lag=20000)
    assert target.tell(900, lag=20000).reason == "at_max"


def test_only_useful_numbers_of_units_are_asked_for():
    """Eight partitions are shared by five units no better than by four, so it is four or eight."""
    target = Target(QUICK, partitions=8)
    target.tell_for(60, 70)
    assert target.until_scaled(340, lag=1000).desired == 4
    target = Target(QUICK, partitions=8)
    target.tell_for(60, 70)
    assert target.until_scaled(380, lag=1000).desired == 8
    target = Target(Policy(max=7, pause_s=0.3), partitions=8)
    target.tell_for(60, 70)
    assert target.until_scaled(900, lag=9000).desired == 4


@pytest.mark.parametrize(("units", "desired", "reason"), [(1, 2, "below_min"), (9, 4, "above_max")])
def test_units_outside_of_the_bounds_are_brought_back(units, desired, reason):
    """A policy that was changed takes effect at once, whatever the load."""
    decision = Target(Policy(min=2, max=4), units=units).tell(70)
    assert (decision.desired, decision.reason) == (desired, reason)


def test_at_the_least_units_low_load_is_steady():
    """A single unit with little to do stays."""
    assert Target().tell_for(400, 5).reason == "steady"


def test_an_idle_flow_may_go_to_zero_and_comes_back():
    """After the idle time there is no unit; a record that comes wakes one at once."""
    target = Target(Policy(scale_to_zero=True, idle_s=60, pause_s=0.3))
    target.tell_for(60, 70)
    decision = target.until_scaled(0, within_s=100)
    assert (decision.reason, decision.desired) == ("idle", 0)
    assert target.tell_for(60, 0).reason == "asleep"
    decision = target.tell(0.5, lag=1)
    assert (decision.reason, decision.desired) == ("wake", 1)
    assert target.tell(0.5, lag=2).reason == "cooldown"


def test_a_flow_wakes_to_what_waits_for_it():
    """A large backlog wakes as many units as it takes."""
    target = Target(Policy(scale_to_zero=True, idle_s=60, pause_s=0.3))
    target.tell_for(60, 70)
    target.until_scaled(0, within_s=100)
    assert target.tell(300, lag=6000).desired > 3


def test_without_leave_nothing_goes_to_zero():
    """An idle target keeps its least units unless its policy says otherwise."""
    assert Target(Policy(idle_s=10)).tell_for(600, 0).desired == 1


def test_stuck_partitions_are_left_out():
    """Records behind a position that does not move ask for no units; those of other partitions do."""
    target = Target(QUICK, partitions=8)
    target.tell_for(60, 70)
    assert target.tell_for(20, 70, lag=9000, stuck=1, stuck_lag=9000.0).verdict == "hold"
    assert target.tell_for(20, 70, lag=9000, stuck=1, hottest=1.0).verdict == "hold"
    assert target.until_scaled(70, lag=9000, stuck=1, stuck_lag=1000.0).reason == "lag"


def test_losses_of_many_units_are_learned():
    """Three numbers of units with a falling rate each teach that more of them do less."""
    target = Target(QUICK)
    for units, rate in ((1, 100.0), (2, 160.0), (4, 240.0)):
        target.units = units
        target.tell_for(40, rate * 0.7, processed=rate * 0.7, busy=0.7)
    decision = target.tell(168.0, processed=168.0, busy=0.7)
    assert decision.terms["capacity"] == pytest.approx(60)
    # (1 * 100 + 2 * 160 + 4 * 240) / (1 + 4 + 16) is what a unit more would do by the fit: more than one does now.
    assert decision.terms["alpha"] == 1.0
    target.units = 1
    target.tell_for(40, 70)
    assert target.tell(70).terms["alpha"] == pytest.approx((100 + 320 + 960) / (21 * 100))


def test_a_pool_goes_to_a_hundred_and_back():
    """A pool has no partitions: a burst takes it to its most at once, and silence to one."""
    target = Target(Policy(max=100, pause_s=0.001), partitions=None, pauses=())
    target.tell_for(60, 70)
    assert target.until_scaled(8000, lag=30000).desired == 100
    assert target.until_scaled(5).desired < 100
    while target.units > 1:
        target.until_scaled(5)


def test_a_load_that_is_gone_takes_its_units_along_in_two_changes():
    """However short the window is: the mean of the arrivals does not ask for many steps down."""
    target = Target(Policy(max=100, pause_s=0.001, down_window_s=10), units=100, partitions=None, pauses=())
    target.tell_for(60, 8000)
    target.until_scaled(5)
    target.until_scaled(5)
    assert target.units == 1


def test_noise_of_a_fifth_changes_nothing():
    """A load that varies by 20 % around a constant is left alone."""
    target, draw = Target(QUICK, units=4), random.Random(7)
    reasons = {target.tell(280 * (0.8 + 0.4 * draw.random())).verdict for _ in range(1800)}
    assert reasons == {"hold"}


def test_a_decision_can_be_made_again_from_its_json():
    """After a round trip through JSON, the inputs give an equal decision, id, terms and message included."""
    target = Target(QUICK, partitions=8)
    target.tell_for(60, 70)
    decision = target.tell(700, lag=2400, hottest=0.2, hot_key="ä")
    assert replay(json.loads(json.dumps(decision.inputs))) == decision
    assert replay(msgspec.json.decode(msgspec.json.encode(decision.inputs))) == decision


def test_ids_tell_decisions_apart():
    """The id follows from everything that was decided by."""
    sample = Sample(target="flow/agents", at=1.0, units=1, arrivals=1.0, lag=0.0, processed=1.0, busy=0.1)
    ids = {
        decide(policy, Memory(), msgspec.structs.replace(sample, target=target))[0].id
        for policy in (Policy(), Policy(max=3))
        for target in ("flow/agents", "flow/monitoring")
    }
    assert len(ids) == 4


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"policy": {}, "memory": {}},
        {"policy": {"max": -1}, "memory": {}, "sample": {}},
        {"policy": 1, "memory": [], "sample": 2},
    ],
)
def test_other_inputs_are_refused(inputs):
    """What is not the record of a decision's inputs is an error with a hint."""
    with pytest.raises(SignalboxError) as caught:
        replay(inputs)
    assert caught.value.hint


def test_names_that_json_cannot_hold_do_no_harm():
    """A lone surrogate in a key or a target is replaced."""
    target = Target(QUICK, units=2, partitions=8)
    target.tell_for(60, 150)
    decision = target.tell_for(20, 250, lag=5000, hottest=0.8, hot_key="\ud800" * 9000)
    assert decision.reason == "hot_key"
    assert len(decision.message) < 500
