"""Turns runs into rows, a table and a JSON file that names its circumstances."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.contender import BENCHMARKS
from harness.running import Run

BASELINE = "plain"
SUBJECT = "signalbox"
RESULTS = BENCHMARKS / "results"
_WIDTH = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All runs of one contender. Numbers are medians of its right runs, rates are signals per second."""

    contender: str
    runs: int
    problem: str | None
    rate: float = 0.0
    slowest: float = 0.0
    fastest: float = 0.0
    cpu_s: float = 0.0
    cpu_us_per_signal: float = 0.0
    startup_s: float = 0.0
    rss_mb: float = 0.0


def rows(runs: Sequence[Run], signals: int) -> list[Row]:
    """One row per contender, in the order of first appearance."""
    names = dict.fromkeys(run.contender for run in runs)
    return [_row(name, [run for run in runs if run.contender == name], signals) for name in names]


def ratios(table: Sequence[Row]) -> dict[str, float]:
    """`a/b` -> how many times the rate of b the rate of a is: each to the plain loop, and ours to each."""
    rates = {row.contender: row.rate for row in table if row.rate}
    pairs = [(name, BASELINE) for name in rates] + [(SUBJECT, name) for name in rates]
    return {
        f"{one}/{other}": round(rates[one] / rates[other], 3)
        for one, other in dict.fromkeys(pairs)
        if one != other and one in rates and other in rates
    }


def render(table: Sequence[Row], title: str) -> Table:
    """The table for a terminal."""
    factors = ratios(table)
    shown = Table(title=title, title_justify="left")
    for heading in ("contender", "signals/s", "min .. max", "x plain", f"{SUBJECT} is", "CPU s", "us/signal"):
        shown.add_column(heading, justify="left" if heading == "contender" else "right")
    for heading in ("start s", "MB", "output"):
        shown.add_column(heading, justify="right" if heading != "output" else "left")
    for row in table:
        to_plain = factors.get(f"{row.contender}/{BASELINE}")
        times = factors.get(f"{SUBJECT}/{row.contender}")
        shown.add_row(
            row.contender,
            f"{row.rate:,.0f}",
            f"{row.slowest:,.0f} .. {row.fastest:,.0f}",
            "1" if row.contender == BASELINE else f"{to_plain:.2f}" if to_plain else "",
            f"{times:.2f} x" if times else "",
            f"{row.cpu_s:.2f}",
            f"{row.cpu_us_per_signal:.1f}",
            f"{row.startup_s:.1f}",
            f"{row.rss_mb:,.0f}",
            "right" if row.problem is None else f"WRONG: {row.problem}",
        )
    return shown


def console() -> Console:
    """Standard output; wide enough for the table where its width is not that of a terminal."""
    shown = Console()
    return shown if shown.is_terminal else Console(width=_WIDTH)


def write(kind: str, content: Mapping[str, Any], machine: Mapping[str, Any], directory: Path) -> Path:
    """Write a result as JSON; its name says what, when and of which commit."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = str(machine["at"])[:19].replace("-", "").replace(":", "").replace("T", "-")
    path = directory / f"{kind}-{stamp}-{str(machine['commit']).replace('+', '-dirty')}.json"
    path.write_text(json.dumps({"kind": kind, "machine": machine, **content}, indent=2) + "\n")
    return path


def as_json(table: Sequence[Row], runs: Sequence[Run]) -> dict[str, Any]:
    """Rows, ratios and every single run."""
    return {
        "medians": [asdict(row) for row in table],
        "ratios": ratios(table),
        "runs": [asdict(run) for run in runs],
    }


def _row(name: str, runs: Sequence[Run], signals: int) -> Row:
    problem = next((run.problem for run in runs if run.problem), None)
    right = [run for run in runs if run.problem is None]
    if not right:
        return Row(contender=name, runs=len(runs), problem=problem)
    rates = [run.signals_per_s for run in right]
    cpu_s = median(run.cpu_s for run in right)
    return Row(
        contender=name,
        runs=len(runs),
        problem=problem,
        rate=median(rates),
        slowest=min(rates),
        fastest=max(rates),
        cpu_s=cpu_s,
        cpu_us_per_signal=1e6 * cpu_s / signals,
        startup_s=median(run.startup_s for run in right),
        rss_mb=median(run.rss_mb for run in right),
    )
