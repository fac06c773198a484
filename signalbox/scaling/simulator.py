"""The closed loop under virtual time: a trace, a simulated target, and a policy that watches and scales it.

All policies begin with the same number of units, on the same target, and see samples of it every two seconds. A run is
judged by its `cost`: unit-seconds plus seconds of violation, each of which costs as much as the most units that are
allowed do for a second. What the target does is in `plant`, the policies are in `rivals`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from signalbox.scaling.model import Sample
from signalbox.scaling.plant import Plant, PlantSettings
from signalbox.scaling.traces import Trace

#: Seconds from one sample to the next.
SAMPLE_S = 2
#: A second counts as a violation if a record has waited longer than so many seconds.
SLO_S = 5.0
#: The utilization that the number of units at the beginning is for.
START_UTILIZATION = 0.75


class Scaler(Protocol):
    """A policy: how many units there should be, by one more sample; None if it has nothing to say now."""

    def __call__(self, sample: Sample) -> tuple[int, str] | None:
        """The number with the reason for it."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change that a policy decided on."""

    at: float
    before: int
    after: int
    reason: str


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the timeline."""

    at: float
    arrivals: float
    lag: float
    wait_s: float
    units: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a policy on a trace."""

    trace: str
    policy: str
    seconds: int
    violation_s: int
    """Seconds in which a record had waited longer than `SLO_S`."""
    unit_s: int
    """Units, summed up over the seconds."""
    cost: float
    """`unit_s + price * violation_s`, the price being the most units that the policy's settings allow."""
    reversals: int
    """Changes in the other direction than the one before."""
    largest_lag: float
    changes: tuple[Change, ...]
    timeline: tuple[Point, ...]


def start_units(trace: Trace, settings: PlantSettings, most: int) -> int:
    """Units at the beginning: enough for the first minute at 75 % utilization."""
    first = trace.arrivals[:60]
    rate = math.fsum(first) / len(first)
    return max(1, min(most, trace.partitions or most, math.ceil(rate / START_UTILIZATION / settings.unit_rate)))


def simulate(trace: Trace, name: str, scaler: Scaler, *, most: int, settings: PlantSettings | None = None) -> Run:
    """Run a policy on a trace.

    Args:
        trace: the demand.
        name: of the policy, for the record.
        scaler: the policy, fresh.
        most: the most units there may be; also what a second of violation costs.
        settings: what the target is like.
    """
    settings = settings or PlantSettings()
    plant = Plant(trace, settings, start_units(trace, settings, most))
    changes: list[Change] = []
    timeline: list[Point] = []
    violation_s = unit_s = 0
    largest = 0.0
    for second in range(len(trace.arrivals)):
        plant.tick(second)
        unit_s += plant.units
        violation_s += plant.wait_s > SLO_S
        if second % SAMPLE_S != SAMPLE_S - 1:
            continue
        sample = plant.sample(second)
        lag = plant.lag
        largest = max(largest, lag)
        timeline.append(
            Point(at=second, arrivals=trace.arrivals[second], lag=lag, wait_s=plant.wait_s, units=plant.units)
        )
        answer = scaler(sample)
        if answer is not None and plant.order(answer[0]):
            changes.append(Change(at=second, before=plant.units, after=answer[0], reason=answer[1]))
    return Run(
        trace=trace.name,
        policy=name,
        seconds=len(trace.arrivals),
        violation_s=violation_s,
        unit_s=unit_s,
        cost=unit_s + float(most) * violation_s,
        reversals=_reversals(changes),
        largest_lag=largest,
        changes=tuple(changes),
        timeline=tuple(timeline),
    )


def _reversals(changes: Sequence[Change]) -> int:
    ups = [change.after > change.before for change in changes]
    return sum(one != other for one, other in itertools.pairwise(ups))
