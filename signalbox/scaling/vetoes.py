"""Why more units are not taken although the formula asks for them: they would not help, or not be worth their pause.

Each veto answers with its reason code and a sentence, or None. `controller` asks them, and has the reasons that are no
vetoes; docs/explanation/scaling.md lists them all.
"""

from typing import NamedTuple

from signalbox.scaling import capacity, sizing
from signalbox.scaling.memory import Memory, Trial
from signalbox.scaling.model import Reason, Sample
from signalbox.scaling.policy import Policy
from signalbox.scaling.sizing import Demand

#: A block after a scale-up that did not help, or after refused calls; doubled when it is needed again.
BLOCK_S = 600.0
LONGEST_BLOCK_S = 14_400.0
#: So many seconds without refused calls end a block that was for them.
UNREFUSED_S = 20.0
#: A scale-up was ineffective if it brought less than this share of what it should have.
LEAST_GAIN = 0.1
#: Samples with all units at work and a backlog that the judgement of a scale-up rests on.
TRIAL_SAMPLES = 5
#: A backlog is at least so many seconds of the units' work.
BACKLOG_S = 1.0
#: Above this share of its limit, a unit's memory would not hold the share of one that is gone.
FULL_MEMORY = 0.85


class Veto(NamedTuple):
    """A reason code and its sentence."""

    reason: Reason
    message: str


def hot(sample: Sample, memory: Memory, demand: Demand) -> Veto | None:
    """One partition has most of the backlog: a unit more would find nothing to do.

    A single unit may be joined by others, which take the rest off it.
    """
    lag, share = sample.lag or 0.0, sample.hottest or 0.0
    if not memory.hot or sample.units < 2 or lag <= BACKLOG_S * demand.capacity:
        return None
    if sample.hot_key is not None:
        key = sample.hot_key if len(sample.hot_key) <= 100 else f"{sample.hot_key[:99]}…"
        message = f"the subject {key!r} makes up most of a partition that has {share:.0%} of a lag of {lag:.0f}"
        return Veto("hot_key", message)
    return Veto("hot_partition", f"one partition has {share:.0%} of a lag of {lag:.0f}: more units would not help")


def blocked(sample: Sample, memory: Memory) -> Veto | None:
    """Calls are refused, or the last scale-up did not help: no more units for a while."""
    if in_force(memory, sample.at):
        left = (memory.blocked_until or 0.0) - sample.at
        return Veto(memory.blocked_for, f"no more units for {left:.0f} s: {_CAUSES[memory.blocked_for]}")
    if capacity.throttled(sample):
        message = f"outside services refuse {sample.throttled:.1f} calls per second: more units would be refused too"
        return Veto("throttled", message)
    return None


def in_force(memory: Memory, at: float) -> bool:
    """Whether a block holds. One for refused calls ends early when none has been refused for a while."""
    if memory.blocked_until is None or at >= memory.blocked_until:
        return False
    quiet = memory.refused_at is None or at - memory.refused_at >= UNREFUSED_S
    return memory.blocked_for != "throttled" or not quiet


def not_worth_it(policy: Policy, demand: Demand, units: int) -> Veto | None:
    """The pause of the change would cost more lag than it saves."""
    saved = sizing.saved_lag_seconds(policy, demand, units)
    cost = sizing.pause_lag_seconds(demand)
    if saved > cost:
        return None
    message = f"{units} units would save {saved:.0f} lag-seconds, and the pause of the change costs {cost:.0f}"
    return Veto("not_worth_it", message)


def ineffective(trial: Trial) -> bool:
    """Whether a scale-up that has been watched long enough brought less than a tenth of what it should have.

    As in Flink's autoscaler (`scaling.effectiveness.threshold`), where it is off by default.
    """
    return trial.seen >= TRIAL_SAMPLES and trial.total / trial.seen - trial.processed < LEAST_GAIN * trial.expected


def next_block_s(memory: Memory, at: float) -> float:
    """How long a block is that begins now: twice the last one, unless that is over for as long as it was."""
    if memory.blocked_until is None or at - memory.blocked_until > memory.block_s:
        return BLOCK_S
    return min(LONGEST_BLOCK_S, 2 * memory.block_s)


_CAUSES = {
    "throttled": "outside services refused calls",
    "ineffective": "the last scale-up did not help",
}
