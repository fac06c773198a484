"""`signalbox scale explain`: a recorded decision, its formula with the terms filled in, and the same made again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import session
from signalbox.cli.records import read_signals
from signalbox.cli.session import Session
from signalbox.errors import NotFound, SignalboxError

if TYPE_CHECKING:
    from schemas.payloads.scaling import ScalingDecision

_TYPES = ("scaling.decision.made", "scaling.decision.held")


def explain(
    ctx: typer.Context,
    decision_id: Annotated[str, typer.Argument(metavar="DECISION_ID", help="As in `decision_id` on `scaling`.")],
) -> None:
    """Show why a decision about scaling was made, and make it again from its recorded inputs.

    Exit 0 if the same comes out, 1 if not, 5 if there is no such decision on the topic.
    """
    from signalbox.scaling.records import differences

    state = session(ctx)
    payload = _found(state, decision_id)
    differs = differences(payload)
    output = state.output()
    if output.format == "table":
        output.record(_for_people(payload, differs))
    else:
        output.record({**payload.model_dump(mode="json"), "replayed": not differs, "differences": differs})
    if differs:
        msg = f"made again, the decision differs in {', '.join(differs)}"
        raise SignalboxError(msg, hint="it was recorded by another version of signalbox, or changed since")


def _found(state: Session, decision_id: str) -> "ScalingDecision":
    from pydantic import ValidationError

    from schemas.payloads.scaling import ScalingDecision
    from signalbox.errors import first_problem

    for signal in read_signals(state, "scaling"):
        if signal.type not in _TYPES or not isinstance(signal.data, dict):
            continue
        if signal.data.get("decision_id") != decision_id:
            continue
        try:
            return ScalingDecision.model_validate(signal.data)
        except ValidationError as error:
            msg = f"the record of the decision {decision_id!r} is damaged: {first_problem(error, 'data')}"
            raise SignalboxError(msg, hint="`signalbox topic tail scaling --from start` shows it as it is") from None
    msg = f"no decision {decision_id!r} is on the topic `scaling`"
    raise NotFound(msg, hint="`signalbox topic tail scaling --from start --no-follow` lists what there is")


def _for_people(payload: "ScalingDecision", differs: dict[str, Any]) -> dict[str, Any]:
    verdict = "hold" if payload.current == payload.desired else "scale"
    rows: dict[str, Any] = {
        "decision": payload.decision_id,
        "target": payload.target,
        "at": payload.decided_at.isoformat(),
        "verdict": f"{verdict}: {payload.current} -> {payload.desired}",
        "reason": f"{payload.reason}: {payload.message}",
    }
    formula = _formula(payload)
    if formula:
        rows["formula"] = formula
    terms = {name: _rounded(value) for name, value in payload.terms.items() if value is not None}
    for name in ("terms", "occasion", "sample", "policy"):
        values = terms if name == "terms" else payload.inputs.get(name)
        if values:
            rows[name] = values
    rows["replay"] = "the same" if not differs else f"differs in {', '.join(differs)}"
    return rows


def _formula(payload: "ScalingDecision") -> dict[str, str]:
    """The formulas with the recorded terms in place of their names; empty if the decision did not come so far."""
    terms, policy = payload.terms, payload.inputs.get("policy")
    names = ("rate", "lag", "pause_s", "target")
    if not isinstance(policy, dict) or any(not isinstance(terms.get(name), int | float) for name in names):
        return {}
    rate, lag, pause_s, target = (_rounded(terms[name]) for name in names)
    catch_up_s = policy.get("catch_up_s")
    lines = {
        "target": "rate / utilization + lag / catch_up_s + rate * pause_s / catch_up_s = "
        f"{rate} / {policy.get('utilization')} + {lag} / {catch_up_s} + {rate} * {pause_s} / {catch_up_s} = {target}"
    }
    if terms.get("capacity") is not None:
        capacity, alpha = _rounded(terms["capacity"]), _rounded(terms.get("alpha"))
        lines["units"] = (
            f"ceil(target / (capacity * alpha)) = ceil({target} / ({capacity} * {alpha})) = {terms.get('unbounded')},"
            f" within bounds and partitions {terms.get('wanted')} (alpha counts for more units only)"
        )
    return lines


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
