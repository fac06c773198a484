import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from signalbox.config import Settings
from signalbox.errors import NotFound, Unreachable
from signalbox.registry.query import EVERY_AGENT, Query
from signalbox.supervision import inspection
from signalbox.supervision.group import GroupState
from signalbox.supervision.view import NodeView, actions, agents_total, epoch_age_s, lag_records, pools
from signalbox.telemetry.exposition import Exposition
from tests.support.registry import Registry


class _Broker:
    bootstrap = "127.0.0.1:9092"
    problem: str | None = None


class _Group:
    def __init__(self, name: str, answers: list[Any], state: GroupState = GroupState.RUNNING) -> None:
        self.name = name
        self.answers = answers
        self.state = state
        self.target = len(answers)
        self.pids = list(range(100, 100 + len(answers)))
        self.generation = 3
        self.restarts = 2


def _answer(**changes: Any) -> dict[str, Any]:
    return {"state": "running", "agents": 5, "positions": {"signals-0": [10, 12]}, "epoch_age_s": 0.3, **changes}


def _view(tmp_path: Path, **groups: Any) -> NodeView:
    settings = Settings.model_validate({"node": {"name": "n", "data_dir": tmp_path}, "kafka": {"broker": "embedded"}})
    view = NodeView(settings=settings, exposition=Exposition(tmp_path), broker=_Broker(), **groups)  # type: ignore[arg-type]
    view.phase = "running"
    return view


@pytest.mark.parametrize(
    ("answers", "lag"),
    [
        ([], None),
        ([None], None),
        ([{}], None),
        ([_answer(positions={})], None),
        ([_answer()], 2),
        ([_answer(), _answer(positions={"signals-1": [0, 7], "alerts-0": [4, 4]})], 9),
        ([_answer(), None], None),
        ([_answer(positions={"signals-0": [10, None]})], None),
        ([_answer(positions={"signals-0": [10, 12], "signals-1": [None, 5]})], None),
        ([_answer(positions={"signals-0": [12, 10]})], 0),
    ],
)
def test_lag_is_unknown_until_every_partition_is_known(answers: list[Any], lag: int | None) -> None:
    """The lag is the sum of end minus position over all partitions, null while any is missing, never negative."""
    assert lag_records(answers) == lag


def test_totals_wait_for_every_worker() -> None:
    """Half of the agents would be a wrong number, so the total is null until all workers have told theirs."""
    assert agents_total([]) is None
    assert agents_total([_answer(), None]) is None
    assert agents_total([_answer(), _answer(agents=7)]) == 12
    assert agents_total([_answer(agents=0)]) == 0


def test_the_oldest_epoch_counts() -> None:
    """One stuck worker shows, however well the others are."""
    assert epoch_age_s([None, {}, _answer(epoch_age_s=None), _answer(epoch_age_s=7.0), _answer()]) == 7.0


def test_pools_are_what_a_worker_tells() -> None:
    """Any worker knows the pools."""
    told = {"task_agent": {"size": 5, "min": 1, "max": 100}}
    assert pools([None, _answer(), _answer(pools=told)]) == told
    assert pools([]) == {}


def test_the_status_has_the_shape_of_the_contract(tmp_path: Path) -> None:
    """Scripts rely on these keys."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer(), _answer()])})
    view.sensors = _Group("sensors", [{"system_health": {"samples": 4}}])  # type: ignore[assignment]
    status = view.status()
    assert set(status) >= {"version", "node", "ready", "kafka", "flows", "pools", "sensors", "agents"}
    assert status["node"] == "n"
    assert status["ready"] is True
    assert status["kafka"] == {"kind": "embedded", "bootstrap": "127.0.0.1:9092"}
    assert status["flows"] == {
        "agents": {
            "state": "running", "workers": 2, "target": 2, "generation": 3, "pids": [100, 101], "lag_records": 4,
            "restarts": 2, "changing": False,
        }
    }  # fmt: skip
    assert status["sensors"] == {"system_health": {"samples": 4}}
    assert status["agents"] == {"total": 10}
    assert status["registry"] == {"agents": 0, "nodes": 0, "age_s": None}
    view.registry = _registry({"id": "a_1"})
    assert view.status()["registry"] == {"agents": 1, "nodes": 1, "age_s": 0.0}


def test_a_node_that_runs_has_no_problems(tmp_path: Path) -> None:
    """Healthy means that every group runs, epochs close and the broker answers."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer()])})
    assert view.problems() == []
    assert view.ready()


