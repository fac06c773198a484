"""What the controller learns from a sample before it decides: a clean sample, and the memory brought up to date.

Nothing that a sensor may send stops it: what is no sensible number counts as not measured.
"""

import msgspec

from signalbox.scaling import capacity, forecast, vetoes
from signalbox.scaling.memory import Memory, Trial
from signalbox.scaling.model import Sample
from signalbox.scaling.policy import Policy

#: After a gap of so many seconds, what was remembered of the last samples' order is out of date.
GAP_S = 30.0
#: Time constant of the mean arrivals.
ARRIVALS_S = 10.0
#: Numbers above this are faults of a sensor; with them, no formula overflows.
_LARGEST = 1e12
#: Times have to have a calendar date.
_LATEST_S = 250_000_000_000.0
#: Longest piece of a name that is kept.
_CHARACTERS = 500
_MOST_UNITS = 1_000_000
#: Samples that `up_samples` can refer to.
_RECENT = 16
_RATES = ("arrivals", "processed", "lag", "busy", "service_s", "memory", "hottest", "stuck_lag")


def cleaned(sample: Sample) -> Sample:
    """The sample as JSON would return it, with everything that is no number from 0 to 10^12 taken for not measured."""
    changes: dict[str, object] = {name: _number(getattr(sample, name)) for name in _RATES}
    changes["busy"] = None if changes["busy"] is None else min(1.0, _number(sample.busy) or 0.0)
    changes["throttled"] = _number(sample.throttled) or 0.0
    changes["at"] = float(sample.at) if 0 <= sample.at <= _LATEST_S else 0.0
    changes["target"] = _text(sample.target)
    changes["hot_key"] = None if sample.hot_key is None else _text(sample.hot_key)
    changes["units"] = max(0, min(_MOST_UNITS, sample.units))
    changes["stuck"] = max(0, min(_MOST_UNITS, sample.stuck))
    changes["partitions"] = None if sample.partitions is None else max(0, min(_MOST_UNITS, sample.partitions))
    pauses = (_number(pause) for pause in sample.pauses[-5:])
    changes["pauses"] = tuple(pause for pause in pauses if pause is not None)
    return msgspec.structs.replace(sample, **changes)


def complete(sample: Sample) -> bool:
    """Whether all is known that a decision needs. Without units, there is nobody to measure how busy they are."""
    if sample.arrivals is None or sample.lag is None:
        return False
    return sample.units == 0 or (sample.processed is not None and sample.busy is not None)


def pause_s(policy: Policy, sample: Sample) -> float:
    """Seconds that a change pauses the target: the longest of the last five, or the policy's guess before the first."""
    return max(sample.pauses, default=policy.pause_s)


def cooldown_s(policy: Policy, sample: Sample) -> float:
    """Least seconds between two changes: at least ten pauses, which so take no more than a tenth of all time."""
    return max(policy.cooldown_s, 10 * pause_s(policy, sample))


def horizon_s(policy: Policy, sample: Sample) -> float:
    """How far ahead to look: what is decided now has to do until the next change can have taken place."""
    return pause_s(policy, sample) + cooldown_s(policy, sample)


def workable_lag(sample: Sample) -> float:
    """Records that wait and that units could work off: those in stuck partitions are not among them."""
    lag = sample.lag or 0.0
    if not sample.stuck:
        return lag
    return max(0.0, lag - (lag * (sample.hottest or 0.0) if sample.stuck_lag is None else sample.stuck_lag))


def spread_lag(sample: Sample) -> float:
    """Records that wait and that more units could share: all if the partitions have the same, none if one has all."""
    lag, partitions = workable_lag(sample), sample.partitions
    if sample.stuck or sample.hottest is None or partitions is None or partitions < 2:
        return lag
    return lag * min(1.0, (1.0 - min(1.0, sample.hottest)) * partitions / (partitions - 1))


def interrupted(memory: Memory, sample: Sample) -> Memory:
    """The memory after a sample that nothing can be decided by: streaks end, and estimates stay."""
    changed = memory.units is not None and memory.units != sample.units
    return msgspec.structs.replace(
        memory,
        at=sample.at,
        seen_at=sample.at if sample.changing else memory.seen_at,
        units=sample.units,
        settled=False,
        ups=0,
        recent=(),
        fewer_since=None if changed else memory.fewer_since,
        changed_at=sample.at if changed else memory.changed_at,
        idle_since=None,
    )


def learned(policy: Policy, memory: Memory, sample: Sample) -> Memory:
    """The memory after a complete sample in which no change was under way."""
    at, arrivals = sample.at, sample.arrivals or 0.0
    elapsed = 0.0 if memory.seen_at is None else at - memory.seen_at
    gap = memory.seen_at is None or elapsed > GAP_S
    changed = memory.units is not None and memory.units != sample.units
    # The rates of a sample are means since the one before, part of which was a pause if that was not whole.
    settled = memory.settled and not changed and not gap
    idle = arrivals <= 0 and not sample.lag
    recent = (*(() if gap else memory.recent)[1 - _RECENT :], arrivals)
    # A single odd sample must not move the mean.
    middle = sorted(recent[-3:])[len(recent[-3:]) // 2]
    return msgspec.structs.replace(
        memory,
        at=at,
        seen_at=at,
        units=sample.units,
        settled=True,
        since=at if gap or memory.since is None else memory.since,
        arrivals=arrivals if gap else forecast.smoothed(memory.arrivals, middle, elapsed, ARRIVALS_S),
        recent=recent,
        forecast=forecast.observed(memory.forecast, at, 0.0 if gap else elapsed, arrivals, horizon_s(policy, sample)),
        capacity=capacity.observed(memory.capacity, sample) if settled or memory.seen_at is None else memory.capacity,
        ups=0 if gap else memory.ups,
        fewer_since=None if changed or gap else memory.fewer_since,
        hot=_hot(memory.hot, sample),
        refused_at=at if capacity.throttled(sample) else memory.refused_at,
        changed_at=at if changed else memory.changed_at,
        trial=_watched(memory.trial, sample, settled=settled),
        idle_since=None if not idle else at if gap or memory.idle_since is None else memory.idle_since,
    )


def _hot(before: bool, sample: Sample) -> bool:
    """Whether one partition has most of the backlog.

    It stays hot down to half the share: what is left in it, and in those that share its unit, is no new load.
    """
    if sample.hottest is None or not workable_lag(sample):
        return False
    # Of two partitions, one always has at least half.
    most = max(capacity.HOT_SHARE, 1.5 / max(1, sample.partitions or 1))
    return sample.hottest > (most / 2 if before else most)


def _watched(trial: Trial | None, sample: Sample, *, settled: bool) -> Trial | None:
    """The scale-up on trial after one more sample; over once it was judged, or the backlog or the units are others."""
    if trial is None or sample.units not in (trial.before, trial.after):
        return None
    if sample.units != trial.after or not settled:
        return trial
    if trial.seen >= vetoes.TRIAL_SAMPLES:
        return None
    if workable_lag(sample) <= vetoes.BACKLOG_S * (sample.processed or 0.0):
        return None
    return msgspec.structs.replace(trial, seen=trial.seen + 1, total=trial.total + (sample.processed or 0.0))


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and 0 <= value <= _LARGEST else None


def _text(text: str) -> str:
    return text[:_CHARACTERS].encode("utf-8", "replace").decode()
