"""Commands about flows and pools: valid ones are left to the supervisor, others are refused with a reason."""

from typing import Any

import pytest

from schemas.signal import Signal
from signalbox.agents import Agent, Pool
from signalbox.agents.admission import Refused, commanded
from signalbox.agents.plan import Plan
from signalbox.app import App
from signalbox.config import Settings


class Crew(Agent):
    """A pool."""

    addressing = Pool(size=2, max=30)


PLAN = Plan(App(agents=[Crew], builtins=False), Settings())


def command(type: str, data: Any) -> Signal[Any]:
    return Signal(id="1", source="test", type=type, data=data)


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("control.scale", {"target": "flow/agents", "desired": 0, "reason": "night"}),
        ("control.scale", {"target": "flow/scaling", "desired": 100, "reason": "why not"}),
        ("control.scale", {"target": "pool/crew", "desired": 30, "reason": "load", "decision_id": "d1"}),
        ("control.scale", {"target": "pool/crew", "desired": 1, "reason": "calm", "expected": 30}),
        ("control.pause", {"flow": "agents", "reason": "look"}),
        ("control.resume", {"flow": "agents"}),
        ("control.drain", {"flow": "scaling"}),
    ],
)
def test_valid_commands_are_for_the_supervisor(type: str, data: Any) -> None:
    """A command for a flow or a pool that there is, and that it can follow, goes to no agent and is not refused."""
    assert commanded(PLAN, command(type, data)) is None


@pytest.mark.parametrize(
    ("type", "data", "reason", "message"),
    [
        ("control.scale", {"target": "flow/gone", "desired": 2, "reason": "r"}, "unknown_target", "no flow 'gone'"),
        ("control.scale", {"target": "pool/gone", "desired": 2, "reason": "r"}, "unknown_target", "there are: crew"),
        ("control.scale", {"target": "pool/agents", "desired": 2, "reason": "r"}, "unknown_target", "no pool"),
        ("control.scale", {"target": "pool/crew", "desired": 31, "reason": "r"}, "invalid_payload", "1 to 30"),
        ("control.scale", {"target": "pool/crew", "desired": 0, "reason": "r"}, "invalid_payload", "1 to 30"),
        ("control.scale", {"target": "flow/agents", "desired": 101, "reason": "r"}, "invalid_payload", "desired"),
        ("control.scale", {"target": "flow/agents", "desired": -1, "reason": "r"}, "invalid_payload", "desired"),
        ("control.scale", {"target": "agents", "desired": 2, "reason": "r"}, "invalid_payload", "target"),
        ("control.scale", {"target": "flow/agents", "desired": 2}, "invalid_payload", "reason"),
        ("control.scale", {"target": "flow/agents", "desired": "many", "reason": "r"}, "invalid_payload", "desired"),
        ("control.scale", None, "invalid_payload", "data"),
        ("control.pause", {"flow": "gone"}, "unknown_target", "there are: agents, scaling"),
        ("control.drain", {}, "invalid_payload", "flow"),
        ("control.resume", {"flow": "agents", "reason": 5}, "invalid_payload", "reason"),
    ],
)
def test_other_commands_are_refused(type: str, data: Any, reason: str, message: str) -> None:
    """A command without a target that there is, or with a size that it cannot have, says what is wrong with it."""
    with pytest.raises(Refused, match=message) as refused:
        commanded(PLAN, command(type, data))
    assert refused.value.reason == reason
