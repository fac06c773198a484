"""What holds for the controller whatever it is told: thousands of decisions under a made-up clock."""

import json
import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.scaling.controller import decide, replay
from signalbox.scaling.memory import Forecast, Memory
from signalbox.scaling.model import Sample
from signalbox.scaling.plant import PlantSettings
from signalbox.scaling.policy import Policy
from signalbox.scaling.rivals import Ours
from signalbox.scaling.simulator import simulate
from signalbox.scaling.traces import Trace

#: A memory has to stay small enough to be recorded with every decision.
MOST_BYTES = 4096

numbers = st.none() | st.floats(width=32) | st.floats(0, 5000)
shares = st.none() | st.floats(0, 1)
samples = st.builds(
    Sample,
    target=st.just("flow/agents"),
    at=st.floats(0, 1e9),
    units=st.integers(0, 120),
    arrivals=numbers,
    processed=numbers,
    lag=numbers,
    busy=shares | st.floats(width=32),
    service_s=numbers,
    throttled=st.floats(width=32) | st.just(0.0),
    memory=shares,
    partitions=st.none() | st.integers(0, 64),
    hottest=shares,
    hot_key=st.none() | st.text(max_size=5),
    stuck=st.integers(-1, 9),
    stuck_lag=numbers,
    pauses=st.lists(st.floats(width=32), max_size=6).map(tuple),
    changing=st.booleans(),
)
policies = st.builds(
    Policy,
    min=st.integers(1, 4),
    max=st.integers(4, 100),
    scale_to_zero=st.booleans(),
    utilization=st.floats(0.55, 0.85),
    catch_up_s=st.floats(5, 600),
    cooldown_s=st.floats(0, 60),
    down_window_s=st.floats(0, 300),
    up_samples=st.integers(1, 4),
    pause_s=st.floats(0.001, 30),
    idle_s=st.floats(1, 600),
)
seeds = st.integers(0, 2**32)


def lived(policy: Policy, seed: int, steps: int, check: Any = None, **usual: Any) -> tuple[Memory, int, float]:
    """The memory, units and time after so many samples of a load that somebody rolls dice for; decisions are obeyed."""
    draw = random.Random(seed)
    memory, units, at, lag = Memory(), draw.randint(1, 10), 1000.0, 0.0
    rate, load = draw.uniform(1, 200), draw.uniform(1, 1000)
    for _ in range(steps):
        at += 2
        if draw.random() < 0.1:
            load = draw.uniform(0, 2000)
        arrivals = load * draw.uniform(0.8, 1.2)
        power = rate * units
        processed = min(power, arrivals + lag / 2)
        lag = max(0.0, lag + 2 * (arrivals - processed))
        fields = {
            "processed": processed,
            "lag": lag,
            "busy": processed / power if power else None,
            "throttled": draw.choice([0.0] * 9 + [50.0]),
            "hottest": draw.choice([None, 0.2, 0.9]),
            "partitions": draw.choice([None, 8, 64]),
            "changing": draw.random() < 0.05,
            "pauses": (0.3,),
        }
        if draw.random() < 0.05:
            fields[draw.choice(["lag", "busy"])] = None
        sample = Sample(target="flow/agents", at=at, units=units, arrivals=arrivals, **{**fields, **usual})
        before = memory
        decision, memory = decide(policy, memory, sample)
        if check is not None:
            check(sample, decision, before, memory)
        units = decision.desired
    return memory, units, at


@given(policy=policies, told=st.lists(samples, min_size=1, max_size=4))
@settings(max_examples=250)
def test_any_samples_can_be_decided_by_again(policy, told):
    """A decision on whatever samples is made again from its JSON, bit for bit, and keeps within all bounds."""
    memory = Memory()
    for number, one in enumerate(told):
        sample = msgspec.structs.replace(one, at=one.at + number * 1e9)
        decision, memory = decide(policy, memory, sample)
        assert replay(json.loads(msgspec.json.encode(decision.inputs))) == decision
        assert decision.desired == sample.units or decision.desired <= policy.max
        json.dumps(decision.terms, allow_nan=False)


