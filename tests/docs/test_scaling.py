"""What the page about scaling says of the controller and of the simulation is so."""

import re
from typing import get_args

import pytest

from signalbox.scaling import comparison, traces
from signalbox.scaling.model import Reason
from signalbox.scaling.policy import Policy
from tests.support.pages import ROOT

PAGE = (ROOT / "docs" / "explanation" / "scaling.md").read_text()
POLICIES = ("ours", "hpa", "hpa_tuned", "flink")


@pytest.fixture(scope="module")
def runs():
    """Every policy on every shipped trace."""
    return comparison.compare(traces.shipped().values(), POLICIES, Policy())


def row(name):
    """The cells of the row of figures that begins with the name."""
    [line] = [line for line in PAGE.partition("## Trying a policy")[2].splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_page_explains_every_reason():
    """The table of reasons has each reason of the controller once, and no other."""
    told = re.findall(r"^\| `(\w+)` \| (?:scale|hold) \|", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(get_args(Reason))


def test_the_simulation_gives_the_figures_of_the_page(runs):
    """Violation seconds and unit-seconds are those that `signalbox scale simulate` prints."""
    for trace in traces.shipped():
        told = [f"{run.violation_s} / {run.unit_s}" for run in runs if run.trace == trace]
        assert row(f"`{trace}`") == told, trace


def test_the_sums_of_the_page_are_right(runs):
    """Sums, costs, changes and reversals by policy."""
    every = [[run for run in runs if run.policy == policy] for policy in POLICIES]
    sums = [f"{sum(run.violation_s for run in of)} / {sum(run.unit_s for run in of)}" for of in every]
    assert row("all") == sums
    assert row("cost of all") == [f"{sum(run.cost for run in of):.0f}" for of in every]
    changes = [f"{sum(len(run.changes) for run in of)}, {sum(run.reversals for run in of)}" for of in every]
    assert row("changes, reversals") == changes
