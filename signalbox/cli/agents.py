"""`signalbox agent`: which agents there are, what they remember, and how to pause, resume and stop one.

A running node is asked over HTTP: it knows its own agents from its workers, and those of other nodes from the registry.
Without one, `list` reads the topic `registry` itself. Commands to agents always go through the `control` topic, which
keeps them as an audit log.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.session import Session
from signalbox.cli.signals import say

if TYPE_CHECKING:
    from signalbox.registry.query import Query

app = group("Agents.")
_COLUMNS = ("agent_id", "type", "kind", "status", "node", "capabilities", "age")

_AgentId = Annotated[str, typer.Argument(metavar="ID", help="Such as task_agent_1 or monitor_agent:host-7.")]
_Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")]


@app.command("list", cls=Command)
def list_agents(
    ctx: typer.Context,
    where: Annotated[
        str, typer.Option("--where", metavar="QUERY", help="Such as 'type!=task_agent and metadata.load<0.5'.")
    ] = "",
    capability: Annotated[str, typer.Option("--capability", metavar="NAME", help="Only those that offer it.")] = "",
    type: Annotated[str, typer.Option("--type", metavar="NAME", help="Only those of this class.")] = "",
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Only those on this node.")] = "",
    status: Annotated[
        str, typer.Option("--status", metavar="STATUS", help="Only those that are running, paused or stale.")
    ] = "",
    prefix: Annotated[str, typer.Option("--prefix", metavar="P", help="Only ids that begin so.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="At most so many.")] = 1000,
) -> None:
    """List agents: as the running node knows them; without one, or with --bootstrap, as the registry topic tells."""
    state = session(ctx)
    query = _query(where, capability=capability, type=type, node=node, status=status)
    client = None if state.options.bootstrap else state.find_node()
    if client is None:
        rows = _registered(state, query, prefix, limit)
    else:
        answer = client.get("/api/v1/agents", where=query.as_json(), prefix=prefix, limit=limit)
        for worker in answer["silent"]:
            state.note(f"{worker} does not answer: of its agents only those in the registry are shown")
        for worker in answer["cut"]:
            state.note(f"{worker} has too many agents to look through them all; --prefix or --type narrows it down")
        rows = answer["agents"]
    state.output().records(_aged(rows) if state.output().format == "table" else rows, _COLUMNS)


@app.command("show", cls=Command)
def show(ctx: typer.Context, id: _AgentId) -> None:
    """Show what an agent is and does: kind, status, counts, timers, state."""
    state = session(ctx)
    state.output().record(_asked(state, id))


@app.command("state", cls=Command)
def show_state(ctx: typer.Context, id: _AgentId) -> None:
    """Show what an agent remembers."""
    state = session(ctx)
    state.output().record(_asked(state, id)["state"])


@app.command("pause", cls=Command)
def pause(ctx: typer.Context, id: _AgentId, reason: _Reason = "") -> None:
    """Pause an agent: its signals are kept until it is resumed."""
    _command(session(ctx), "pause", id, reason)


@app.command("resume", cls=Command)
def resume(ctx: typer.Context, id: _AgentId, reason: _Reason = "") -> None:
    """Resume a paused agent: it handles the signals kept for it first."""
    _command(session(ctx), "resume", id, reason)


@app.command("stop", cls=Command)
def stop(ctx: typer.Context, id: _AgentId, reason: _Reason = "") -> None:
    """Stop an agent. Its state is gone; a keyed agent is made anew by its next signal."""
    _command(session(ctx), "stop", id, reason)


def _asked(state: Session, id: str) -> dict[str, Any]:
    from signalbox.cli.node_client import quoted

    return state.node().get(f"/api/v1/agents/{quoted(id)}")  # type: ignore[no-any-return]


def _command(state: Session, verb: str, id: str, reason: str) -> None:
    """Put a command on the control topic and print the id of the signal."""
    from schemas.control import AgentControl

    say(state, "control", f"control.agent.{verb}", AgentControl(agent_id=id, reason=reason), subject=id)


def _query(where: str, **wanted: str) -> "Query":
    """What the options ask for together. Raises `UsageError` for a query that cannot be read."""
    from signalbox.registry.query import Query

    own = {"all": [{"field": name, "value": value} for name, value in wanted.items() if value]}
    return Query.parse(where) & Query.of(own) if where else Query.of(own)


def _registered(state: Session, query: "Query", prefix: str, limit: int) -> list[dict[str, Any]]:
    """The agents that are meant, as the registry topic tells."""
    from signalbox.clock import SystemClock
    from signalbox.config import REGISTRY_TOPIC
    from signalbox.registry.view import RegistryView

    settings = state.connected()
    topic = settings.topic(REGISTRY_TOPIC)
    view = RegistryView(size=settings.resources.registry_size, ttl_s=settings.registry.ttl_s, clock=SystemClock())
    for record in state.reader().read([topic], start="start", follow=False, timeout_s=state.options.timeout):
        view.apply(record)
    state.note(f"no node was asked: this is what the topic {topic} at {settings.kafka.bootstrap} tells")
    if count := view.dropped["full"]:
        state.note(f"{count} agents beyond resources.registry_size ({view.size}) are left out")
    return view.find(query, prefix=prefix, limit=limit)


def _aged(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with their age as people say it."""
    return ({**row, "age": _duration(row.get("age_s"))} for row in rows)


def _duration(seconds: float | None) -> str | None:
    """Two units at most, such as `3d4h` or `12s`."""
    if seconds is None:
        return None
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (whole, "s")) if count]
    return "".join(parts[:2]) or "0s"
