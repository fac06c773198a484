"""From rates to a number of units: the target rate, the numbers that partitions make useful, and what a change costs.

Formulas only. What they are fed with is estimated in `forecast` and `capacity`; what is made of them is up to
`controller`.
"""

import math

import msgspec

from signalbox.scaling.policy import Policy

#: Rounding errors smaller than this share of a unit do not ask for one more.
_TOLERANCE = 1e-9


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to do and what a unit can do: all that a size follows from."""

    units: int
    rate: float
    """Records per second to provide for."""
    lag: float
    """Records that wait and that more units could work off."""
    capacity: float
    """Records per second of one unit at present."""
    alpha: float
    """The share of it that a unit keeps when there are more."""
    pause_s: float
    """How long a change pauses the target."""
    partitions: int | None
    """As many units as can share the load; None if any number can."""

    def power(self, units: int) -> float:
        """Records per second that so many units could do if they share the work evenly."""
        alpha = self.alpha if units > self.units else 1.0
        return self.capacity * alpha * units

    def bound_power(self) -> float:
        """Records per second that the present units can do if each works off its own partitions."""
        return self.capacity * effective(self.units, self.partitions)


def target_rate(policy: Policy, demand: Demand) -> float:
    """Records per second to have units for: `rate / utilization + lag / catch_up + rate * pause / catch_up`.

    The three terms of Flink's autoscaler: what comes in at the utilization aimed at, the backlog within the time to
    catch up, and what a change leaves undone while it pauses. The first alone is DS2 (Kalavri et al., OSDI 2018).
    """
    return demand.rate / policy.utilization + _extra(policy, demand)


def wanted_units(policy: Policy, demand: Demand) -> int:
    """Units for the target rate, before any bound but that of the partitions: `ceil(target / (capacity * alpha))`.

    Among the numbers that the partitions make useful, the one below is taken if the utilization there stays in the dead
    band, and else the one above.
    """
    needed = _units(target_rate(policy, demand), demand)
    if demand.partitions is None or needed <= 1:
        return needed
    if needed >= demand.partitions:
        return max(1, demand.partitions)
    below = useful(needed, demand.partitions)
    least = (demand.rate / policy.busy_high + _extra(policy, demand)) / demand.capacity
    least = least / demand.alpha if below > demand.units else least
    if effective(below, demand.partitions) >= least:
        return below
    return -(-demand.partitions // (-(-demand.partitions // below) - 1))


def uncapped_units(policy: Policy, demand: Demand) -> int:
    """The same if the load could be shared by any number of units: what to say when partitions are the limit."""
    return _units(target_rate(policy, demand), demand)


def effective(units: int, partitions: int | None) -> float:
    """How many units' worth of work so many can do: the busiest, with `ceil(partitions / units)`, sets the pace."""
    if partitions is None or units < 1:
        return float(units)
    return partitions / -(-partitions // units) if partitions else 0.0


def useful(units: int, partitions: int | None) -> int:
    """The fewest units that share the partitions as well: those with the same `ceil(partitions / units)`."""
    if not partitions or units < 1:
        return units
    return -(-partitions // -(-partitions // units))


def utilization(demand: Demand) -> float:
    """The share of their capacity that the present units need for what comes in."""
    power = demand.power(demand.units)
    return demand.rate / power if power > 0 else math.inf


def saved_lag_seconds(policy: Policy, demand: Demand, units: int) -> float:
    """Lag-seconds that a change to so many units saves within the time to catch up, without the pause of the change.

    The area between the two curves of the lag. Units that are busier than the dead band allows count as falling behind.
    """
    load = demand.rate / policy.busy_high
    stay, change = (_area(demand.lag, demand.power(n) - load, policy.catch_up_s) for n in (demand.units, units))
    return stay - change


def pause_lag_seconds(demand: Demand) -> float:
    """Lag-seconds that the pause of a change costs: what comes in meanwhile waits half of the pause on average."""
    return demand.pause_s * demand.rate * demand.pause_s / 2


def _extra(policy: Policy, demand: Demand) -> float:
    return (demand.lag + demand.rate * demand.pause_s) / policy.catch_up_s


def _units(rate: float, demand: Demand) -> int:
    needed = rate / demand.capacity
    if needed > demand.units:
        needed /= demand.alpha
    return math.ceil(min(needed, 1e9) - _TOLERANCE)


def _area(lag: float, drain: float, seconds: float) -> float:
    """Integral of a lag that shrinks by `drain` records per second, and never below none, over so many seconds."""
    if drain * seconds > lag:
        return lag * lag / (2 * drain)
    return lag * seconds - drain * seconds * seconds / 2
