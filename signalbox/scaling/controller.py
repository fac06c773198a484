"""The decision: how many workers a flow should have, or agents a pool, by one more sample of its load.

`decide` is a pure function: no clock, no randomness, no I/O, and arithmetic that gives the same bits everywhere. So a
decision can be made again from its record (`replay`), on any machine and at any time. It does not carry anything out.
The formulas are in `sizing`, what holds more units back in `vetoes`, what is learned from a sample in `perception`.

The order in which it asks, the first answer counting:

1. Is the sample fit to decide by? (`stale`, `changing`, `no_metrics`)
2. May nothing change whatever the load? (`paused`, `overridden`, `late`)
3. Are the units within the policy's bounds? (`below_min`, `above_max`)
4. Is there nothing to do, or nobody to do it? (`idle`, `asleep`, `wake`)
5. Did the last scale-up help? (`undo`)
6. Too few units? (`lag`, `load`, `forecast`, or a reason to hold)
7. Too many? (`low_load`, or a reason to hold)
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import xxhash
from pydantic import ValidationError

from signalbox.errors import SignalboxError
from signalbox.scaling import capacity, forecast, perception, rules, sizing, vetoes
from signalbox.scaling.memory import Memory, Trial
from signalbox.scaling.model import Decision, Reason, Sample
from signalbox.scaling.policy import Policy
from signalbox.scaling.sizing import Demand

#: Inside the dead band, fewer units are taken when so many times the window for fewer has asked for them.
_TRIM_WINDOWS = 2.0
#: Samples after which a load that was only in the mean of the arrivals counts no more.
_LATELY = 5

Terms = dict[str, float | int | str | None]


class _Answer(NamedTuple):
    desired: int
    reason: Reason
    message: str


class _Case(NamedTuple):
    """Everything that a decision is made of, once the sample has been taken in."""

    policy: Policy
    sample: Sample
    memory: Memory
    demand: Demand
    wanted: int
    """Units by the formula, within all bounds."""
    unbounded: int
    """Units by the formula alone."""
    utilization: float
    overloaded: bool
    backlog: bool


def decide(policy: Policy, memory: Memory, sample: Sample) -> tuple[Decision, Memory]:
    """How many units there should be, and what to remember for the next decision about the same target.

    Args:
        policy: the target's settings.
        memory: what the last call returned; `Memory()` at first, or when it was lost.
        sample: a newer sample than the last. Values that make no sense count as not measured.
    """
    sample = perception.cleaned(sample)
    encoded = msgspec.json.encode({"policy": policy.model_dump(mode="json"), "memory": memory, "sample": sample})
    answer, after, terms = _answered(policy, memory, sample)
    decision = Decision(
        id=xxhash.xxh3_128_hexdigest(encoded),
        target=sample.target,
        at=sample.at,
        units=sample.units,
        desired=answer.desired,
        verdict="hold" if answer.desired == sample.units else "scale",
        reason=answer.reason,
        message=answer.message,
        terms=terms,
        inputs=msgspec.json.decode(encoded),
    )
    return decision, after


def replay(inputs: Mapping[str, Any]) -> Decision:
    """Make a recorded decision again, its id included, from its `inputs`, which may have been JSON meanwhile.

    A decision by one of the `rules` is made again by them.

    Raises:
        SignalboxError: these are not the inputs of a decision.
    """
    try:
        if "occasion" in inputs:
            return rules.replay(inputs)
        policy = Policy.model_validate(inputs["policy"])
        memory = msgspec.convert(inputs["memory"], Memory)
        sample = msgspec.convert(inputs["sample"], Sample)
    except (KeyError, TypeError, ValidationError, msgspec.ValidationError) as error:
        msg = f"these are not the inputs of a decision: {error}"
        raise SignalboxError(
            msg, hint="they are recorded as `inputs`, with `policy`, `memory` and `sample` in it"
        ) from None
    return decide(policy, memory, sample)[0]


def _answered(policy: Policy, memory: Memory, sample: Sample) -> tuple[_Answer, Memory, Terms]:
    if memory.at is not None and sample.at <= memory.at:
        message = f"the sample is not newer than the last one, by {memory.at - sample.at:.1f} s"
        return _Answer(sample.units, "stale", message), memory, {}
    if sample.changing:
        answer = _Answer(sample.units, "changing", "a change is under way")
        return answer, perception.interrupted(memory, sample), {}
    if not perception.complete(sample):
        names = ("arrivals", "lag", *(("processed", "busy") if sample.units else ()))
        missing = ", ".join(name for name in names if getattr(sample, name) is None)
        return (
            _Answer(sample.units, "no_metrics", f"not measured: {missing}"),
            perception.interrupted(memory, sample),
            {},
        )
    memory = perception.learned(policy, memory, sample)
    case = _weighed(policy, memory, sample)
    terms = _terms(case)
    case = case._replace(memory=_remembering(case))
    if sample.held is not None:
        return _hold(case, sample.held, f"nothing is to be changed now: {sample.held}"), case.memory, terms
    answer, memory = _decided(case)
    if answer.desired != sample.units:
        memory = msgspec.structs.replace(memory, changed_at=sample.at, last=answer.reason, ups=0)
    return answer, memory, terms


def _weighed(policy: Policy, memory: Memory, sample: Sample) -> _Case:
    """The sample against the formulas."""
    lag = perception.spread_lag(sample)
    per_unit = memory.capacity.per_unit or 0.0
    demand = Demand(
        units=sample.units,
        rate=max(_mean(memory), _surge(policy, memory, sample, lag), _forecast(policy, memory, sample) or 0.0),
        lag=lag,
        capacity=per_unit,
        alpha=capacity.efficiency(memory.capacity),
        pause_s=perception.pause_s(policy, sample),
        partitions=None if sample.partitions is None else max(1, sample.partitions - sample.stuck),
    )
    known = per_unit > 0
    unbounded = sizing.uncapped_units(policy, demand) if known else 0
    wanted = _bounded(policy, sizing.wanted_units(policy, demand), demand.partitions) if known else sample.units
    power = demand.power(sample.units)
    used = sizing.utilization(demand) if known and sample.units else 0.0
    # Uneven shares of the partitions matter once a backlog shows them; before, their number is mere noise.
    proven = lag > vetoes.BACKLOG_S * per_unit
    behind = demand.rate + lag / policy.catch_up_s > (demand.bound_power() if proven else power)
    return _Case(
        policy=policy,
        sample=sample,
        memory=memory,
        demand=demand,
        wanted=wanted,
        unbounded=unbounded,
        utilization=used,
        overloaded=known and (used > policy.busy_high or behind),
        backlog=perception.workable_lag(sample) > vetoes.BACKLOG_S * power,
    )


def _mean(memory: Memory) -> float:
    """The mean arrivals, and no more than the most of the last samples: a load that is gone is gone in one change.

    The mean itself would follow it down over many samples, and every one of them would ask for another change.
    """
    return min(memory.arrivals or 0.0, max(memory.recent[-_LATELY:], default=math.inf))


def _surge(policy: Policy, memory: Memory, sample: Sample, lag: float) -> float:
    """The least rate of the samples that have to agree, if a backlog proves that it is real: a step is served in full.

    Without it, the mean would follow a step over many samples, and every one of them would ask for another change.
    """
    power = (memory.capacity.per_unit or 0.0) * sample.units
    if lag <= vetoes.BACKLOG_S * (power or memory.arrivals or 0.0):
        return 0.0
    # Where there is nobody to work, what waits is proof enough.
    agreeing = policy.up_samples if sample.units else 1
    return min(memory.recent[-agreeing:], default=0.0)


def _forecast(policy: Policy, memory: Memory, sample: Sample) -> float | None:
    return forecast.ahead(memory.forecast, perception.horizon_s(policy, sample))


def _bounded(policy: Policy, units: int, partitions: int | None) -> int:
    """Within the policy's bounds, and no more than can share the partitions."""
    most = policy.max if partitions is None else min(policy.max, max(1, partitions))
    if units > most:
        units = sizing.useful(most, partitions)
    return min(policy.max, max(policy.min, units))


