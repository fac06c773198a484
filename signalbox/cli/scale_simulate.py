"""`signalbox scale simulate`: what a scaling policy makes of a load, beside the rules of other systems."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import session
from signalbox.cli.session import Session
from signalbox.errors import UsageError

if TYPE_CHECKING:
    from signalbox.scaling.policy import Policy

#: The columns of the table with the keys they come from.
_COLUMNS = {
    "trace": "trace",
    "policy": "policy",
    "violation_s": "violation_s",
    "unit_s": "unit_s",
    "cost": "cost",
    "decisions": "decisions",
    "reversals": "reversals",
    "largest_lag": "largest_lag",
    "lag": "lag_chart",
    "units": "units_chart",
}
_ALL = "all"
_TARGET = re.compile(r"(flow|pool)/([a-z][a-z0-9_]{0,63})")


def simulate(
    ctx: typer.Context,
    trace: Annotated[
        list[str] | None,
        typer.Option(
            "--trace",
            metavar="F",
            help="A CSV or JSON lines file with `at` and `arrivals`, or the name of a trace that ships;"
            " may be given again. Default: all that ship.",
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", metavar="ours|hpa|hpa_tuned|flink|all", help="Which policies to run.")
    ] = _ALL,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="flow/NAME|pool/NAME", help="Whose settings `ours` has. Default: the defaults."
        ),
    ] = None,
) -> None:
    """Run scaling policies on a load in virtual time, and compare them.

    A unit of the simulated target does 100 records per second. VIOLATION_S are seconds in which a record had waited for
    more than 5 s, UNIT_S the units summed up over time; COST is UNIT_S plus VIOLATION_S times the most units allowed.
    Settings are those of --target, so that `--target flow/agents --set scaling.flows.agents.utilization=0.6` tries one.
    """
    from signalbox.scaling import comparison, rivals, traces

    state = session(ctx)
    settings = _policy(state, target)
    names = tuple(rivals.scalers(settings))
    if policy not in (*names, _ALL):
        msg = f"--policy {policy!r} is none of {', '.join(names)} or {_ALL}"
        raise UsageError(msg)
    chosen = [traces.find(name) for name in trace] if trace else list(traces.shipped().values())
    runs = comparison.compare(chosen, names if policy == _ALL else (policy,), settings)
    rows = comparison.rows(runs)
    output = state.output()
    if output.format != "table":
        output.records(rows)
        return
    shown = rows if len(chosen) == 1 else [*rows, *comparison.sums(rows)]
    output.records([_shown(row) for row in shown], tuple(_COLUMNS))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    values = {column: row.get(key) for column, key in _COLUMNS.items()}
    return {name: round(value) if isinstance(value, float) else value for name, value in values.items()}


def _policy(state: Session, target: str | None) -> "Policy":
    from signalbox.scaling.policy import Policy

    if target is None:
        return Policy()
    match = _TARGET.fullmatch(target)
    if match is None:
        msg = f"--target {target!r} is not a target"
        raise UsageError(msg, hint="write flow/NAME or pool/NAME, such as flow/agents")
    scaling = state.settings().scaling
    return (scaling.flows if match[1] == "flow" else scaling.pools).get(match[2], Policy())
