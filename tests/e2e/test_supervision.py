"""The supervisor with real processes: stand-ins serve as workers, sensors and broker, so only supervision is tested."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from signalbox.supervision import discovery
from tests.support.eventually import eventually
from tests.support.lines import whole_lines

_NODE = Path(__file__).parents[1] / "support" / "fake_node.py"
_ROOT = Path(__file__).parents[2]
_FAST = {
    "http.port": 0,
    "kafka.broker": "embedded",
    "supervision.backoff_min_s": 0.05,
    "supervision.drain_timeout_s": 5.0,
}


class _Node:
    """One run of a node on a data directory."""

    def __init__(self, data_dir: Path, **overrides: Any) -> None:
        settings = {**_FAST, "node.data_dir": str(data_dir), "node.name": "n1"}
        settings.update({name.replace("__", "."): value for name, value in overrides.items()})
        data_dir.mkdir(exist_ok=True)
        self.data_dir = data_dir
        with (data_dir / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(_NODE), json.dumps(settings)],
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    def ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def senses(self) -> None:
        """Wait until its sensor process is at work, which the node itself does not wait for."""
        eventually(lambda: ("sensors", "works") in {(event["name"], event["event"]) for event in self.events()})

    def get(self, path: str) -> httpx2.Response:
        record = discovery.find(self.data_dir)
        assert record is not None
        return httpx2.get(record.http + path, trust_env=False)

    def flow(self) -> dict[str, Any]:
        flow: dict[str, Any] = self.get("/api/v1/status").json()["flows"]["agents"]
        return flow

    def running(self, *, generation: int, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait until the flow runs in this generation or a later one."""

        def check() -> dict[str, Any]:
            flow = self.flow()
            assert flow["state"] == "running", flow
            assert flow["generation"] >= generation, flow
            return flow

        return eventually(check, timeout_s=timeout_s)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def events(self) -> list[dict[str, Any]]:
        path = self.data_dir / "events.jsonl"
        return [json.loads(line) for line in whole_lines(path)]

    def broker_starts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self.data_dir / "broker.jsonl")]

    def stderr(self) -> str:
        return (self.data_dir / "stderr").read_text()

    def children(self) -> list[int]:
        """Every process the node has ever started that may still live."""
        return [event["pid"] for event in self.events()] + [start["pid"] for start in self.broker_starts()]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[_Node]]:
    """Nodes that are killed at the end of the test, with whatever they started."""
    started: list[_Node] = []
    yield started
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
        assert node.process.stdout is not None
        node.process.stdout.close()


def _dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_node_starts_reports_and_drains(tmp_path: Path, nodes: list[_Node]) -> None:
    """The ready line comes when all runs; SIGTERM ends sensors, then workers, then the broker, and exits 0."""
    node = _Node(tmp_path, flows__agents__workers=3)
    nodes.append(node)
    line = node.ready()
    record = discovery.find(tmp_path)
    assert record is not None
    assert line == f"ready {record.http} kafka 127.0.0.1:4711"
    assert record.node == "n1"
    flow = node.running(generation=1)
    assert flow == {
        "state": "running", "workers": 3, "target": 3, "generation": 1, "pids": flow["pids"], "lag_records": 30,
        "restarts": 0, "changing": False,
    }  # fmt: skip
    status = node.get("/api/v1/status").json()
    assert status["agents"] == {"total": 30}
    assert status["registry"]["agents"] == 0
    eventually(lambda: node.get("/api/v1/status").json()["registry"]["nodes"] == 1)
    eventually(lambda: node.get("/health").status_code == 200)
    assert [row["agent_id"] for row in node.get("/api/v1/agents").json()["agents"]] == ["a-0", "a-1", "a-2"]
    assert node.get("/api/v1/agents/a-2").json()["state"] == {"n": 1}
    assert "signalbox_flow_workers" in node.get("/metrics").text

    node.senses()
    assert node.end() == 0
    drained = [event["name"] for event in node.events() if event["event"] == "drained"]
    assert drained[0] == "sensors"
    assert sorted(drained[1:]) == ["agents-0", "agents-1", "agents-2"]
    assert all(_dead(pid) for pid in node.children())
    assert discovery.find(tmp_path) is None
    assert not (tmp_path / "run" / "settings.json").exists()


def test_workers_of_a_cluster_find_those_before_them_listening(tmp_path: Path, nodes: list[_Node]) -> None:
    """Workers start in the order of their indices, each when the one before listens, and nobody else connects."""
    node = _Node(tmp_path, flows__agents__workers=3)
    nodes.append(node)
    node.ready()
    dials = [event["event"] for event in node.events() if event["event"].startswith("dial")]
    assert dials == ["dial ok"] * 3
    begins = [
        event["name"] for event in node.events() if event["event"].startswith("begin") and event["name"] != "sensors"
    ]
    assert begins == ["agents-0", "agents-1", "agents-2"]


