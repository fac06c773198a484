"""`signalbox scale`: how many workers and agents there are, who decides, and why.

What is, a running node tells; what is wanted goes to the topic `control`, where any Kafka client may put it as well.
"""

import getpass
import re
import time
from typing import Annotated, Any

import typer

from signalbox.cli import scale_explain, scale_simulate
from signalbox.cli.base import Command, group, session
from signalbox.cli.session import Session
from signalbox.cli.signals import say
from signalbox.errors import DeadlineExceeded, NotFound, SignalboxError, UsageError
from signalbox.scaling.policy import MOST_UNITS

app = group("Scaling: workers of flows, and agents of pools.")
app.command("explain", cls=Command)(scale_explain.explain)
app.command("simulate", cls=Command)(scale_simulate.simulate)

_COLUMNS = ("target", "now", "wanted", "min", "max", "state", "generation", "lag", "pause_s", "last_change")
_TARGET = re.compile(r"(flow|pool)/[a-z][a-z0-9_]*")
_LOOK_S = 0.1
_REASON = typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")


@app.command("show", cls=Command)
def show(ctx: typer.Context) -> None:
    """Show how many workers and agents there are, how many are wanted, and the latest change."""
    state = session(ctx)
    told = state.node().get("/api/v1/scaling")
    if not told["autoscaling"]:
        state.note("the autoscaler is paused: `signalbox scale resume` lets it decide again")
    latest = {change["target"]: change for change in told["changes"]}
    flows = [_flow_row(name, flow, latest.get(f"flow/{name}")) for name, flow in told["flows"].items()]
    pools = [_pool_row(name, pool) for name, pool in told["pools"].items()]
    state.output().records([*flows, *pools], _COLUMNS)


@app.command("set", cls=Command)
def set_target(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Such as flow/agents or pool/task_agent.")],
    count: Annotated[int, typer.Argument(metavar="N", min=0, max=MOST_UNITS, help="Workers or agents to have.")],
    reason: Annotated[str, _REASON] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when there are so many.")] = False,
) -> None:
    """Want so many workers of a flow, or agents of a pool. The autoscaler leaves the target alone for a while."""
    state = session(ctx)
    if not _TARGET.fullmatch(target):
        msg = f"{target!r} is no target"
        raise UsageError(msg, hint="write flow/NAME or pool/NAME; `signalbox scale show` lists them")
    if target.startswith("pool/") and count == 0:
        msg = "a pool has at least one agent"
        raise UsageError(msg, hint="a flow may have no workers: flow/NAME")
    if not state.options.bootstrap and state.find_node() is not None:
        _known(state, target)
    data = {"target": target, "desired": count, "reason": reason or f"asked for by {getpass.getuser()}"}
    say(state, "control", "control.scale", data, subject=target)
    if wait:
        _wait(state, target, count)


@app.command("pause", cls=Command)
def pause(ctx: typer.Context, reason: Annotated[str, _REASON] = "") -> None:
    """Let the autoscaler decide nothing until it is resumed; `scale set` goes on working."""
    say(session(ctx), "control", "control.pause", {"flow": "scaling", "reason": reason}, subject="flow/scaling")


@app.command("resume", cls=Command)
def resume(ctx: typer.Context, reason: Annotated[str, _REASON] = "") -> None:
    """Let the autoscaler decide again."""
    say(session(ctx), "control", "control.resume", {"flow": "scaling", "reason": reason}, subject="flow/scaling")


def _known(state: Session, target: str) -> dict[str, Any]:
    """What the node says of a target."""
    told = state.node().get("/api/v1/scaling")
    kind, _, name = target.partition("/")
    found: dict[str, Any] | None = told[f"{kind}s"].get(name)
    if found is None:
        there = [f"flow/{one}" for one in told["flows"]] + [f"pool/{one}" for one in told["pools"]]
        msg = f"there is no {target}"
        raise NotFound(msg, hint=f"there are: {', '.join(there)}")
    return found


def _wait(state: Session, target: str, count: int) -> None:
    """Return when the target has so many, or say why it has not."""
    deadline = time.monotonic() + state.timeout_s()
    while time.monotonic() < deadline:
        now = _known(state, target)
        if _has(now, count):
            return
        _require_no_failure(state, target, count)
        time.sleep(_LOOK_S)
    msg = f"{target} has not got {count} within {state.timeout_s():g} s"
    raise DeadlineExceeded(msg, hint="`signalbox scale show` tells how far it is; --timeout waits longer")


def _has(now: dict[str, Any], count: int) -> bool:
    if "size" in now:
        return bool(now["size"] == count)
    return bool(now["workers"] == now["target"] == count) and not now["changing"]


def _require_no_failure(state: Session, target: str, count: int) -> None:
    changes = [change for change in state.node().get("/api/v1/scaling")["changes"] if change["target"] == target]
    if changes and changes[-1]["type"] == "scaling.rescale.failed" and changes[-1]["desired"] == count:
        msg = f"{target} was not changed: {changes[-1]['error']}"
        raise SignalboxError(msg, hint="the workers' logs say more")


def _flow_row(name: str, flow: dict[str, Any], change: dict[str, Any] | None) -> dict[str, Any]:
    last = change and f"{change['before']} to {change['desired']}, {change['step']}: {change['reason']}"
    return {
        "target": f"flow/{name}",
        "now": flow["workers"],
        "wanted": flow["target"],
        "min": flow["min"],
        "max": flow["max"],
        "state": flow["state"],
        "generation": flow["generation"],
        "lag": flow["lag_records"],
        "pause_s": change and change["pause_s"] and round(change["pause_s"], 3),
        "last_change": last,
    }


def _pool_row(name: str, pool: dict[str, Any]) -> dict[str, Any]:
    return {"target": f"pool/{name}", "now": pool["size"], "min": pool["min"], "max": pool["max"]}
