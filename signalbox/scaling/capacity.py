"""How much one unit can do, and how much less each does when there are many.

The capacity of a unit is its rate divided by the share of time it was busy: the true processing rate of DS2 (Kalavri et
al., OSDI 2018). Busy means that its slots are occupied, so a unit that waits for a slow service counts as busy. Three
quarters of the samples lie above the estimate: rather one unit too many than a backlog.
"""

import math

from signalbox.scaling.memory import Capacity
from signalbox.scaling.model import Sample

#: Samples that an estimate rests on: one minute at two seconds each.
WINDOW = 30
#: After a change, so many samples are needed before the estimate moves.
FEWEST = 3
#: Below this share of busy time, the quotient is mostly noise.
LEAST_BUSY = 0.05
#: Below this one, what does not depend on the load has a large part in it, and units seem to be able to do less than
#: they can. Such a sample counts only as long as there is no better one.
FIRM_BUSY = 0.2
#: With a backlog of so many seconds of input, units that have work to do are busy, whatever they say.
OBSERVED_LAG_S = 15.0
#: A capacity above so much of what is seen under such a backlog is not believed (Flink's autoscaler, FLINK-33306).
OBSERVED_FACTOR = 1.15
#: Above this share of refused calls, the rate is that of the service that refuses and says nothing about a unit.
THROTTLED_SHARE = 0.01
#: Above this share of the lag in one partition, most units have no work to show their capacity with.
HOT_SHARE = 0.5
#: Numbers of units whose rates are kept for the fit, and how many it takes.
_POINTS = 8
_FIT_POINTS = 3
_WORST_ALPHA = 0.5


def observed(state: Capacity, sample: Sample) -> Capacity:
    """The state after one more sample; unchanged if that says nothing about a unit's capacity."""
    rate = _true_rate(sample)
    firm = (sample.busy or 0.0) >= FIRM_BUSY
    if rate is None or (state.firm and not firm):
        return state
    if firm and not state.firm:
        state = Capacity(points=state.points)
    recent = (*(state.recent if state.units == sample.units else ())[1 - WINDOW :], rate)
    enough = len(recent) >= FEWEST or state.per_unit is None
    per_unit = sorted(recent)[len(recent) // 4] if enough else state.per_unit
    points = state.points
    if enough and per_unit is not None:
        points = (*(one for one in points if one[0] != sample.units), (sample.units, per_unit * sample.units))[
            -_POINTS:
        ]
    return Capacity(units=sample.units, recent=recent, per_unit=per_unit, points=points, firm=firm)


def efficiency(state: Capacity) -> float:
    """How much of today's capacity a unit keeps when there are more of them: `alpha`, 0.5 to 1.

    The least-squares fit of `rate(n) = alpha * beta * n` through the numbers of units seen, `beta` being the capacity
    of one at the fewest: `alpha = sum(n * rate) / (beta * sum(n^2))`, as in Flink's autoscaler. It is 1 with fewer than
    three points, and relative to the present capacity, in which today's losses are already contained.
    """
    if len(state.points) < _FIT_POINTS or not state.per_unit:
        return 1.0
    fewest, rate = min(state.points)
    beta = rate / fewest
    squares = math.fsum(n * n for n, _ in state.points)
    alpha = math.fsum(n * r for n, r in state.points) / (beta * squares) if beta > 0 else 1.0
    return min(1.0, max(_WORST_ALPHA, min(1.0, alpha) * beta / state.per_unit))


def throttled(sample: Sample) -> bool:
    """Whether outside services ask for patience so often that it limits the rate."""
    return sample.throttled > THROTTLED_SHARE * (sample.processed or 0.0)


def _true_rate(sample: Sample) -> float | None:
    """Records per second that one unit can do, by this sample; None if it does not tell."""
    if sample.units < 1 or not sample.processed or sample.busy is None or sample.busy < LEAST_BUSY:
        return None
    if throttled(sample):
        return None
    rate = sample.processed / (sample.busy * sample.units)
    seen = sample.processed / sample.units
    backlog = bool(sample.lag) and (sample.lag or 0.0) >= OBSERVED_LAG_S * (sample.arrivals or 0.0)
    spread = (sample.hottest or 0.0) <= HOT_SHARE and sample.stuck == 0
    spread = spread and (sample.partitions is None or sample.partitions >= sample.units)
    return seen if backlog and spread and rate > OBSERVED_FACTOR * seen else rate
