import asyncio
from pathlib import Path
from typing import Any

import pytest

from signalbox.config import Settings
from signalbox.errors import NotFound, Unreachable
from signalbox.supervision import inspection
from signalbox.supervision.group import GroupState
from signalbox.supervision.view import NodeView, agents_total, epoch_age_s, lag_records, pools
from signalbox.telemetry.exposition import Exposition


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
            "restarts": 2,
        }
    }  # fmt: skip
    assert status["sensors"] == {"system_health": {"samples": 4}}
    assert status["agents"] == {"total": 10}


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


def test_agents_of_all_workers_are_merged_in_order(tmp_path: Path) -> None:
    """A list over several workers is sorted, and cut at the limit only after merging."""
    servers = [
        inspection.serve(inspection.socket_path(tmp_path, f"agents-{index}"), {"agents": lambda _, ids=ids: ids})
        for index, ids in enumerate([[{"agent_id": "a"}, {"agent_id": "d"}], [{"agent_id": "b"}, {"agent_id": "c"}]])
    ]
    view = _view(tmp_path, flows={"agents": _Group("agents", [_answer(), _answer()])})
    rows = asyncio.run(view.agents(prefix="", limit=3))
    for server in servers:
        server.close()
    assert [row["agent_id"] for row in rows] == ["a", "b", "c"]


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
