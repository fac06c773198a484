"""The load sensor with workers that answer from a table and a broker in memory."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.payloads.load import LoadLevel, LoadMetrics, QueueOverflow
from schemas.signal import Signal
from signalbox.clock import VirtualClock
from signalbox.config import Settings
from signalbox.errors import ConfigError, Unreachable
from signalbox.sensors import LoadSensor, SampleContext
from signalbox.supervision import inspection
from tests.support.fakes import MemoryAdmin, MemoryBroker

TOPICS = ("signals", "control", "effects")


class Node:
    """A node as the sensor sees it: the facts on disk, the workers that answer, and the topics."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.broker = MemoryBroker([f"p.{name}" for name in TOPICS], partitions=2)
        self.workers: dict[str, dict[str, Any]] = {}
        self.clock = VirtualClock()
        settings = Settings.model_validate(
            {"node": {"data_dir": folder}, "kafka": {"topic_prefix": "p."}, **options.pop("settings", {})}
        )
        self.context = SampleContext(
            sensor="load", node="n1", data_dir=folder, clock=self.clock, node_settings=settings
        )
        self.sensor = LoadSensor(
            LoadSensor.Settings(**options), "n1", ask=self.ask, admin=lambda _: MemoryAdmin(self.broker)
        )
        self.sensor.start(self.context)

    def ask(self, path: Path) -> dict[str, Any]:
        if path.stem not in self.workers:
            msg = f"{path.stem} does not answer"
            raise Unreachable(msg)
        return self.workers[path.stem]

    def facts(self, flows: dict[str, Any], pools: dict[str, Any] | None = None) -> None:
        path = self.folder / "run" / "scaling.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"flows": flows, "pools": pools or {}}))

    def worker(self, name: str, **told: Any) -> None:
        number = int(name.rpartition("-")[2])
        positions = {f"{topic}-{number}": [0, None] for topic in TOPICS}
        standing = {"pid": number + 1, "state": "running", "busy_s": 0.0, "positions": positions}
        self.workers[name] = {**standing, **self.workers.get(name, {}), **told}

    def look(self, seconds: float = 2.0) -> list[Signal[Any]]:
        self.clock.advance(timedelta(seconds=seconds))
        return list(self.sensor.sample(self.context))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path)
    node.facts({"agents": {"workers": 2, "target": 2, "generation": 1, "changing": False, "pauses": [0.1, 0.2]}})
    for index in (0, 1):
        node.worker(f"agents-{index}", pools={"task_agent": {"size": 5, "min": 1, "max": 100}})
    return node


def metrics(signals: list[Signal[Any]]) -> dict[str | None, LoadMetrics]:
    found = (one for one in signals if one.type.endswith(".metrics"))
    return {one.subject: LoadMetrics.model_validate(one.data) for one in found}


def test_flows_and_pools_are_measured_each_under_its_name(node: Node) -> None:
    """One signal per flow and per pool, about what the broker and the workers say, with the time of the look."""
    node.look()
    for number in range(40):
        node.broker.add(f"p.{TOPICS[number % 3]}", b"x", key=str(number).encode())
    signals = node.look()
    assert [(one.type, one.subject) for one in signals] == [
        ("system.load.metrics", "flow/agents"), ("agent.queue.metrics", "pool/task_agent"),
    ]  # fmt: skip
    told = metrics(signals)
    flow = told["flow/agents"]
    assert (flow.units, flow.arrivals, flow.processed, flow.lag, flow.pauses) == (2, 20.0, 0.0, 40, (0.1, 0.2))
    assert flow.timestamp == node.clock.now()
    assert told["pool/task_agent"].units == 5


def test_the_supervisors_size_of_a_pool_wins(node: Node) -> None:
    """The size in the file is what is wanted now; workers may still have to hear of it."""
    node.facts({"agents": {"target": 2}}, {"task_agent": {"size": 7}})
    assert metrics(node.look())["pool/task_agent"].units == 7


@pytest.mark.parametrize(("limits", "busy"), [({}, 0.4), ({"max_running_per_agent": 5}, 0.8)])
def test_slots_are_those_of_the_settings(tmp_path: Path, limits: dict[str, Any], busy: float) -> None:
    """An agent has as many slots as actions may run for it at once, or ten."""
    node = Node(tmp_path, settings={"actions": limits})
    node.facts({"agents": {"target": 1}}, {"task_agent": {"size": 5}})
    node.worker("agents-0", work={"task_agent": {"asked": 20, "ended": 0, "service_s": None}})
    assert metrics(node.look())["pool/task_agent"].busy == pytest.approx(busy)