def _remembering(case: _Case) -> Memory:
    """The memory with what is wanted now, and how many samples in a row have asked for more."""
    at = case.sample.at
    asked = case.overloaded and case.wanted > case.sample.units
    start = at - case.policy.down_window_s
    wanted = (*(one for one in case.memory.wanted if one[1] > case.wanted and one[0] >= start), (at, case.wanted))
    ups = min(case.memory.ups + 1, case.policy.up_samples) if asked else 0
    fewer = case.wanted < case.sample.units
    since, most = case.memory.fewer_since, case.memory.fewer_most
    if since is None or (at - since >= _TRIM_WINDOWS * case.policy.down_window_s and not _roomy(case)):
        since, most = at, 0
    return msgspec.structs.replace(
        case.memory,
        wanted=wanted,
        ups=ups,
        fewer_since=since if fewer else None,
        fewer_most=max(case.wanted, most) if fewer else 0,
    )


def _decided(case: _Case) -> tuple[_Answer, Memory]:
    memory = case.memory
    answer = _out_of_bounds(case) or _nobody_or_nothing(case)
    if answer is not None:
        return answer, memory
    if memory.trial is not None and vetoes.ineffective(memory.trial):
        return _undone(case, memory.trial)
    return _more(case) if case.overloaded else (_enough(case), memory)


