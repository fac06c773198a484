"""`status`, `lag` and `version`."""

import json
from typing import Any

import pytest

from schemas.signal import new_signal
from signalbox.cli.session import Session
from signalbox.errors import Unreachable
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli

STATUS = {"node": "n", "ready": True, "flows": {"agents": {"state": "running", "pids": [1, 2], "lag_records": None}}}


class FakeNode:
    """Answers `status` so often, then is gone."""

    def __init__(self, answers: int) -> None:
        self.left = answers

    def get(self, path: str) -> Any:
        assert path == "/api/v1/status"
        if not self.left:
            msg = "the node is gone"
            raise Unreachable(msg)
        self.left -= 1
        return STATUS


def running(monkeypatch: pytest.MonkeyPatch, answers: int) -> None:
    node = FakeNode(answers)
    monkeypatch.setattr(Session, "find_node", lambda _self: node)


def test_status_is_the_nodes_own_answer(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs the answer is passed on unchanged; for people it is one line per value."""
    running(monkeypatch, 2)
    assert json.loads(bare_cli("status", "-o", "json").stdout) == STATUS
    lines = [line.split() for line in bare_cli("status").stdout.splitlines()]
    assert ["flows.agents.state", "running"] in lines
    assert ["ready", "true"] in lines


def test_status_without_a_node_is_unreachable(bare_cli: Cli) -> None:
    """No node is exit 4."""
    assert bare_cli("status").exit_code == 4


def test_watch_repeats_until_the_node_is_gone(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """--watch asks every second and writes each answer on a line."""
    running(monkeypatch, 3)
    waited: list[float] = []
    monkeypatch.setattr("signalbox.cli.health.time.sleep", waited.append)
    result = bare_cli("status", "--watch", "-o", "jsonl")
    assert (result.exit_code, waited) == (4, [1.0, 1.0, 1.0])
    assert [json.loads(line) for line in result.stdout.splitlines()] == [STATUS] * 3


def fill(broker: MemoryBroker, topic: str, count: int) -> dict[int, int]:
    for number in range(count):
        broker.add_signal(topic, new_signal("a", source="t", subject=str(number)))
    return broker.ends(topic)


def test_lag_is_told_by_partition_and_in_total(cli: Cli, broker: MemoryBroker) -> None:
    """A partition's lag is its end less the flow's position, and the last row is their sum."""
    ends = {topic: fill(broker, topic, count) for topic, count in (("signals", 10), ("control", 0), ("alerts", 4))}
    for topic in ("signals", "control", "alerts"):
        for partition in (0, 1):
            position = max(0, ends[topic][partition] - 1)
            broker.positions["signalbox.agents", topic, partition] = position
    rows = json.loads(cli("lag", "-o", "json").stdout)
    by_place = {(row["topic"], row["partition"]): row["lag"] for row in rows}
    assert by_place[("signals", 0)] == 1
    assert by_place[("total", None)] == 4
    assert {topic for topic, _ in by_place} == {"signals", "control", "alerts", "total"}


def test_lag_of_a_flow_that_never_ran_is_unknown(cli: Cli, broker: MemoryBroker) -> None:
    """Before the first confirmed position there is no number where there are records, and 0 where there are none."""
    ends = fill(broker, "signals", 3)
    result = cli("lag", "-o", "json")
    by_place = {(row["topic"], row["partition"]): row["lag"] for row in json.loads(result.stdout)}
    assert by_place[("total", None)] is None
    assert {by_place[("signals", partition)] for partition, end in ends.items() if end} == {None}
    assert by_place[("control", 0)] == 0
    assert "lag is unknown" in result.stderr


def test_lag_asks_for_the_group_under_the_prefix(cli: Cli, broker: MemoryBroker) -> None:
    """With a topic prefix, the group and the topics carry it."""
    fill(broker, "x.signals", 2)
    for partition, end in broker.ends("x.signals").items():
        broker.positions["x.signalbox.agents", "x.signals", partition] = end
    rows = json.loads(cli("lag", "--set", "kafka.topic_prefix=x.", "-o", "json").stdout)
    assert (rows[-1]["topic"], rows[-1]["lag"]) == ("total", 0)


def test_version_names_what_it_runs_on(bare_cli: Cli) -> None:
    """The versions of Python, the engine and the client library are told."""
    shown = json.loads(bare_cli("version", "-o", "json").stdout)
    assert {"signalbox", "python", "bytewax", "confluent_kafka", "librdkafka"} <= shown.keys()
    assert shown["bytewax"] == "0.21.1"
