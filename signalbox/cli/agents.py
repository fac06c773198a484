"""`signalbox agent`: which agents there are, what they remember, and how to pause, resume and stop one.

A running node is asked over HTTP. Without one, `list` reads what agents told the `registry` topic; commands to agents
always go through the `control` topic, which keeps them as an audit log.
"""

from typing import Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.records import read_signals
from signalbox.cli.session import SOURCE, Session
from signalbox.cli.signals import sent

app = group("Agents.")

_AgentId = Annotated[str, typer.Argument(metavar="ID", help="Such as task_agent_1 or monitor_agent:host-7.")]
_Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")]


@app.command("list", cls=Command)
def list_agents(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option("--prefix", metavar="P", help="Only ids that begin so.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="At most so many.")] = 1000,
) -> None:
    """List agents: those of the running node; without one, or with --bootstrap, the registered ones."""
    state = session(ctx)
    node = None if state.options.bootstrap else state.find_node()
    if node is None:
        rows = [row for row in _registered(state) if row["agent_id"].startswith(prefix)][:limit]
        state.output().records(rows, ("agent_id", "kind", "status", "node", "started_at"))
        return
    answer = node.get("/api/v1/agents", prefix=prefix, limit=limit)
    state.output().records(answer["agents"], ("agent_id", "kind", "status", "processed", "errors"))


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
    from schemas.signal import new_signal

    data = AgentControl(agent_id=id, reason=reason).model_dump(mode="json")
    signal = new_signal(f"control.agent.{verb}", data, source=SOURCE, subject=id)
    topic = state.connected().topic("control")
    with state.publisher() as publisher:
        state.output().words(sent(publisher, [signal], lambda _signal: topic, state.timeout_s()), "id")


def _registered(state: Session) -> list[dict[str, Any]]:
    """The agents that registered and did not say that they stopped, by id."""
    agents: dict[str, dict[str, Any]] = {}
    for signal in read_signals(state, "registry"):
        data = signal.data if isinstance(signal.data, dict) else {}
        id = str(data.get("agent_id", signal.key))
        if signal.type == "agent.registered":
            agents[id] = {**data, "agent_id": id}
        elif signal.type == "agent.stopped":
            agents.pop(id, None)
    return [agents[id] for id in sorted(agents)]
