"""`agent list|show|state` and the commands to agents."""

import json
from typing import Any

import pytest

from schemas.payloads.agents import AgentRegistered
from schemas.signal import new_signal
from signalbox.cli.session import Session
from signalbox.errors import NotFound
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli


class FakeNode:
    """Answers like a node with one agent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str, **query: Any) -> Any:
        self.asked.append((path, query))
        if path == "/api/v1/agents":
            return {"agents": [{"agent_id": "a:1", "kind": "a", "status": "running", "processed": 3, "errors": 0}]}
        if path == "/api/v1/agents/a%3A1":
            return {"agent_id": "a:1", "kind": "a", "status": "running", "state": {"n": {"x": 1}}, "timers": []}
        msg = f"no answer to {path}"
        raise NotFound(msg)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    made = FakeNode()
    monkeypatch.setattr(Session, "find_node", lambda _self: made)
    return made


def register(broker: MemoryBroker, id: str, type: str = "agent.registered") -> None:
    record = AgentRegistered(
        agent_id=id, agent_type="a", kind="keyed", node="n", version="1", started_at="2026-01-01T00:00:00Z"
    ).model_dump(mode="json")
    broker.add_signal("registry", new_signal(type, record, source="test", subject=id))


def test_list_asks_the_running_node(bare_cli: Cli, node: FakeNode) -> None:
    """The node knows its agents best: it is asked, with prefix and limit."""
    result = bare_cli("agent", "list", "--prefix", "a", "--limit", "5", "-o", "json")
    assert [row["agent_id"] for row in json.loads(result.stdout)] == ["a:1"]
    assert node.asked == [("/api/v1/agents", {"prefix": "a", "limit": 5})]


def test_list_falls_back_to_the_registry(cli: Cli, broker: MemoryBroker) -> None:
    """Without a node, agents that registered and did not stop are listed once, by id."""
    for id in ("b", "a", "gone", "a"):
        register(broker, id)
    register(broker, "gone", "agent.stopped")
    broker.add("registry", None, key=b"compacted")
    rows = json.loads(cli("agent", "list", "-o", "json").stdout)
    assert [(row["agent_id"], row["status"]) for row in rows] == [("a", "running"), ("b", "running")]
    assert [row["agent_id"] for row in json.loads(cli("agent", "list", "--prefix", "b", "-o", "json").stdout)] == ["b"]


def test_show_and_state_ask_for_one_agent(bare_cli: Cli, node: FakeNode) -> None:
    """`show` is everything the node says about an agent, `state` its state alone."""
    assert json.loads(bare_cli("agent", "show", "a:1", "-o", "json").stdout)["status"] == "running"
    assert json.loads(bare_cli("agent", "state", "a:1", "-o", "json").stdout) == {"n": {"x": 1}}
    assert bare_cli("agent", "state", "a:1").stdout == "n.x  1\n"


def test_unknown_agent_is_not_found(bare_cli: Cli, node: FakeNode) -> None:
    """An agent that the node does not have ends with 5."""
    assert bare_cli("agent", "show", "b").exit_code == 5


def test_show_needs_a_node(bare_cli: Cli) -> None:
    """Live state is only with a running node: without one, the exit code is 4 and the hint says how to start one."""
    result = bare_cli("agent", "state", "a")
    assert (result.exit_code, "signalbox up" in result.stderr) == (4, True)


@pytest.mark.parametrize("verb", ["pause", "resume", "stop"])
def test_commands_go_to_the_control_topic(cli: Cli, broker: MemoryBroker, verb: str) -> None:
    """A command names its agent in subject and data, carries the reason, and prints the signal's id."""
    result = cli("agent", verb, "a:1", "--reason", "too loud")
    [signal] = broker.signals("control")
    assert (result.exit_code, result.stdout.strip()) == (0, signal.id)
    assert (signal.type, signal.subject) == (f"control.agent.{verb}", "a:1")
    assert signal.data == {"agent_id": "a:1", "reason": "too loud"}