def _out_of_bounds(case: _Case) -> _Answer | None:
    policy, units = case.policy, case.sample.units
    if units > policy.max:
        return _cooling(case) or _Answer(policy.max, "above_max", f"{units} units are more than the most, {policy.max}")
    if units < policy.min and not (units == 0 and policy.scale_to_zero):
        return _cooling(case) or _Answer(
            policy.min, "below_min", f"{units} units are fewer than the least, {policy.min}"
        )
    return None


def _nobody_or_nothing(case: _Case) -> _Answer | None:
    """Scaling to zero and back."""
    policy, sample, memory = case.policy, case.sample, case.memory
    if sample.units == 0:
        if not sample.lag and not sample.arrivals:
            return _hold(case, "asleep", "there are no units, and nothing waits for one")
        # A worker that is on its way shows as a change only after a moment.
        waiting = _cooling(case) if memory.last == "wake" else None
        desired = _bounded(policy, case.wanted, case.demand.partitions)
        return waiting or _Answer(desired, "wake", f"{sample.lag or 0.0:.0f} records wait, and there are no units")
    if not policy.scale_to_zero or memory.idle_since is None or sample.at - memory.idle_since < policy.idle_s:
        return None
    return _cooling(case) or _Answer(0, "idle", f"nothing has come in and nothing waits for {policy.idle_s:.0f} s")


def _undone(case: _Case, trial: Trial) -> tuple[_Answer, Memory]:
    """Back to what there was before a scale-up that did not help, and no more for a while."""
    block_s = vetoes.next_block_s(case.memory, case.sample.at)
    memory = msgspec.structs.replace(
        case.memory,
        trial=None,
        blocked_until=case.sample.at + block_s,
        blocked_for="throttled" if capacity.throttled(case.sample) else "ineffective",
        block_s=block_s,
    )
    gain = trial.total / trial.seen - trial.processed
    message = (
        f"going from {trial.before} to {trial.after} brought {gain:.1f} records per second"
        f" of {trial.expected:.1f} expected; no more units for {block_s:.0f} s"
    )
    return _Answer(max(trial.before, case.policy.min), "undo", message), memory


def _more(case: _Case) -> tuple[_Answer, Memory]:
    """Too few units: as many as the formula asks for at once, unless something speaks against it."""
    for objection in (_vetoed, _capped, _confirming, _cooling, _not_worth_it):
        if (held := objection(case)) is not None:
            return held, _blocking(case.memory, case.sample) if held.reason == "throttled" else case.memory
    return _Answer(case.wanted, _cause(case), _because(case)), _trying(case)


def _vetoed(case: _Case) -> _Answer | None:
    veto = vetoes.hot(case.sample, case.memory, case.demand) or vetoes.blocked(case.sample, case.memory)
    return None if veto is None else _hold(case, *veto)


def _confirming(case: _Case) -> _Answer | None:
    ups, needed = case.memory.ups, case.policy.up_samples
    message = f"{case.wanted} units are asked for by {ups} samples in a row; it takes {needed}"
    return _hold(case, "confirming", message) if ups < needed else None


def _not_worth_it(case: _Case) -> _Answer | None:
    veto = vetoes.not_worth_it(case.policy, case.demand, case.wanted)
    return None if veto is None else _hold(case, *veto)


def _blocking(memory: Memory, sample: Sample) -> Memory:
    """The memory with a block that begins with this sample, unless one is in force."""
    if vetoes.in_force(memory, sample.at):
        return memory
    block_s = vetoes.next_block_s(memory, sample.at)
    return msgspec.structs.replace(memory, blocked_until=sample.at + block_s, blocked_for="throttled", block_s=block_s)


def _capped(case: _Case) -> _Answer | None:
    units, partitions = case.sample.units, case.demand.partitions
    if case.wanted > units:
        return None
    if units >= case.policy.max:
        return _hold(case, "at_max", f"{case.unbounded} units are asked for, and the most are {case.policy.max}")
    message = (
        f"{case.unbounded} units are asked for, but {partitions} partitions carry load: more cannot share it better"
    )
    return _hold(case, "at_partitions", message)


def _trying(case: _Case) -> Memory:
    """The memory with the scale-up on trial, if there is a backlog to try it on."""
    demand = case.demand
    if not case.backlog:
        return msgspec.structs.replace(case.memory, trial=None)
    trial = Trial(
        before=demand.units,
        after=case.wanted,
        processed=case.sample.processed or 0.0,
        expected=demand.power(case.wanted) - demand.power(demand.units),
    )
    return msgspec.structs.replace(case.memory, trial=trial)


