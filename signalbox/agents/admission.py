"""Which signals are not for agents, and why: the rules that the flow's intake and the test harness share."""

from typing import Any

from pydantic import ValidationError

from schemas.catalog import is_shipped, payload_model
from schemas.control import AgentControl, AgentSpawn, FlowControl, ScaleCommand
from schemas.payloads.actions import ActionCompleted, ActionFailed
from schemas.signal import Signal
from signalbox.agents.plan import Kind, Plan
from signalbox.errors import first_problem
from signalbox.routing import is_valid_type


class Refused(Exception):
    """A record that becomes a dead letter.

    Attributes:
        reason: a short, stable word for metrics and dead letters.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def unhandled(signal: Signal[Any]) -> Refused | None:
    """What is wrong with a signal that nobody handles. What we know, or made ourselves, may go unhandled."""
    if signal.type.startswith("control."):
        return Refused("commands are obeyed on the topic control only", reason="misplaced")
    if signal.type.startswith("action."):
        return Refused("what becomes of actions is read on the topic effects only", reason="misplaced")
    if is_shipped(signal.type) or signal.source.startswith("agent/"):
        return None
    if is_valid_type(signal.type):
        return Refused(f"no agent handles {signal.type[:200]!r}", reason="unknown_type")
    msg = f"{signal.type[:200]!r} is not a type: segments of A-Z a-z 0-9 _ - joined by dots"
    return Refused(msg, reason="invalid_type")


def homeless(kind: Kind) -> Refused:
    """What is wrong with a signal without a subject for a kind of agent that has one instance per subject."""
    return Refused(f"{kind.name} has one agent per subject, and the signal has no subject", reason="missing_subject")


def awaiting(signal: Signal[Any]) -> str | None:
    """The agent that a signal on `effects` is for; None if it is for the ledger alone.

    Raises:
        Refused: nobody writes such a signal there, or it lacks what it has to say.
    """
    model = payload_model(signal.type) if signal.type.startswith("action.") else None
    if model is None:
        msg = f"{signal.type[:200]!r} is not about an action, and the topic effects carries nothing else"
        raise Refused(msg, reason="misplaced")
    try:
        record = model.model_validate(signal.data)
    except ValidationError as error:
        raise _invalid(error) from None
    return record.agent_id if isinstance(record, ActionCompleted | ActionFailed) else None


def commanded(plan: Plan, signal: Signal[Any]) -> str | None:
    """The agent that a signal on `control` is for; None if it is for the supervisor, and valid.

    Raises:
        Refused: it is no command, or not a valid one, or for a flow or a pool that there is not.
    """
    try:
        match signal.type:
            case "control.agent.spawn":
                spawn = AgentSpawn.model_validate(signal.data)
                kind = plan.kind(spawn.agent_type)
                return kind.agent_id(spawn.subject) if kind else spawn.agent_type
            case "control.agent.pause" | "control.agent.resume" | "control.agent.stop":
                return AgentControl.model_validate(signal.data).agent_id
            case "control.scale":
                _check_scale(plan, ScaleCommand.model_validate(signal.data))
                return None
            case "control.pause" | "control.resume" | "control.drain":
                _check_flow(plan, FlowControl.model_validate(signal.data).flow)
                return None
    except ValidationError as error:
        raise _invalid(error) from None
    if signal.type.startswith("control."):
        msg = f"there is no command {signal.type[:200]!r}"
        raise Refused(msg, reason="unknown_type")
    msg = f"{signal.type[:200]!r} is no command, and the topic control carries commands only"
    raise Refused(msg, reason="misplaced")


def _check_scale(plan: Plan, command: ScaleCommand) -> None:
    """Check what the command's form does not say: that there is its target, and that it can have this size."""
    sort, _, name = command.target.partition("/")
    if sort == "flow":
        _check_flow(plan, name)
        return
    pools = plan.pools()
    if (pool := pools.get(name)) is None:
        msg = f"there is no pool {name!r}; there are: {', '.join(sorted(pools)) or 'none'}"
        raise Refused(msg, reason="unknown_target")
    if not 1 <= command.desired <= pool.max:
        msg = f"data.desired: {command.target} can have 1 to {pool.max} members, not {command.desired}"
        raise Refused(msg, reason="invalid_payload")


def _check_flow(plan: Plan, name: str) -> None:
    if name not in plan.flows:
        msg = f"there is no flow {name!r}; there are: {', '.join(sorted(plan.flows))}"
        raise Refused(msg, reason="unknown_target")


def _invalid(error: ValidationError) -> Refused:
    return Refused(first_problem(error, "data"), reason="invalid_payload")
