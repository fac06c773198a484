"""Policies side by side on the same traces: one row per run, and the sums."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from signalbox.scaling import rivals
from signalbox.scaling.policy import Policy
from signalbox.scaling.simulator import Run, simulate
from signalbox.scaling.traces import Trace

#: The columns that add up over traces.
_SUMMED = ("seconds", "violation_s", "unit_s", "cost", "decisions", "reversals")
_BLOCKS = "▁▂▃▄▅▆▇█"
_CHART_CHARACTERS = 24


def compare(traces: Iterable[Trace], policies: Sequence[str], policy: Policy) -> list[Run]:
    """A run of each policy on each trace, with the bounds of `policy`, and `ours` with all its settings.

    Raises:
        KeyError: there is no policy of such a name; `rivals.scalers` has them.
    """
    makers = rivals.scalers(policy)
    return [simulate(trace, name, makers[name](), most=policy.max) for trace in traces for name in policies]


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A run as a row of JSON values, with text charts of lag and units, each to its own maximum."""
    return [
        {
            **msgspec.to_builtins(run),
            "decisions": len(run.changes),
            "lag_chart": chart([point.lag for point in run.timeline]),
            "units_chart": chart([float(point.units) for point in run.timeline]),
        }
        for run in runs
    ]


def sums(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per policy over all its traces."""
    policies = dict.fromkeys(row["policy"] for row in rows)
    return [
        {"trace": "(all)", "policy": policy}
        | {name: sum(row[name] for row in rows if row["policy"] == policy) for name in _SUMMED}
        for policy in policies
    ]


def chart(values: Sequence[float], width: int = _CHART_CHARACTERS) -> str:
    """The values as a line of blocks, each the largest of its part, from nothing to the largest of all."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BLOCKS[0] * min(width, len(values))
    parts = min(width, len(values))
    bounds = [len(values) * part // parts for part in range(parts + 1)]
    peaks = (max(values[start:end]) for start, end in itertools.pairwise(bounds))
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(len(_BLOCKS) * peak / most))] for peak in peaks)