def _cause(case: _Case) -> Reason:
    if case.backlog:
        return "lag"
    expected = (case.memory.arrivals or 0.0) / case.demand.power(case.sample.units)
    return "load" if expected > case.policy.busy_high else "forecast"


def _because(case: _Case) -> str:
    demand = case.demand
    return (
        f"{demand.rate:.1f} records per second to provide for and {demand.lag:.0f} waiting,"
        f" where {demand.units} units can do {demand.power(demand.units):.1f}"
    )


def _enough(case: _Case) -> _Answer:
    """Enough units, or too many."""
    policy, memory, units = case.policy, case.memory, case.sample.units
    if case.demand.capacity <= 0 and (case.demand.rate > 0 or case.demand.lag > 0):
        return _hold(case, "no_capacity", "it is not yet known what a unit can do")
    if case.wanted < units and case.utilization < policy.busy_low:
        return _fewer(case, "low_load", max(most for _, most in memory.wanted), policy.down_window_s)
    if _roomy(case):
        return _fewer(case, "trim", memory.fewer_most, _TRIM_WINDOWS * policy.down_window_s)
    if case.utilization < policy.busy_low:
        return _hold(case, "steady", f"{units} are the fewest that the load and the bounds allow")
    band = f"{policy.busy_low:.0%} to {policy.busy_high:.0%}"
    return _hold(case, "in_band", f"the units are used to {case.utilization:.0%}, within {band}")


def _roomy(case: _Case) -> bool:
    """Whether, inside the dead band, fewer units have long been enough and would not be near its upper end."""
    memory = case.memory
    if memory.fewer_since is None or case.sample.at - memory.fewer_since < _TRIM_WINDOWS * case.policy.down_window_s:
        return False
    return memory.fewer_most < case.sample.units and _used_by(case, memory.fewer_most) <= _highest(case.policy)


def _used_by(case: _Case, units: int) -> float:
    """The utilization that so many units would have."""
    power = case.demand.power(units)
    return case.demand.rate / power if power > 0 else math.inf


def _highest(policy: Policy) -> float:
    """The utilization that fewer units may have: so far from the upper end of the band that noise does not reach it."""
    return (policy.utilization + policy.busy_high) / 2


def _fewer(case: _Case, reason: Reason, most: int, window_s: float) -> _Answer:
    """Too many units: as few as the most that was asked for in the window, unless something speaks against it."""
    sample, memory = case.sample, case.memory
    if case.backlog:
        message = f"{perception.workable_lag(sample):.0f} records wait: no fewer units before they are worked off"
        return _hold(case, "backlog", message)
    if sample.memory is not None and sample.memory > vetoes.FULL_MEMORY:
        message = f"the fullest unit uses {sample.memory:.0%} of its memory: fewer would not hold it all"
        return _hold(case, "memory", message)
    watched = sample.at - (sample.at if memory.since is None else memory.since)
    if most >= sample.units or watched < window_s:
        return _hold(case, "down_window", f"{case.wanted} units would do, but not for all of the last {window_s:.0f} s")
    if (used := _used_by(case, most)) > _highest(case.policy):
        return _hold(case, "margin", f"{most} units would be used to {used:.0%}, so noise would ask for more again")
    if (cooling := _cooling(case)) is not None:
        return cooling
    message = f"the units are used to {case.utilization:.0%}; {most} were enough for the last {window_s:.0f} s"
    return _Answer(most, reason, message)


def _cooling(case: _Case) -> _Answer | None:
    """A hold while the last change is too fresh."""
    if case.memory.changed_at is None:
        return None
    cooldown = perception.cooldown_s(case.policy, case.sample)
    left = case.memory.changed_at + cooldown - case.sample.at
    if left <= 0:
        return None
    return _hold(case, "cooldown", f"the last change was {cooldown - left:.0f} s ago; {left:.0f} s to go")


def _hold(case: _Case, reason: Reason, message: str) -> _Answer:
    return _Answer(case.sample.units, reason, message)


def _terms(case: _Case) -> Terms:
    """The terms of the formula by name, for people and dashboards."""
    demand, memory = case.demand, case.memory
    known = demand.capacity > 0
    return {
        "arrivals": memory.arrivals,
        "forecast": _forecast(case.policy, memory, case.sample),
        "forecast_error": memory.forecast.error if memory.forecast.compared else None,
        "rate": demand.rate,
        "lag": demand.lag,
        "capacity": demand.capacity if known else None,
        "alpha": demand.alpha,
        "pause_s": demand.pause_s,
        "target": sizing.target_rate(case.policy, demand),
        "unbounded": case.unbounded if known else None,
        "wanted": case.wanted if known else None,
        "utilization": case.utilization if known and case.sample.units else None,
    }
