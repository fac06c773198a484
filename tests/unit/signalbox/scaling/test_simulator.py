"""The closed loop: what the simulated target does, the rivals' rules, and what the comparison is said to show."""

import pytest

from signalbox.scaling import comparison, traces
from signalbox.scaling.model import Sample
from signalbox.scaling.plant import Plant, PlantSettings
from signalbox.scaling.policy import Policy
from signalbox.scaling.rivals import Flink, Hpa, Ours
from signalbox.scaling.simulator import simulate
from signalbox.scaling.traces import Span, Trace

EXACT = PlantSettings(noise=0.0, contention=0.0)


@pytest.fixture(scope="module")
def runs():
    """Every policy on every shipped trace, by policy and trace."""
    policies = ("ours", "hpa", "hpa_tuned", "flink")
    every = comparison.compare(traces.shipped().values(), policies, Policy())
    return {policy: {run.trace: run for run in every if run.policy == policy} for policy in policies}


def total(runs, policy, field="cost"):
    return sum(getattr(run, field) for run in runs[policy].values())


@pytest.mark.parametrize("rival", ["hpa", "flink"])
def test_ours_costs_no_more_on_any_trace(runs, rival):
    """On each shipped trace, violations and units together cost no more than with the rival's defaults."""
    dearer = [name for name, run in runs["ours"].items() if run.cost > runs[rival][name].cost]
    assert dearer == []


@pytest.mark.parametrize(("rival", "share"), [("hpa", 0.3), ("flink", 0.3), ("hpa_tuned", 0.04)])
def test_ours_costs_less_in_the_sum(runs, rival, share):
    """At least 30 % less than with the rivals' defaults, and less than with a threshold fitted to the traces."""
    assert total(runs, "ours") <= (1 - share) * total(runs, rival)


def test_a_step_is_served_at_once(runs):
    """Ten times the load: one decision within 4 s, nothing late, and no second step up."""
    run = runs["ours"]["step"]
    first, second = run.changes[:2]
    assert first.at - 600 <= 4
    assert second.after < second.before
    assert run.violation_s == 0


def test_noise_is_left_alone(runs):
    """At most one reversal per hour under 20 % noise."""
    run = runs["ours"]["noise"]
    assert run.reversals <= run.seconds / 3600


def test_a_hot_key_and_refused_calls_are_not_scaled(runs):
    """No unit is added for a hot key, and none while calls are refused."""
    assert runs["ours"]["hot_key"].changes == ()
    ups = [change.at for change in runs["ours"]["throttled"].changes if change.after > change.before]
    assert min(ups) >= 1500


def test_a_broker_that_is_away_changes_nothing(runs):
    """Without metrics nothing is decided; the backlog after it is worked off."""
    run = runs["ours"]["broker_bounce"]
    assert all(not 600 <= change.at < 660 for change in run.changes)
    assert run.changes[0].reason == "lag"


def test_a_burst_takes_a_pool_to_a_hundred_and_back():
    """Agents of a pool share one queue: a burst takes them to 100, and its end back to one."""
    trace = Trace(name="pool", about="", arrivals=(50.0,) * 120 + (9000.0,) * 60 + (20.0,) * 900, partitions=None)
    run = simulate(trace, "ours", Ours(Policy(max=100, pause_s=0.001)), most=100)
    assert max(point.units for point in run.timeline) == 100
    assert run.timeline[-1].units == 1


def test_units_do_what_they_can():
    """Two units of 100 records per second leave 50 of 250, which are in the partitions of both."""
    plant = Plant(Trace(name="t", about="", arrivals=(250.0,) * 10), EXACT, 2)
    plant.tick(0)
    sample = plant.sample(0)
    assert (sample.arrivals, sample.processed, sample.busy) == (250, 200, 1)
    assert (sample.lag, sample.hottest) == (pytest.approx(50), pytest.approx(1 / 8))


def test_a_change_pauses_the_target():
    """It takes a second to prepare and a second of pause; what came meanwhile waits, and the pause is measured."""
    plant = Plant(Trace(name="t", about="", arrivals=(100.0,) * 10), EXACT, 1)
    assert plant.order(2)
    assert not plant.order(3)
    for second in range(2):
        plant.tick(second)
    assert plant.lag == pytest.approx(100)
    sample = plant.sample(1)
    assert (sample.units, sample.changing, sample.pauses) == (2, True, (1.0,))
    plant.tick(2)
    assert (plant.lag, plant.sample(2).changing) == (pytest.approx(0), False)


