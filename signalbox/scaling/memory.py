"""What the controller remembers from one sample to the next: a few hundred bytes, a few kilobytes at most.

Plain immutable values that survive JSON unchanged, because a decision records the memory it was made with. Every
sequence in it is bounded. What the values mean to a decision is told in `forecast`, `capacity` and `controller`.
"""

from typing import Literal

import msgspec


class Forecast(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of the arrivals' linear trend, and how good its forecasts have been."""

    level: float | None = None
    """Arrivals per second now, smoothed."""
    trend: float = 0.0
    """By how much they rise, per second and second."""
    error: float = 0.0
    """Recent mean absolute error of forecasts as a share of what came."""
    compared: int = 0
    """So many forecasts have been compared with what came."""
    due: tuple[tuple[float, float], ...] = ()
    """Forecasts whose time has not come: when it comes, and the rate foretold."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one unit can do."""

    units: int = 0
    """The number of units that `recent` was measured with."""
    recent: tuple[float, ...] = ()
    """Records per second of a unit that is always busy, by the latest samples."""
    per_unit: float | None = None
    """The estimate that follows from them."""
    firm: bool = False
    """Whether it rests on units that had something to do."""
    points: tuple[tuple[int, float], ...] = ()
    """Numbers of units with the records per second that all of them could do, the latest last."""


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last scale-up under a backlog, until it is known whether it helped."""

    before: int
    after: int
    processed: float
    """Records per second before it."""
    expected: float
    """Records per second that it should have added."""
    seen: int = 0
    """Samples since then with all units at work and a backlog."""
    total: float = 0.0
    """Sum of the records per second in those."""


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything carried over. `Memory()` is that of a target never seen before."""

    at: float | None = None
    """Time of the last sample."""
    seen_at: float | None = None
    """Time of the last one that was whole, or showed a change under way."""
    units: int | None = None
    """Units in the last sample."""
    settled: bool = False
    """Whether the last sample was whole and no change was under way in it."""
    since: float | None = None
    """Since when there have been samples without a long gap."""
    arrivals: float | None = None
    """Arrivals per second, smoothed."""
    recent: tuple[float, ...] = ()
    """Arrivals per second of the latest samples."""
    forecast: Forecast = Forecast()
    capacity: Capacity = Capacity()
    ups: int = 0
    """Samples in a row that asked for more units."""
    wanted: tuple[tuple[float, int], ...] = ()
    """When how many units were wanted; only what is still a maximum of the time since, so the numbers fall."""
    fewer_since: float | None = None
    """Since when every sample has wanted fewer units than there are."""
    fewer_most: int = 0
    """The most that was wanted since then."""
    hot: bool = False
    """Whether one partition has, or is still working off, most of the backlog."""
    refused_at: float | None = None
    """When outside services last refused calls."""
    changed_at: float | None = None
    """When the last change was decided or seen."""
    last: str = ""
    """Reason of the last decision to scale."""
    trial: Trial | None = None
    blocked_until: float | None = None
    """No more units before."""
    blocked_for: Literal["throttled", "ineffective"] = "throttled"
    """The reason of the block."""
    block_s: float = 0.0
    """How long the last block was; the next one is twice as long."""
    idle_since: float | None = None
    """Since when nothing has come in and nothing waits."""
