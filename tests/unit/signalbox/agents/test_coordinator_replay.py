"""What a crash makes the coordinator hear again leads to the same decisions, in whatever order the topics are read."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.signal import Signal
from signalbox.actions.distribute_task import COORDINATOR
from signalbox.agents.coordinator_agent import CoordinatorAgent
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.ports import Outgoing
from tests.unit.signalbox.agents.examples import Groups, make_signal

_AT = "2026-01-01T00:00:00Z"
_AGENTS = st.sampled_from(["a", "b", "c"])
_TASKS = st.sampled_from(["t1", "t2", "t3", "t4"])


def _registered(prefix: str, agent_id: str) -> tuple[str, Any]:
    record = {"agent_id": agent_id, "agent_type": "a", "kind": "pool", "capabilities": ["x"], "node": "n"}
    record |= {"metadata": {"takes_tasks": True}, "version": "1", "started_at": _AT}
    return f"{prefix}agent.registered", record


def _stopped(prefix: str, agent_id: str) -> tuple[str, Any]:
    return f"{prefix}agent.stopped", {"agent_id": agent_id, "stopped_at": _AT}


def _distribute(task_id: str) -> tuple[str, Any]:
    return "task.distribute", {"task_id": task_id, "action": "do", "params": {}, "required_capability": ["x"]}


_REGISTRY = st.lists(st.builds(_registered, st.just(""), _AGENTS) | st.builds(_stopped, st.just(""), _AGENTS))
#: What lies in the coordinator's own partition, where it has passed on what the registry told.
_OWN = st.lists(
    st.builds(_registered, st.just("coordinator."), _AGENTS)
    | st.builds(_stopped, st.just("coordinator."), _AGENTS)
    | st.builds(_distribute, _TASKS),
    min_size=1,
)


def _run(own: list[Signal[Any]], registry: list[Signal[Any]], turns: list[bool]) -> list[Outgoing]:
    """What the coordinator decides about tasks when it reads the two topics by turns."""
    groups = Groups(App(agents=[CoordinatorAgent], builtins=False), VirtualClock())
    queues = {True: list(registry), False: list(own)}
    for turn in (*turns, *([True] * len(registry)), *([False] * len(own))):
        if queues[turn]:
            groups.deliver([(1, queues[turn].pop(0))])
    return [out for out in groups.outgoing if out.type.startswith("task.")]


@given(own=_OWN, registry=_REGISTRY, first=st.lists(st.booleans()), again=st.lists(st.booleans()))
@settings(max_examples=60)
def test_the_order_between_topics_decides_nothing(
    own: list[tuple[str, Any]], registry: list[tuple[str, Any]], first: list[bool], again: list[bool]
) -> None:
    """Delegations and answers, ids included, follow from the coordinator's own partition alone."""
    signals = [make_signal(type, data, subject=COORDINATOR, id=f"own-{n}") for n, (type, data) in enumerate(own)]
    records = [
        make_signal(type, data, subject=data["agent_id"], id=f"registry-{n}") for n, (type, data) in enumerate(registry)
    ]
    assert _run(signals, records, first) == _run(signals, records, again)