@given(policy=policies, seed=seeds)
@settings(max_examples=120)
def test_every_decision_is_bounded_and_repeatable(policy, seed):
    """Over a hundred samples: within the bounds, equal when made again, and from a memory that stays small."""

    def check(sample, decision, before, memory):
        if decision.verdict == "hold":
            assert decision.desired == sample.units
        else:
            floor = 0 if policy.scale_to_zero else policy.min
            assert floor <= decision.desired <= policy.max
            if decision.desired > sample.units and sample.partitions:
                assert decision.desired <= max(policy.min, sample.partitions)
        assert replay(msgspec.json.decode(msgspec.json.encode(decision.inputs))) == decision
        assert len(msgspec.json.encode(memory)) < MOST_BYTES

    lived(policy, seed, 100, check)


@given(policy=policies, seed=seeds, lags=st.lists(st.floats(0, 1e6), min_size=2, max_size=5))
@settings(max_examples=400)
def test_more_lag_never_asks_for_fewer(policy, seed, lags):
    """All else equal, the units asked for do not fall when more records wait."""
    usual = {"hottest": None, "throttled": 0.0, "partitions": random.Random(seed).choice([None, 8, 48])}
    memory, units, at = lived(policy, seed, 30, **usual)
    # A scale-up on trial is judged under a backlog only, and undone if it did not help: that is not about the lag.
    memory = msgspec.structs.replace(memory, trial=None)
    rate = random.Random(seed).uniform(1, 2000)
    sample = Sample(
        target="flow/agents", at=at + 2, units=units, arrivals=rate, processed=rate / 2, busy=0.8, pauses=(0.3,),
        partitions=usual["partitions"],
    )  # fmt: skip
    asked = [decide(policy, memory, msgspec.structs.replace(sample, lag=lag))[0] for lag in sorted(lags)]
    desired = [decision.desired for decision in asked]
    assert desired == sorted(desired)
    wanted = [decision.terms["wanted"] or 0 for decision in asked]
    assert wanted == sorted(wanted)


@given(seed=seeds, level=st.floats(1, 2000), trend=st.floats(-50, 50), error=st.floats(0, 1))
@settings(max_examples=300)
def test_a_forecast_only_raises(seed, level, trend, error):
    """Whatever is foretold, no fewer units are wanted than without a forecast; above 30 % error it does not count."""
    policy = Policy()
    memory, units, at = lived(policy, seed, 30, changing=False, hottest=None)
    sample = Sample(
        target="flow/agents", at=at + 2, units=max(1, units), arrivals=100.0, processed=100.0, lag=0.0, busy=0.5
    )
    foretold = Forecast(level=level, trend=trend, error=error, compared=10)
    without, with_it = (
        decide(policy, msgspec.structs.replace(memory, forecast=forecast), sample)[0].terms
        for forecast in (Forecast(), foretold)
    )
    assert (with_it["wanted"] or 0) >= (without["wanted"] or 0)
    if error > 0.5:
        assert with_it["wanted"] == without["wanted"]


@given(
    load=st.floats(1, 1500),
    partitions=st.none() | st.integers(1, 64),
    unit_rate=st.floats(20, 300),
    contention=st.floats(0, 0.05),
    pause=st.integers(1, 4),
)
@settings(max_examples=40)
def test_nothing_oscillates_at_constant_load(load, partitions, unit_rate, contention, pause):
    """Under a load that does not change, the units come to rest within a quarter of an hour and stay."""
    trace = Trace(name="constant", about="", arrivals=(load,) * 1500, partitions=partitions)
    plant = PlantSettings(unit_rate=unit_rate, contention=contention, pause_s=pause, noise=0.0)
    run = simulate(trace, "ours", Ours(Policy(max=20)), most=20, settings=plant)
    late = [change for change in run.changes if change.at > 900]
    assert late == []
    assert run.reversals <= 1
