"""`signalbox alert`: which alerts are open, as the `alerts` topic tells, and who takes charge of one."""

import getpass
from typing import Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.records import read_signals
from signalbox.cli.session import Session
from signalbox.cli.signals import say
from signalbox.errors import Conflict, NotFound

app = group("Alerts.")

_COLUMNS = ("alert_id", "severity", "state", "subject", "metric", "value", "count", "raised_at", "acknowledged_by")


@app.command("list", cls=Command)
def list_alerts(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", envvar="SIGNALBOX_ALERT_LIST_ALL", help="Also the episodes that are over.")
    ] = False,
) -> None:
    """List the alerts that are open, newest first."""
    state = session(ctx)
    alerts = _episodes(state) if everything else _open(state)
    newest = sorted(alerts, key=lambda alert: str(alert.get("updated_at") or ""), reverse=True)
    state.output().records(newest, _COLUMNS)


@app.command("ack", cls=Command)
def acknowledge(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="An alert_id or a dedup_key.")],
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who takes charge; default: you.")] = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What is being done about it.")] = "",
) -> None:
    """Take charge of an open alert, so that it no longer escalates by itself."""
    from schemas.payloads.alerts import AlertAck

    state = session(ctx)
    alert = _named(state, id)
    if alert.get("acknowledged_by"):
        msg = f"the alert {alert['alert_id']} is already acknowledged by {alert['acknowledged_by']}"
        raise Conflict(msg)
    ack = AlertAck(alert_id=alert["alert_id"], dedup_key=None, by=by or getpass.getuser(), note=note)
    say(state, "signals", "alert.ack", ack, subject=alert["subject"])


def _named(state: Session, id: str) -> dict[str, Any]:
    for alert in _open(state):
        if id in (alert["alert_id"], alert.get("dedup_key")):
            return alert
    msg = f"no alert {id!r} is open"
    raise NotFound(msg, hint="`signalbox alert list` lists the open ones")


def _open(state: Session) -> list[dict[str, Any]]:
    """The latest word on every dedup key, where that is not "resolved"."""
    latest = {alert.get("dedup_key") or alert["alert_id"]: alert for alert in _told(state)}
    return [alert for alert in latest.values() if alert.get("state") != "resolved"]


def _episodes(state: Session) -> list[dict[str, Any]]:
    """The latest word on every episode."""
    return list({alert["alert_id"]: alert for alert in _told(state)}.values())


def _told(state: Session) -> list[dict[str, Any]]:
    """Everything said about alerts, in the order in which it was said of each subject.

    Users' agents may raise alerts with fields of their own; what is missing is filled in from the envelope.
    """
    alerts = []
    for signal in read_signals(state, "alerts"):
        if not signal.type.startswith("alert.") or signal.type == "alert.ack" or not isinstance(signal.data, dict):
            continue
        filled = {"alert_id": signal.id, "subject": signal.key, "state": signal.type.rpartition(".")[2]}
        alerts.append({**filled, "updated_at": signal.time, **signal.data})
    return alerts
