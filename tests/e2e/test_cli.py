"""The command line as a process, on the embedded broker, and with a whole node of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.publisher import KafkaPublisher
from connectors.kafka.reader import KafkaReader
from schemas.dead_letter import DEAD_LETTER_TYPE, dead_letter_data
from schemas.signal import new_signal
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest

_ROOT = Path(__file__).parents[2]
_CASES = _ROOT / "tests" / "unit" / "signalbox" / "routing" / "cases.tsv"
_TOPICS = ("signals", "alerts", "results", "control", "registry", "dead-letters")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def start(folder: Path, *words: str, **more: Any) -> "subprocess.Popen[str]":
    """Start the command line in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "signalbox.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def finished(process: "subprocess.Popen[str]", input: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Wait for its end."""
    with process:
        out, err = process.communicate(input, timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def reach(embedded: BrokerUnderTest, topic_prefix: str) -> tuple[str, ...]:
    """The words that lead to the broker and to topics of this test."""
    names = [topic_prefix + name for name in _TOPICS]
    KafkaAdmin(embedded.settings(topic_prefix)).ensure_topics(names, partitions=3, replication=1)
    return ("--bootstrap", embedded.bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}")


@pytest.fixture
def cli(tmp_path: Path, reach: tuple[str, ...]) -> Run:
    """Runs a command to its end."""

    def run(*words: str, input: str | None = None) -> "subprocess.CompletedProcess[str]":
        return finished(start(tmp_path, *words, *reach, stdin=subprocess.PIPE), input)

    return run


def test_what_is_sent_is_tailed(cli: Run) -> None:
    """Signals of a file arrive whole, and each subject's in order; reaching --count is exit 0."""
    lines = [
        {"type": "a.b", "id": f"{n}", "subject": f"s{n % 5}", "data": {"n": n, "text": "é\u2028"}, "myextension": "x"}
        for n in range(1200)
    ]
    sent = cli("signal", "send", "--file", "-", input="".join(json.dumps(line) + "\n" for line in lines))
    assert (sent.returncode, sent.stdout.split()) == (0, [line["id"] for line in lines])
    tailed = cli("topic", "tail", "signals", "--from", "start", "--count", "1200", "--timeout", "30", "-o", "jsonl")
    assert tailed.returncode == 0, tailed.stderr
    got = [json.loads(line) for line in tailed.stdout.split("\n")[:-1]]
    for subject in {line["subject"] for line in lines}:
        mine = [signal for signal in got if signal["subject"] == subject]
        assert [signal["data"] for signal in mine] == [line["data"] for line in lines if line["subject"] == subject]
    assert {(signal["specversion"], signal["myextension"]) for signal in got} == {("1.0", "x")}


def test_tail_follows(tmp_path: Path, cli: Run, reach: tuple[str, ...]) -> None:
    """A tail shows what is sent after it began, and waits for it."""
    tail = start(
        tmp_path, "topic", "tail", "signals", "--from", "start", "--pattern", "x.*", "--count", "2", *reach
    )  # fmt: skip
    for type in ("x.one", "other", "x.two"):
        assert cli("signal", "send", type).returncode == 0
    result = finished(tail)
    assert (result.returncode, [json.loads(line)["type"] for line in result.stdout.splitlines()]) == (
        0,
        ["x.one", "x.two"],
    )


def test_tail_times_out_with_124(cli: Run) -> None:
    """Too few signals in time is 124, with those there are on stdout."""
    cli("signal", "send", "a.b")
    result = cli("topic", "tail", "signals", "--from", "start", "--count", "5", "--timeout", "1.5")
    assert (result.returncode, len(result.stdout.splitlines())) == (124, 1)


def test_ctrl_c_ends_a_tail_with_130(tmp_path: Path, cli: Run, reach: tuple[str, ...]) -> None:
    """SIGINT ends a tail at once, without a traceback, and what was shown is whole."""
    cli("signal", "send", "a.b")
    tail = start(tmp_path, "topic", "tail", "signals", "--from", "start", *reach)
    assert tail.stdout is not None
    shown = tail.stdout.readline()
    tail.send_signal(signal.SIGINT)
    result = finished(tail)
    assert (json.loads(shown)["type"], result.returncode, result.stderr) == ("a.b", 130, "")


def test_reader_of_a_tail_may_leave(tmp_path: Path, cli: Run, reach: tuple[str, ...]) -> None:
    """`topic tail | head -1` ends silently when head has its line and more signals come."""
    tail = start(tmp_path, "topic", "tail", "signals", "--from", "start", *reach)
    cli("signal", "send", "a.b")
    assert tail.stdout is not None
    assert tail.stdout.readline()
    tail.stdout.close()
    cli("signal", "send", "a.b")
    cli("signal", "send", "a.b")
    assert eventually(lambda: tail.poll() is not None, timeout_s=20)
    assert tail.stderr is not None
    with tail.stderr:
        assert (tail.returncode, tail.stderr.read()) == (0, "")


def test_dead_letter_is_listed_and_replayed(cli: Run, embedded: BrokerUnderTest, topic_prefix: str) -> None:
    """A dead letter is listed, and its record goes back to where it came from, byte by byte and marked as a replay."""
    kafka = embedded.settings(topic_prefix)
    data = dead_letter_data(
        reason="invalid_json",
        message="no JSON",
        topic=topic_prefix + "signals",
        partition=0,
        offset=7,
        key=b"k",
        value=b'{"\xff',
        headers=[("h", b"v")],
        limit_bytes=1000,
    )
    publisher = KafkaPublisher(kafka)
    letter = new_signal(DEAD_LETTER_TYPE, data.model_dump(mode="json"), source="test", id="letter-1")
    publisher.publish(topic_prefix + "dead-letters", letter)
    publisher.flush(10)
    publisher.close()

    listed = json.loads(cli("dlq", "list", "-o", "json").stdout)
    assert [(row["id"], row["reason"], row["origin"]) for row in listed] == [
        ("letter-1", "invalid_json", f"{topic_prefix}signals[0]@7")
    ]
    assert cli("dlq", "replay", "--dry-run").returncode == 0
    assert cli("dlq", "replay").returncode == 2
    replayed = cli("dlq", "replay", "-y")
    assert replayed.returncode == 0, replayed.stderr

    reader = KafkaReader(kafka)
    [record] = reader.read([topic_prefix + "signals"], start="start", follow=False, timeout_s=10)
    assert (record.key, record.value) == (b"k", b'{"\xff')
    assert dict(record.headers) == {"h": b"v", "signalbox_replay": b"1", "signalbox_dead_letter": b"letter-1"}
    shown = json.loads(cli("topic", "tail", "signals", "--from", "start", "--no-follow").stdout)
    assert (shown["key"], shown["value_base64"], "invalid" in shown) == ("k", "eyL/", True)


def test_lag_of_a_flow_that_never_ran(cli: Run) -> None:
    """Without a flow there is no position, and the total is unknown rather than 0."""
    cli("signal", "send", "a.b")
    rows = json.loads(cli("lag", "-o", "json").stdout)
    assert (rows[-1]["topic"], rows[-1]["lag"]) == ("total", None)


def test_unknown_topic_is_5(cli: Run) -> None:
    """A topic that is not there is told as such."""
    assert cli("topic", "tail", "nonsense", "--timeout", "5").returncode == 5


def test_absent_broker_is_4(tmp_path: Path) -> None:
    """Where no broker listens, commands end with 4 within their --timeout and print no data."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = ("--bootstrap", f"127.0.0.1:{port}", "--timeout", "2")
    result = finished(start(tmp_path, "signal", "send", "a.b", *words))
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.startswith("error: ")
    assert str(port) in result.stderr


def test_route_test_judges_a_file(tmp_path: Path) -> None:
    """The file form answers line by line, fields as they stand, empty ones too."""
    cases = [line.split("\t") for line in _CASES.read_text(encoding="utf-8").split("\n") if line]
    text = "".join(f"{pattern}\t{type}\n" for pattern, type, _ in cases)
    result = finished(start(tmp_path, "route", "test", "--file", "-", stdin=subprocess.PIPE), text)
    assert (result.returncode, result.stdout.splitlines()) == (0, [answer for _, _, answer in cases])


class Node:
    """A node of the test's own, started with `signalbox up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = ("--data-dir", str(folder / "data"))
        self.process = start(folder, "up", "--http", "127.0.0.1:0", "-q", *self.words)
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return finished(start(self.folder, *words, *self.words))

    def json(self, *words: str) -> Any:
        result = self.run(*words, "-o", "json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, embedded: BrokerUnderTest) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("node"))
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
        finished(made.process)


def test_ready_line(node: Node) -> None:
    """One line on stdout tells where HTTP and Kafka are."""
    word, http, kafka, bootstrap = node.ready.split()
    assert (word, kafka, http.startswith("http://127.0.0.1:"), ":" in bootstrap) == ("ready", "kafka", True, True)


def test_tasks_are_answered(node: Node) -> None:
    """Tasks submitted with --wait are answered, each once."""
    words = ("--params", '{"value": {i}}', "--count", "50", "--wait", "--timeout", "30")
    rows = node.json("task", "submit", "--action", "echo", *words)
    assert sorted(row["result"]["value"] for row in rows) == list(range(50))
    failed = node.run("task", "submit", "--action", "nonsense", "--wait", "--timeout", "30")
    assert (failed.returncode, "nonsense" in failed.stdout) == (1, True)


def test_node_and_agents_are_shown(node: Node) -> None:
    """Status, agents and their state are the node's own, and the doctor finds nothing wrong."""
    assert node.json("status")["ready"] is True
    agents = [row["agent_id"] for row in node.json("agent", "list")]
    assert {"task_agent_1", "task_agent_5"} <= set(agents)
    assert node.json("agent", "show", "task_agent_1")["type"] == "task_agent"
    assert "processed_count" in node.json("agent", "state", "task_agent_1")
    assert node.run("agent", "show", "nobody").returncode == 5
    assert node.run("doctor").returncode == 0


def test_agents_are_found_by_query(node: Node) -> None:
    """The running node finds agents by what they are; the topic tells the same of them, and says so on stderr."""
    members = [f"task_agent_{number}" for number in range(1, 6)]
    words = ("--capability", "task_processing", "--where", "kind=pool and not status=stale")
    name = node.json("status")["node"]

    def registered() -> bool:
        told = node.json("status")["registry"]
        return told["nodes"] == 1 and told["agents"] >= len(members) and told["age_s"] < 20

    eventually(registered, timeout_s=20, every_s=0.3)
    rows = node.json("agent", "list", *words, "--node", name)
    assert [row["agent_id"] for row in rows] == members
    assert {(row["type"], row["status"], row["node"]) for row in rows} == {("task_agent", "running", name)}
    assert node.json("agent", "list", "--node", "elsewhere") == []
    bootstrap = node.ready.split()[-1]
    topic = node.run("agent", "list", *words, "--bootstrap", bootstrap, "-o", "json")
    assert [row["agent_id"] for row in json.loads(topic.stdout)] == members
    assert "no node was asked" in topic.stderr
    assert node.run("agent", "list", "--where", "kind=herd").returncode == 2


def test_agent_is_paused_and_resumed(node: Node) -> None:
    """A paused agent says so until it is resumed."""
    for verb, status in (("pause", "paused"), ("resume", "running")):
        assert node.run("agent", verb, "task_agent_2", "--reason", "test").returncode == 0
        eventually(
            lambda wanted=status: node.json("agent", "show", "task_agent_2")["status"] == wanted,  # type: ignore[misc]
            timeout_s=20,
            every_s=0.3,
        )
        assert ("task_agent_2" in {row["agent_id"] for row in node.json("agent", "list", "--status", "paused")}) == (
            status == "paused"
        )


def test_lag_reaches_zero(node: Node) -> None:
    """What was sent is processed, and the lag says so."""
    assert node.run("signal", "send", "nobody.cares").returncode == 0
    eventually(lambda: node.json("lag")[-1]["lag"] == 0, timeout_s=30, every_s=0.5)


def test_bad_signal_ends_in_the_dead_letters(node: Node) -> None:
    """A payload that is wrong is listed among the dead letters with its origin."""
    node.run("signal", "send", "task.submitted", "--subject", "s", "--data", '{"task_id": 1}')

    def letters() -> list[dict[str, Any]]:
        return [row for row in node.json("dlq", "list") if row["type"] == "task.submitted"]

    [letter] = eventually(letters, timeout_s=20, every_s=0.3)
    assert (letter["origin"].startswith("signals["), letter["replays"]) == (True, 0)


def test_second_node_is_refused(node: Node) -> None:
    """A second `up` on the same data directory ends with 7 and names the first."""
    second = node.run("up", "--http", "127.0.0.1:0")
    assert (second.returncode, second.stdout) == (7, "")
    assert str(node.process.pid) in second.stderr


def test_end_of_a_node_is_orderly(node: Node) -> None:
    """SIGTERM drains and ends with 0; afterwards there is no node to ask."""
    node.process.terminate()
    assert node.process.wait(timeout=30) == 0
    assert node.run("status").returncode == 4