def test_a_silent_worker_is_named(node: Node) -> None:
    """What is missing because of it is null, and the signal says why."""
    del node.workers["agents-1"]
    flow = metrics(node.look())["flow/agents"]
    assert (flow.units, flow.lag, flow.busy, flow.changing) == (2, None, None, True)
    assert flow.unknown == "agents-1 does not answer"


def test_a_broker_that_is_away_is_named(node: Node) -> None:
    """The sensor goes on, and says what it cannot know."""
    node.broker.up = False
    flow = metrics(node.look())["flow/agents"]
    assert (flow.arrivals, flow.lag) == (None, None)
    assert flow.unknown == "the broker does not answer"


def test_a_flow_without_workers_is_measured_by_what_it_last_mirrored(tmp_path: Path) -> None:
    """At zero workers, what waits is the end minus the position that the flow told the broker under its own name."""
    node = Node(tmp_path)
    node.facts({"agents": {"target": 0}})
    node.broker.positions = {("p.signalbox.agents", "p.signals", one): 0 for one in (0, 1)}  # others hold nothing
    node.look()
    for number in range(6):
        node.broker.add("p.signals", b"x", key=str(number).encode())
    flow = metrics(node.look())["flow/agents"]
    assert (flow.units, flow.arrivals, flow.lag) == (0, 3.0, 6)


def test_all_topics_that_workers_read_count(node: Node) -> None:
    """A flow that reads another topic back has lag there, too."""
    for index in (0, 1):
        positions = {f"{topic}-{index}": [0, None] for topic in (*TOPICS, "alerts")}
        node.worker(f"agents-{index}", positions=positions)
    node.look()
    for _ in range(3):
        node.broker.add("p.alerts", b"x")
    assert metrics(node.look())["flow/agents"].lag == 3


def test_without_the_file_the_workers_of_the_agents_flow_are_looked_for(tmp_path: Path) -> None:
    """A flow that was started by hand is found by its sockets."""
    node = Node(tmp_path)
    assert node.look() == []
    path = inspection.socket_path(tmp_path, "agents-0")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    node.worker("agents-0", positions={f"{topic}-{one}": [0, None] for topic in TOPICS for one in (0, 1)})
    assert metrics(node.look())["flow/agents"].units == 1


def test_a_load_that_leaves_the_band_is_told_once(node: Node) -> None:
    """It has to be outside for two looks, and well inside again before it is told anew."""
    told: list[tuple[str, float]] = []
    busy_s = 0.0
    node.look()
    for share in (0.9, 0.9, 0.9, 0.75, 0.9, 0.5, 0.5, 0.9, 0.1, 0.1, 0.25, 0.1, 0.1):
        busy_s += 2 * share
        for index in (0, 1):
            node.worker(f"agents-{index}", busy_s=busy_s)
        for one in node.look():
            if one.type in ("system.load.high", "system.load.low"):
                level = LoadLevel.model_validate(one.data)
                assert (level.target, level.pool, one.subject) == ("flow/agents", None, "n1")
                told.append((one.type.rpartition(".")[2], round(level.load, 3)))
    assert told == [("high", 0.9), ("low", 0.1)]


def test_an_overflow_is_told_when_it_begins_and_while_it_lasts(tmp_path: Path) -> None:
    """A queue above the setting is told at once, again after half a minute, and anew once it had halved."""
    node = Node(tmp_path, overflow=10, slots=1)
    node.facts({"agents": {"target": 1}}, {"task_agent": {"size": 5}})
    told = []
    for asked, seconds in ((15, 2), (16, 2), (16, 29), (16, 2), (16, 29), (5, 2), (30, 2)):
        node.worker("agents-0", work={"task_agent": {"asked": asked, "ended": 0, "service_s": None}})
        overflows = [one for one in node.look(seconds) if one.type == "agent.queue.overflow"]
        told.append([QueueOverflow.model_validate(one.data).queued for one in overflows])
        assert all(one.subject == "pool/task_agent" for one in overflows)
    assert told == [[], [11], [], [11], [], [], [25]]


def test_the_sensor_needs_the_settings_of_its_node(tmp_path: Path) -> None:
    """Run by somebody who does not give them, it says so at its start."""
    sensor = LoadSensor(LoadSensor.Settings(), "n1")
    with pytest.raises(ConfigError, match="given no settings"):
        sensor.start(SampleContext(sensor="load", node="n1", data_dir=tmp_path))


def test_bounds_that_cross_are_refused() -> None:
    """A band needs a lower bound below its upper one."""
    with pytest.raises(ValueError, match="low has to lie below high"):
        LoadSensor.Settings(low=0.8, high=0.5)