def test_every_problem_is_told(tmp_path: Path) -> None:
    """A phase, a broker, a group and a stuck flow each have their sentence."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer(epoch_age_s=31.0)])})
    view.sensors = _Group("sensors", [None], GroupState.QUARANTINED)  # type: ignore[assignment]
    view.broker.problem = "Kafka does not answer"
    view.phase = "stopping"
    assert view.problems() == [
        "the node is stopping",
        "Kafka does not answer",
        "sensors is quarantined: 1 of 1 processes live",
        "agents has closed no epoch for 31 s, and records wait",
    ]
    assert not view.ready()


def test_a_flow_without_work_is_not_stuck(tmp_path: Path) -> None:
    """An old epoch is no problem while nothing waits."""
    idle = _answer(epoch_age_s=31.0, positions={"signals-0": [12, 12]})
    assert _view(tmp_path, flows={"agents": _Group("agents", [idle])}).problems() == []


def test_a_restarting_flow_is_not_ready(tmp_path: Path) -> None:
    """Readiness is taken back while a flow is down."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [None], GroupState.RESTARTING)})
    assert not view.ready()


def _serve(tmp_path: Path, *workers: Any, complete: bool = True) -> Any:
    """Workers that answer with these agents; they end with the returned context."""
    stack = contextlib.ExitStack()
    for index, rows in enumerate(workers):
        answer = {"agents": rows, "complete": complete}
        path = inspection.socket_path(tmp_path, f"agents-{index}")
        stack.callback(inspection.serve(path, {"agents": lambda _, answer=answer: answer}).close)
    return stack


def _listed(view: NodeView, where: str = "", *, limit: int = 100) -> dict[str, Any]:
    query = Query.parse(where) if where else EVERY_AGENT
    return asyncio.run(view.agents(where=query, prefix="", limit=limit))


def _registry(*agents: dict[str, Any]) -> Any:
    """A feed whose view knows these agents, on nodes that live."""
    made = Registry()
    for agent in agents:
        made.beat(agent.get("node", "n"))
        made.register(**agent)
    made.view.complete = True
    return SimpleNamespace(view=made.view)


def test_agents_of_all_workers_are_merged_in_order(tmp_path: Path) -> None:
    """A list over several workers is sorted, and cut at the limit only after merging."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer(), _answer()])})
    with _serve(tmp_path, [{"agent_id": "a"}, {"agent_id": "d"}], [{"agent_id": "b"}, {"agent_id": "c"}]):
        answer = _listed(view, limit=3)
    assert [row["agent_id"] for row in answer["agents"]] == ["a", "b", "c"]
    assert (answer["silent"], answer["cut"]) == ([], [])


def test_each_agent_is_listed_once(tmp_path: Path) -> None:
    """Of this node's agents the workers tell, registered or not; of other nodes' agents the registry does."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer()])})
    view.registry = _registry(
        {"id": "both", "metadata": {"x": 1}}, {"id": "gone"}, {"id": "there", "node": "m"}, {"id": "twice", "node": "m"}
    )
    live = [{"agent_id": one, "status": "paused", "node": "n"} for one in ("both", "plain", "twice")]
    with _serve(tmp_path, live):
        rows = {row["agent_id"]: row for row in _listed(view)["agents"]}
    assert sorted(rows) == ["both", "plain", "there", "twice"]
    assert (rows["both"]["status"], rows["both"]["metadata"]) == ("paused", {"x": 1})
    assert (rows["twice"]["node"], rows["there"]["node"], rows["there"]["status"]) == ("n", "m", "running")