def test_a_hot_partition_is_bound_to_its_unit():
    """However many units there are, the hot partition is worked off by one."""
    trace = Trace(name="t", about="", arrivals=(300.0,) * 60, hot=Span(start=0, end=60), hot_share=1.0)
    plant = Plant(trace, EXACT, 8)
    for second in range(60):
        plant.tick(second)
    assert plant.lag == pytest.approx(200 * 60)
    assert plant.sample(59).hot_key == "hot"


def test_a_service_that_refuses_limits_all_units():
    """Above the limit calls are refused, and the refusals cost the service some of its rate."""
    trace = Trace(name="t", about="", arrivals=(900.0,) * 2, limited=Span(start=0, end=2), limit=250.0)
    plant = Plant(trace, EXACT, 8)
    plant.tick(0)
    sample = plant.sample(0)
    assert sample.processed == pytest.approx(250 - 0.05 * (800 - 250))
    assert sample.throttled == pytest.approx(800 - sample.processed)


def test_nothing_is_lost_in_an_outage():
    """While the broker is away nothing is measured; what producers kept comes after it, and has waited all the time."""
    trace = Trace(name="t", about="", arrivals=(100.0,) * 120, outage=Span(start=10, end=20))
    plant = Plant(trace, EXACT, 4)
    for second in range(20):
        plant.tick(second)
    assert plant.sample(19).lag is None
    assert plant.wait_s >= 9
    for second in range(20, 120):
        plant.tick(second)
    assert (plant.lag, plant.wait_s) == (pytest.approx(0, abs=1e-6), 0)


def sample(at, units, lag=0.0, arrivals=100.0, busy=0.5):
    return Sample(
        target="flow/x", at=at, units=units, lag=lag, arrivals=arrivals, processed=arrivals, busy=busy, partitions=8
    )


def test_hpa_follows_its_rule():
    """Every 15 s; within 10 % nothing; at most the larger of double and four more; fewer after 300 s of asking."""
    hpa = Hpa(Policy(max=10), threshold=100.0)
    hpa.commit_s = 0.0
    assert hpa(sample(0, 2, 205)) == (2, "lag")
    assert hpa(sample(14, 2, 900)) is None
    assert hpa(sample(16, 2, 900))[0] == 6
    assert hpa(sample(32, 6, 900))[0] == 8
    assert hpa(sample(48, 8, 0))[0] == 8
    assert hpa(sample(340, 8, 0))[0] == 1
    assert hpa(Sample(target="flow/x", at=400, units=8)) is None


def test_kedas_lag_counts_from_commits():
    """What was processed since the last commit counts as lag, half a commit interval of it on average."""
    assert Hpa(Policy(max=10), threshold=100.0)(sample(0, 2, 0.0, arrivals=120.0))[0] == 3


def test_flink_follows_its_rule():
    """Nothing within 0.4 to 1.0; up by the formula, to a divisor; then 20 minutes of silence; fewer after an hour."""
    flink = Flink(Policy(max=10))
    assert flink(sample(0, 2, arrivals=180.0, busy=0.9)) is None
    flink = Flink(Policy(max=10))
    # 250 / 0.7 + 9000 / 1800 + 250 * 300 / 1800 = 403.8, and two units can do 200: five, and eight is the next divisor.
    assert flink(sample(0, 2, lag=9000, arrivals=250.0, busy=1.25)) == (8, "target")
    assert flink(sample(2, 8, arrivals=250.0, busy=0.9)) is None
    assert flink(sample(1100, 8, arrivals=60.0, busy=0.08)) is None
    assert flink(sample(1210, 8, arrivals=60.0, busy=0.08)) is None
    assert flink(sample(1210 + 3300, 8, arrivals=60.0, busy=0.08)) is None
    assert flink(sample(1210 + 3660, 8, arrivals=60.0, busy=0.08)) == (4, "target")


def test_charts_show_the_shape():
    """A line of blocks as high as the largest of each part."""
    assert comparison.chart([0, 0, 5, 10], 4) == "▁▁▅█"
    assert comparison.chart([0.0, 0.0], 8) == "▁▁"
    assert comparison.chart([], 8) == ""
    assert len(comparison.chart(list(range(1000)), 24)) == 24
