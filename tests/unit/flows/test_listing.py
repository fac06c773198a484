"""Which of a worker's agents a query means."""

from typing import Any

import pytest

from flows import listing
from flows.listing import Listing
from signalbox.agents import Agent, AgentState, FoundationAgent, Pool, Singleton, on
from signalbox.app import App
from signalbox.config import Settings
from signalbox.registry.query import Query
from signalbox.testing import Harness


class Room(Agent):
    """Plain, and so in no registry."""

    capabilities = ("heating",)

    class State(AgentState):
        signals: int = 0

    @on("room.*")
    def enter(self, state: State, signal: Any) -> None:
        state.signals += 1


class Worker(FoundationAgent):
    """Works."""

    addressing = Pool(size=3)
    capabilities = ("work", "rest")
    metadata = {"speed": 2}  # noqa: RUF012

    @on("work.*")
    def work(self, state: Any, signal: Any) -> None:
        return None


class Boss(Agent):
    """Rules."""

    addressing = Singleton("boss")

    @on("boss.*")
    def rule(self, state: Any, signal: Any) -> None:
        return None


@pytest.fixture
def harness() -> Harness:
    made = Harness(App(agents=[Room, Worker, Boss], builtins=False), Settings.model_validate({"node": {"name": "n"}}))
    for subject in ("kitchen", "bath", "hall"):
        made.send("room.entered", subject=subject)
    made.pause("room:bath")
    made.pause("worker_2")
    return made


def listed(harness: Harness, where: str | None = None, **params: Any) -> dict[str, Any]:
    if where is not None:
        params["where"] = Query.parse(where).plain()
    return Listing(harness._groups, harness._plan).agents(params)


def ids(harness: Harness, where: str | None = None, **params: Any) -> list[str]:
    answer = listed(harness, where, **params)
    assert answer["complete"] is True
    return [row["agent_id"] for row in answer["agents"]]


ROOMS = ["room:bath", "room:hall", "room:kitchen"]
WORKERS = ["worker_1", "worker_2", "worker_3"]


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        (None, ["boss", *ROOMS, *WORKERS]),
        ("type=room", ROOMS),
        ("capability=work and capability=rest", WORKERS),
        ("kind=singleton", ["boss"]),
        ("kind in (pool, keyed) and node=n", [*ROOMS, *WORKERS]),
        ("node!=n", []),
        ("status=paused", ["room:bath", "worker_2"]),
        ("status=running and type=worker", ["worker_1", "worker_3"]),
        ("status=stale", []),
        ("type=room or status=paused", [*ROOMS, "worker_2"]),
        ("metadata.speed>1", WORKERS),
        ("metadata.description='Rules.'", ["boss"]),
    ],
)
@pytest.mark.parametrize("saved", [False, True], ids=["loaded", "saved"])
def test_a_query_means_agents_whether_they_register_or_not(harness, where, meant, saved):
    """All agents can be asked for by what their class says and by whether they are paused, also when only saved."""
    if saved:
        harness.restart()
    assert ids(harness, where) == meant


def test_a_list_is_bounded_and_in_order(harness):
    """The first ids that begin with the prefix are given, whether a class decides or each agent for itself."""
    assert ids(harness, prefix="room:", limit=2) == ["room:bath", "room:hall"]
    assert ids(harness, "status=running", limit=2) == ["boss", "room:hall"]
    assert ids(harness, "status=running", prefix="worker") == ["worker_1", "worker_3"]


def test_a_row_tells_what_lists_show(harness):
    """Type, kind, node and capabilities are those that the registry would tell."""
    [row] = listed(harness, prefix="worker_2")["agents"]
    assert row == {
        "agent_id": "worker_2",
        "type": "worker",
        "kind": "pool",
        "status": "paused",
        "node": "n",
        "capabilities": ["work", "rest"],
        "processed": 0,
        "errors": 0,
    }


def test_what_a_class_says_is_what_its_agents_register(harness):
    """The facts that queries look at are those in the registry."""
    [told] = [signal.data for signal in harness.emitted("agent.registered") if signal.subject == "worker_1"]
    of_class = listing.facts(harness._plan.kind("worker"))
    assert (of_class.type, of_class.kind, of_class.node) == (told["agent_type"], told["kind"], told["node"])
    assert (list(of_class.capabilities), of_class.metadata) == (told["capabilities"], told["metadata"])


def test_no_question_loads_all_agents(harness, monkeypatch):
    """Where each agent has to be looked at, so many are, and the answer says that there may be more."""
    monkeypatch.setattr(listing, "_MOST_LOADED", 4)
    answer = listed(harness, "status=paused")
    assert ([row["agent_id"] for row in answer["agents"]], answer["complete"]) == (["room:bath"], False)
    assert listed(harness, "status=running", limit=2)["complete"] is True
    assert listed(harness, "status=paused and type=worker")["complete"] is True
    assert listed(harness, "type=room")["complete"] is True
