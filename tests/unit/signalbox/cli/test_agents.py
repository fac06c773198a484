"""`agent list|show|state` and the commands to agents."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import Result

from signalbox.cli.agents import _duration
from signalbox.cli.session import Session
from signalbox.clock import VirtualClock
from signalbox.errors import NotFound
from signalbox.registry.query import Query
from tests.support.fakes import MemoryBroker
from tests.support.registry import heartbeat, registered, stopped
from tests.unit.signalbox.cli.conftest import Cli


class FakeNode:
    """Answers like a node with one agent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.silent: list[str] = []
        self.cut: list[str] = []

    def get(self, path: str, **query: Any) -> Any:
        self.asked.append((path, query))
        if path == "/api/v1/agents":
            row = {"agent_id": "a:1", "type": "a", "kind": "keyed", "status": "running", "age_s": 90061.5}
            return {"agents": [row], "silent": self.silent, "cut": self.cut}
        if path == "/api/v1/agents/a%3A1":
            return {"agent_id": "a:1", "type": "a", "status": "running", "state": {"n": {"x": 1}}, "timers": []}
        msg = f"no answer to {path}"
        raise NotFound(msg)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    made = FakeNode()
    monkeypatch.setattr(Session, "find_node", lambda _self: made)
    return made


def register(broker: MemoryBroker, id: str, **more: Any) -> None:
    broker.add_signal("registry", registered(id, **more))


def listed(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [row["agent_id"] for row in json.loads(result.stdout)]


def test_list_asks_the_running_node(bare_cli: Cli, node: FakeNode) -> None:
    """The node knows its agents best: it is asked, with prefix, limit and query."""
    assert listed(bare_cli("agent", "list", "--prefix", "a", "--limit", "5", "-o", "json")) == ["a:1"]
    assert node.asked == [("/api/v1/agents", {"where": '{"all":[]}', "prefix": "a", "limit": 5})]


def test_options_of_a_list_become_one_query(bare_cli: Cli, node: FakeNode) -> None:
    """What --where and the options for single fields say has to hold together."""
    words = ("--capability", "c", "--type", "t", "--node", "m", "--status", "stale")
    bare_cli("agent", "list", *words, "--where", "metadata.load<0.5 or kind=pool")
    [(_, query)] = node.asked
    asked = Query.parse(query["where"])
    assert asked.root == (
        Query.parse("metadata.load<0.5 or kind=pool")
        & Query.of({"all": [{"field": one, "value": value} for one, value in
                            (("capability", "c"), ("type", "t"), ("node", "m"), ("status", "stale"))]})
    ).root  # fmt: skip


@pytest.mark.parametrize("words", [("--where", "node="), ("--where", "nose=a"), ("--status", "asleep")])
def test_a_query_that_cannot_be_read_is_a_usage_error(bare_cli: Cli, node: FakeNode, words: tuple[str, ...]) -> None:
    """It ends with 2 and says what is wrong, before anybody is asked."""
    result = bare_cli("agent", "list", *words)
    assert (result.exit_code, node.asked) == (2, [])
    assert "query" in result.stderr or "comparison" in result.stderr


def test_a_table_tells_ages_as_people_do(bare_cli: Cli, node: FakeNode) -> None:
    """The table has the columns that are promised, and an age of two units."""
    head, row = bare_cli("agent", "list").stdout.splitlines()
    assert head.split() == ["AGENT_ID", "TYPE", "KIND", "STATUS", "NODE", "CAPABILITIES", "AGE"]
    assert row.split() == ["a:1", "a", "keyed", "running", "1d1h"]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(None, None), (0.4, "0s"), (59.9, "59s"), (61, "1m1s"), (3600, "1h"), (7265, "2h1m"), (864000, "10d")],
)
def test_ages(seconds: float | None, age: str | None) -> None:
    """An age has two units at most, and none for nothing."""
    assert _duration(seconds) == age


def test_what_an_answer_lacks_is_told(bare_cli: Cli, node: FakeNode) -> None:
    """A list that may lack agents says so on stderr, and is a list all the same."""
    node.silent, node.cut = ["agents-1"], ["agents-0"]
    result = bare_cli("agent", "list", "-o", "json")
    assert listed(result) == ["a:1"]
    assert "agents-1 does not answer" in result.stderr
    assert "agents-0 has too many agents" in result.stderr


def test_list_falls_back_to_the_registry(cli: Cli, broker: MemoryBroker) -> None:
    """Without a node, agents that registered and did not stop are listed once, by id, and stderr says where from."""
    broker.add_signal("registry", heartbeat("n", clock=VirtualClock(datetime.now(UTC))))
    for id in ("b", "a", "gone", "a"):
        register(broker, id)
    register(broker, "dead", node="m")
    broker.add_signal("registry", stopped("gone"))
    broker.add("registry", None, key=b"compacted")
    broker.add("registry", b"{", key=b"broken")
    result = cli("agent", "list", "-o", "json")
    rows = json.loads(result.stdout)
    assert [(row["agent_id"], row["status"]) for row in rows] == [("a", "running"), ("b", "running"), ("dead", "stale")]
    assert "no node was asked: this is what the topic registry at memory:1 tells" in result.stderr
    assert listed(cli("agent", "list", "--prefix", "b", "-o", "json")) == ["b"]
    assert listed(cli("agent", "list", "--limit", "1", "-o", "json")) == ["a"]


def test_the_registry_is_asked_by_query(cli: Cli, broker: MemoryBroker) -> None:
    """Queries and options mean the same without a node."""
    register(broker, "a", agent_type="room", capabilities=["heating"], metadata={"floor": 2})
    register(broker, "b", agent_type="room", metadata={"floor": 3})
    register(broker, "c", agent_type="parcel", node="m")

    def found(*words: str) -> list[str]:
        return listed(cli("agent", "list", "-o", "json", *words))

    assert found("--type", "room") == ["a", "b"]
    assert found("--capability", "heating") == ["a"]
    assert found("--node", "m", "--status", "stale") == ["c"]
    assert found("--status", "running") == []
    assert found("--type", "room", "--where", "metadata.floor>=3") == ["b"]


def test_agents_that_do_not_fit_are_told(cli: Cli, broker: MemoryBroker) -> None:
    """A list that is bounded by resources.registry_size says how many are left out."""
    for number in range(3):
        register(broker, f"k:{number}")
    result = cli("agent", "list", "-o", "json", "--set", "resources.registry_size=2")
    assert listed(result) == ["k:0", "k:1"]
    assert "1 agents beyond resources.registry_size (2) are left out" in result.stderr


def test_list_needs_a_node_or_a_broker(bare_cli: Cli) -> None:
    """With neither, the exit code is 4."""
    assert bare_cli("agent", "list").exit_code == 4


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