def test_a_killed_worker_takes_its_generation_along_and_all_come_back(tmp_path: Path, nodes: list[_Node]) -> None:
    """After SIGKILL of one worker all of its generation are dead when the next runs; the restart is counted."""
    node = _Node(tmp_path, flows__agents__workers=2)
    nodes.append(node)
    node.ready()
    before = node.flow()["pids"]
    os.kill(before[1], signal.SIGKILL)
    flow = node.running(generation=2)
    assert flow["restarts"] == 1
    assert not set(flow["pids"]) & set(before)
    assert all(_dead(pid) for pid in before)
    assert 'signalbox_restarts_total{process="agents",reason="killed"} 1.0' in node.get("/metrics").text
    sensors = node.get("/api/v1/status").json()["processes"]["sensors"]
    assert sensors["restarts"] == 0


def test_a_crash_loop_ends_in_quarantine_and_is_tried_again(tmp_path: Path, nodes: list[_Node]) -> None:
    """A worker that cannot stay up is left alone for a while, which health tells; cured, it runs again."""
    node = _Node(tmp_path, supervision__crash_limit=3, supervision__quarantine_s=2.0)
    nodes.append(node)
    node.ready()
    (tmp_path / "crash-agents-0").touch()
    os.kill(node.flow()["pids"][0], signal.SIGKILL)
    eventually(lambda: node.flow()["state"] == "quarantined")
    health = node.get("/health")
    assert health.status_code == 503
    assert "agents is quarantined: 0 of 1 processes live" in health.json()["reasons"]
    assert node.get("/readyz").status_code == 503
    starts = [event for event in node.events() if event["name"] == "agents-0" and event["event"] == "start"]
    assert len(starts) == 3
    (tmp_path / "crash-agents-0").unlink()
    node.running(generation=4)


def test_children_die_with_a_killed_supervisor_and_the_next_node_can_start(tmp_path: Path, nodes: list[_Node]) -> None:
    """SIGKILL of the supervisor leaves no process behind, and the same data directory works at once."""
    node = _Node(tmp_path, flows__agents__workers=2)
    nodes.append(node)
    node.ready()
    node.end(signal.SIGKILL)
    eventually(lambda: all(_dead(pid) for pid in node.children()))
    again = _Node(tmp_path)
    nodes.append(again)
    assert again.ready().startswith("ready ")


def test_a_second_node_on_the_same_directory_is_refused(tmp_path: Path, nodes: list[_Node]) -> None:
    """It exits 7 at once, naming the owner, and the first runs on undisturbed."""
    first = _Node(tmp_path)
    nodes.append(first)
    first.ready()
    second = _Node(tmp_path)
    nodes.append(second)
    assert second.process.wait(20) == 7
    assert f"in use by node n1 (process {first.process.pid}, since" in second.stderr()
    assert first.running(generation=1)["restarts"] == 0
    assert first.end() == 0


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path, nodes: list[_Node]) -> None:
    """It exits 7, and neither broker nor workers were started."""
    first = _Node(tmp_path / "a")
    nodes.append(first)
    port = int(first.ready().split()[1].rpartition(":")[2])
    second = _Node(tmp_path / "b", http__port=port)
    nodes.append(second)
    assert second.process.wait(20) == 7
    assert "the port is in use" in second.stderr()
    assert not (tmp_path / "b" / "broker.jsonl").exists()


def test_a_worker_that_refuses_its_settings_ends_the_start(tmp_path: Path, nodes: list[_Node]) -> None:
    """Exit code 3 of a worker at its first start is the node's: trying again cannot help."""
    (tmp_path / "refuse-agents-0").touch()
    node = _Node(tmp_path)
    nodes.append(node)
    assert node.process.wait(20) == 3
    assert "refuses its settings or the app" in node.stderr()
    assert all(_dead(pid) for pid in node.children())


def test_a_broker_that_does_not_answer_ends_the_start(tmp_path: Path, nodes: list[_Node]) -> None:
    """After the start timeout the node exits 4 and names the address."""
    node = _Node(tmp_path, kafka__broker="external", kafka__bootstrap="nowhere:9092", supervision__start_timeout_s=0.5)
    nodes.append(node)
    assert node.process.wait(20) == 4
    assert "no Kafka broker answers at nowhere:9092" in node.stderr()
    assert "waiting for Kafka" in node.stderr()


def test_waiting_for_a_broker_can_be_interrupted(tmp_path: Path, nodes: list[_Node]) -> None:
    """SIGINT during the start ends it with 0, long before the deadline."""
    node = _Node(tmp_path, kafka__broker="external", kafka__bootstrap="nowhere:9092")
    nodes.append(node)
    eventually(lambda: "waiting for Kafka" in node.stderr())
    assert node.end(signal.SIGINT) == 0


