"""The formulas, one by one, against numbers worked out by hand."""

import pytest
from pydantic import ValidationError

from signalbox.scaling import capacity, forecast, sizing
from signalbox.scaling.memory import Capacity, Forecast
from signalbox.scaling.policy import Policy
from signalbox.scaling.sizing import Demand


def demand(**more):
    usual = {"units": 1, "rate": 0.0, "lag": 0.0, "capacity": 100.0, "alpha": 1.0, "pause_s": 0.0, "partitions": None}
    return Demand(**{**usual, **more})


def test_the_target_has_three_terms():
    """Load at the utilization aimed at, the backlog within the time to catch up, and what a pause leaves undone."""
    assert sizing.target_rate(Policy(), demand(rate=300.0, lag=6000.0, pause_s=2.0)) == 300 / 0.75 + 100 + 10


@pytest.mark.parametrize(
    ("units", "alpha", "rate", "wanted"),
    [(1, 1.0, 75.0, 1), (1, 1.0, 75.1, 2), (1, 0.5, 75.1, 3), (4, 0.5, 150.0, 2), (1, 1.0, 0.0, 0)],
)
def test_units_follow_from_the_target(units, alpha, rate, wanted):
    """`ceil(target / (capacity * alpha))`, where the loss `alpha` counts for more units than there are only."""
    assert sizing.wanted_units(Policy(), demand(units=units, alpha=alpha, rate=rate)) == wanted


def test_useful_numbers_share_the_partitions_better():
    """Of eight partitions, 1, 2, 3, 4 and 8 units have fewer at the busiest than one unit less has."""
    assert [sizing.useful(units, 8) for units in range(1, 12)] == [1, 2, 3, 4, 4, 4, 4, 8, 8, 8, 8]
    assert sizing.useful(5, None) == 5


@pytest.mark.parametrize(("rate", "wanted"), [(340.0, 4), (361.0, 8), (260.0, 4), (100.0, 2), (1000.0, 8)])
def test_a_number_of_no_use_is_rounded_within_the_band(rate, wanted):
    """The useful number below is taken while the dead band allows its utilization, else the one above."""
    assert sizing.wanted_units(Policy(), demand(rate=rate, partitions=8)) == wanted


def test_savings_are_the_area_between_the_lags():
    """600 records that stay, or are gone after 6 s at 100 more per second: 600 * 60 less a triangle of 600 * 6 / 2."""
    policy = Policy(busy_high=1.0)
    assert sizing.saved_lag_seconds(policy, demand(rate=100.0, lag=600.0), 2) == 600 * 60 - 600 * 6 / 2


def test_a_pause_costs_half_its_length_for_all_that_comes():
    """In a pause of 4 s, 400 records wait 2 s on average."""
    assert sizing.pause_lag_seconds(demand(rate=100.0, pause_s=4.0)) == 800


def test_a_step_is_no_trend():
    """Ten times the rate at once leaves no trend behind that would foretell a hundred times."""
    state = Forecast(level=100.0, trend=0.0, compared=9)
    after = forecast.observed(state, 10.0, 2.0, 1000.0, 20.0)
    assert (after.level, after.trend) == (1000.0, 0.0)
    assert forecast.ahead(after, 20.0) == 1000.0


def test_a_forecast_counts_when_it_has_proved_right():
    """It takes three forecasts that came true; one that has been wrong by more than 30 % is dropped."""
    state, at = Forecast(), 0.0
    while state.compared < forecast.PROOFS:
        assert forecast.ahead(state, 20.0) is None
        at += 2
        state = forecast.observed(state, at, 2.0, 100.0 + at, 20.0)
    for _ in range(60):
        at += 2
        state = forecast.observed(state, at, 2.0, 100.0 + at, 20.0)
    assert forecast.ahead(state, 20.0) > state.level
    assert forecast.ahead(Forecast(level=100.0, compared=9, error=0.31), 20.0) is None
    assert len(state.due) < 12


def test_the_fit_of_losses_is_least_squares():
    """Rates of 100, 180 and 300 at 1, 2 and 4 units fit `0.79 * 100 * n`; two numbers of units fit nothing."""
    state = Capacity(per_unit=100.0, points=((1, 100.0), (2, 180.0), (4, 300.0)))
    assert capacity.efficiency(state) == pytest.approx((100 + 360 + 1200) / (21 * 100))
    assert capacity.efficiency(Capacity(per_unit=100.0, points=((1, 100.0), (2, 100.0)))) == 1.0
    awful = Capacity(per_unit=100.0, points=((1, 100.0), (2, 50.0), (4, 10.0)))
    assert capacity.efficiency(awful) == 0.5


@pytest.mark.parametrize(
    "wrong", [{"min": 5, "max": 4}, {"busy_low": 0.8}, {"utilization": 0.95}, {"max": 101}, {"catch_up_s": 0}]
)
def test_a_policy_that_contradicts_itself_is_refused(wrong):
    """Bounds and the band have to be in order."""
    with pytest.raises(ValidationError):
        Policy(**wrong)