def test_the_registry_stands_in_for_a_silent_worker(tmp_path: Path) -> None:
    """What a worker cannot tell, the registry does, and the answer names the worker."""
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer(), _answer()])})
    view.registry = _registry({"id": "a_1"}, {"id": "a_2"})
    with _serve(tmp_path, [{"agent_id": "a_1", "status": "paused"}]):
        answer = _listed(view)
    assert [(row["agent_id"], row["status"]) for row in answer["agents"]] == [("a_1", "paused"), ("a_2", "running")]
    assert answer["silent"] == ["agents-1"]


def test_the_query_reaches_workers_and_registry(tmp_path: Path) -> None:
    """A worker is asked with the query, the registry answers by it, and a list that was cut short is told."""
    asked: list[Any] = []
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer()])})
    view.registry = _registry({"id": "x", "node": "m"}, {"id": "y", "node": "o"})

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        return {"agents": [], "complete": False}

    with contextlib.closing(inspection.serve(inspection.socket_path(tmp_path, "agents-0"), {"agents": answer})):
        listed = _listed(view, "node in (m, n)")
    assert [row["agent_id"] for row in listed["agents"]] == ["x"]
    assert asked[0]["where"] == {"field": "node", "op": "in", "value": ["m", "n"]}
    assert listed["cut"] == ["agents-0"]


def test_registered_agents_are_counted_by_node_and_status(tmp_path: Path) -> None:
    """The metric has one series per node and status, and no more than a hundred nodes."""
    view = _view(tmp_path)
    view.registry = _registry(
        *({"id": f"big:{number}", "node": "n"} for number in range(3)),
        *({"id": f"small:{number}", "node": f"m{number}"} for number in range(120)),
    )
    text = view.metrics("")[0].decode()
    lines = [line for line in text.splitlines() if line.startswith("signalbox_registry_agents{")]
    assert 'signalbox_registry_agents{node="n",status="running"} 3.0' in lines
    assert 'signalbox_registry_agents{node="other",status="running"} 21.0' in lines
    assert len(lines) == 101


def test_an_agent_is_found_on_whichever_worker_has_it(tmp_path: Path) -> None:
    """A missing agent is NotFound only when every worker could say so; else the silent worker is told."""
    server = inspection.serve(
        inspection.socket_path(tmp_path, "agents-0"),
        {"agent": lambda params: {"agent_id": "a"} if params["id"] == "a" else {"missing": True}},
    )
    one = _view(tmp_path, flows={"agents": _Group("agents", [_answer()])})
    two = _view(tmp_path, flows={"agents": _Group("agents", [_answer(), _answer()])})
    none = _view(tmp_path)
    assert asyncio.run(two.agent("a")) == {"agent_id": "a"}
    with pytest.raises(NotFound, match="no agent 'b'"):
        asyncio.run(one.agent("b"))
    with pytest.raises(Unreachable, match="agents-1"):
        asyncio.run(two.agent("b"))
    with pytest.raises(Unreachable, match="no worker runs"):
        asyncio.run(none.agent("a"))
    server.close()


def test_breakers_are_as_the_least_calm_worker_has_them() -> None:
    """One that is open in any worker is open, closed ones are left out, and actions in flight are summed up."""
    one = _answer(actions_in_flight=2, breakers={"bank": "half_open", "sms": "open", "mail": "closed"})
    other = _answer(actions_in_flight=3, breakers={"bank": "open", "sms": "closed"})
    assert actions([one, other]) == {"in_flight": 5, "breakers": {"bank": "open", "sms": "open"}}
    assert actions([one, None])["in_flight"] is None
    assert actions([]) == {"in_flight": None, "breakers": {}}
