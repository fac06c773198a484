"""What the controller sees and what it says: one sample of a target's load, and one decision.

Both are plain values that survive JSON unchanged, so that a recorded decision can be made again from its inputs.
"""

from typing import Any, Literal

import msgspec

Held = Literal["paused", "overridden", "late"]
"""Why nothing may change whatever the load: the autoscaler is paused, a person decided, or the look is long past."""
Reason = Literal[
    Held, "stale", "changing", "no_metrics", "below_min", "above_max", "idle", "asleep", "wake", "undo", "lag", "load",
    "forecast", "hot_key", "hot_partition", "throttled", "ineffective", "at_max", "at_partitions", "confirming",
    "cooldown", "not_worth_it", "no_capacity", "low_load", "trim", "backlog", "memory", "down_window", "margin",
    "steady", "in_band",
]  # fmt: skip
"""Why the controller decides as it does; docs/explanation/scaling.md explains each."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One look at a target. What could not be measured is None; a rate is per second."""

    target: str
    """`flow/<name>` or `pool/<name>`."""
    at: float
    """Unix seconds."""
    units: int
    """Worker processes, or agents, that there are."""
    arrivals: float | None = None
    """Records per second that came in, by the ends of the topics: known even when nobody reads."""
    processed: float | None = None
    """Records per second that were worked off."""
    lag: float | None = None
    """Records that wait: end minus position over all partitions, or the queue of a pool."""
    busy: float | None = None
    """Share of its slots that the average unit has occupied, 0 to 1."""
    service_s: float | None = None
    """Seconds that one record takes, 95th percentile."""
    throttled: float = 0.0
    """Answers per second by which outside services ask for patience (429)."""
    memory: float | None = None
    """Resident memory of the fullest unit as a share of its limit."""
    partitions: int | None = None
    """Partitions that carry load, which is as many units as can share it; None if any number can."""
    hottest: float | None = None
    """Share of the lag in the partition that has most of it, 0 to 1."""
    hot_key: str | None = None
    """A subject that makes up most of a hot partition, if one does."""
    stuck: int = 0
    """Partitions whose position does not move although records wait."""
    stuck_lag: float | None = None
    """Records that wait in those; None if not measured, then the hottest partition is taken for one of them."""
    pauses: tuple[float, ...] = ()
    """Seconds that the last changes paused the target, the latest last, at most five."""
    changing: bool = False
    """Whether a change is under way."""
    held: Held | None = None
    """Why nothing may change now, if so."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a target, and everything it followed from."""

    id: str
    target: str
    at: float
    """Unix seconds: those of the sample."""
    units: int
    """How many there were."""
    desired: int
    """How many there should be; equal to `units` when held."""
    verdict: str
    """`scale` or `hold`."""
    reason: str
    """A short, stable word, such as `lag`, `in_band` or `hot_partition`."""
    message: str
    """The reason in a sentence for people, with the figures that decided."""
    terms: dict[str, float | int | str | None]
    """The terms of the formula by name."""
    inputs: dict[str, Any]
    """`policy`, `memory` and `sample` as JSON values: `controller.replay` makes the same decision of them."""