def test_a_worker_that_does_not_drain_is_killed_in_the_end(tmp_path: Path, nodes: list[_Node]) -> None:
    """A drain is given its time and no more, and the node still exits 0."""
    (tmp_path / "hang-agents-0").touch()
    node = _Node(tmp_path, supervision__drain_timeout_s=0.5)
    nodes.append(node)
    node.ready()
    assert node.end() == 0
    assert "did not end in time and is killed" in node.stderr()
    assert all(_dead(pid) for pid in node.children())


def test_a_second_signal_ends_the_node_by_force(tmp_path: Path, nodes: list[_Node]) -> None:
    """Whoever asks twice does not wait for the drain."""
    (tmp_path / "hang-agents-0").touch()
    node = _Node(tmp_path, supervision__drain_timeout_s=1000.0)
    nodes.append(node)
    node.ready()
    node.process.send_signal(signal.SIGTERM)
    eventually(lambda: "term" in [event["event"] for event in node.events()])
    assert node.end(signal.SIGINT) == 130
    assert all(_dead(pid) for pid in node.children())


def test_an_embedded_broker_that_dies_means_a_fresh_start(tmp_path: Path, nodes: list[_Node]) -> None:
    """Its topics are gone with it, so snapshots go too, and flows and sensors start afresh on the same address."""
    node = _Node(tmp_path)
    nodes.append(node)
    node.ready()
    (tmp_path / "recovery").mkdir()
    (tmp_path / "recovery" / "part-0.sqlite3").touch()
    os.kill(node.broker_starts()[0]["pid"], signal.SIGKILL)
    flow = node.running(generation=2)
    assert flow["restarts"] == 1
    assert [start["port"] for start in node.broker_starts()] == [0, 4711]
    assert not (tmp_path / "recovery").exists()
    eventually(lambda: node.get("/health").status_code == 200)
    assert node.end() == 0


def test_snapshots_of_an_embedded_run_are_not_used_again(tmp_path: Path, nodes: list[_Node]) -> None:
    """Every start with the embedded broker begins with fresh recovery data; with any other they stay."""
    (tmp_path / "recovery").mkdir()
    embedded = _Node(tmp_path)
    nodes.append(embedded)
    embedded.ready()
    assert not (tmp_path / "recovery").exists()
    embedded.end()

    other = _Node(tmp_path, kafka__broker="kafka")
    nodes.append(other)
    other.ready()
    (tmp_path / "recovery").mkdir()
    other.end()
    again = _Node(tmp_path, kafka__broker="kafka")
    nodes.append(again)
    again.ready()
    assert (tmp_path / "recovery").exists()


def test_snapshots_of_another_cluster_are_refused(tmp_path: Path, nodes: list[_Node]) -> None:
    """Offsets of one cluster mean nothing on another: the node exits 7 and says so."""
    first = _Node(tmp_path, kafka__broker="kafka")
    nodes.append(first)
    first.ready()
    (tmp_path / "recovery").mkdir()
    first.end()
    second = _Node(tmp_path, kafka__broker="kafka", kafka__client={"client.id": "cluster-2"})
    nodes.append(second)
    assert second.process.wait(20) == 7
    assert "belong to Kafka cluster cluster-1, not to cluster-2" in second.stderr()


def test_a_worker_that_never_runs_is_started_again(tmp_path: Path, nodes: list[_Node]) -> None:
    """A start that hangs ends after its timeout and counts as a crash."""
    (tmp_path / "mute-agents-0").touch()
    node = _Node(tmp_path, supervision__start_timeout_s=1.0)
    nodes.append(node)
    eventually(lambda: "not running 1 s after its start" in node.stderr(), timeout_s=20)
    (tmp_path / "mute-agents-0").unlink()
    assert node.ready().startswith("ready ")
    assert node.flow()["restarts"] >= 1


def test_a_frozen_worker_is_replaced(tmp_path: Path, nodes: list[_Node]) -> None:
    """A worker that lives but answers nothing is killed after `frozen_s`, and its successor does the work."""
    node = _Node(tmp_path, supervision__frozen_s=1.0)
    nodes.append(node)
    node.ready()
    (frozen,) = node.flow()["pids"]
    os.kill(frozen, signal.SIGSTOP)
    node.running(generation=2)
    assert _dead(frozen)
    assert 'signalbox_restarts_total{process="agents",reason="frozen"} 1.0' in node.get("/metrics").text


def test_ctrl_c_reaches_the_children_through_the_supervisor_only(tmp_path: Path, nodes: list[_Node]) -> None:
    """SIGINT to the whole foreground group, as a terminal sends it, drains in order."""
    node = _Node(tmp_path, flows__agents__workers=2)
    nodes.append(node)
    node.ready()
    node.senses()
    os.killpg(node.process.pid, signal.SIGINT)
    assert node.process.wait(20) == 0
    drained = [event["name"] for event in node.events() if event["event"] == "drained"]
    assert drained[0] == "sensors"
    assert sorted(drained[1:]) == ["agents-0", "agents-1"]
