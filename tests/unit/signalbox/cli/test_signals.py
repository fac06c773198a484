"""`signal send`, one and many."""

import json
from datetime import UTC, datetime

import pytest

from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli


def test_signal_is_sent_as_given_and_its_id_printed(cli: Cli, broker: MemoryBroker) -> None:
    """All attributes of the command line are in the signal, and stdout holds its id alone."""
    result = cli(
        "signal", "send", "a.b", "--subject", "s", "--data", '{"x": [1]}', "--id", "i-1", "--source", "me"
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "i-1\n")
    [signal] = broker.signals("signals")
    assert (signal.type, signal.subject, signal.data, signal.id, signal.source) == ("a.b", "s", {"x": [1]}, "i-1", "me")
    assert broker.records("signals")[0].key == b"s"


def test_missing_attributes_are_filled_in(cli: Cli, broker: MemoryBroker) -> None:
    """A type alone is enough: id, source and time are made up."""
    result = cli("signal", "send", "a.b")
    [signal] = broker.signals("signals")
    assert (signal.id, signal.source) == (result.stdout.strip(), "signalbox/cli")
    assert signal.time is not None
    assert abs((datetime.now(UTC) - signal.time).total_seconds()) < 60


def test_commands_go_to_control(cli: Cli, broker: MemoryBroker) -> None:
    """A control.* signal goes to `control`, and --topic sends any signal elsewhere."""
    assert cli("signal", "send", "control.agent.pause", "--data", "{}").exit_code == 0
    assert cli("signal", "send", "a.b", "--topic", "alerts").exit_code == 0
    assert [len(broker.signals(topic)) for topic in ("signals", "control", "alerts")] == [0, 1, 1]


def test_topics_carry_the_prefix(cli: Cli, broker: MemoryBroker) -> None:
    """The prefix of the settings is put before the topic."""
    assert cli("signal", "send", "a.b", "--set", "kafka.topic_prefix=x.").exit_code == 0
    assert len(broker.signals("x.signals")) == 1


@pytest.mark.parametrize(
    "words",
    [(), ("a.b", "--file", "-"), ("--file", "-", "--subject", "s"), ("a.b", "--data", "{"), ("",), ("a\x00b",)],
)
def test_what_cannot_be_sent_is_refused(cli: Cli, broker: MemoryBroker, words: tuple[str, ...]) -> None:
    """Contradicting words, data that is no JSON and a type that is none end with 2 and send nothing."""
    result = cli("signal", "send", *words, input="")
    assert (result.exit_code, result.stdout, broker.records("signals")) == (2, "", [])


def test_unreachable_broker_is_told_and_no_id_printed(cli: Cli, broker: MemoryBroker) -> None:
    """An id on stdout means that the broker has the signal."""
    broker.up = False
    result = cli("signal", "send", "a.b")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "error: the broker does not answer\nhint: start it\n"


def test_file_sends_every_line(cli: Cli, broker: MemoryBroker) -> None:
    """Lines are sent in order with what they say, extensions included, and the ids come in the same order."""
    lines = [{"type": "a.b", "id": str(n), "subject": "s", "data": {"n": n}, "myextension": "x"} for n in range(2500)]
    result = cli("signal", "send", "--file", "-", input="\n".join(map(json.dumps, lines)))
    assert result.exit_code == 0
    assert result.stdout.split() == [str(n) for n in range(2500)]
    assert [signal.data["n"] for signal in broker.signals("signals")] == list(range(2500))
    assert broker.signals("signals")[0].extensions == {"myextension": "x"}
    assert result.stderr == "sent 2500, not sent 0\n"


def test_faulty_lines_are_named_and_the_good_ones_sent(cli: Cli, broker: MemoryBroker, tmp_path: object) -> None:
    """A faulty line costs no good one: each fault is told with its line number, and the exit code is 1."""
    path = f"{tmp_path}/signals.jsonl"
    with open(path, "wb") as file:
        file.write(
            b'{"type": "a", "id": "1"}\r\n\n{"type": \n[1]\n{"id": "no type"}\n{"type": "b", "id": "\xff"}\n'
            b'{"type": "c", "id": "2"}'
        )
    result = cli("signal", "send", "--file", path)
    assert (result.exit_code, result.stdout) == (1, "1\n2\n")
    assert [signal.type for signal in broker.signals("signals")] == ["a", "c"]
    told = result.stderr.splitlines()
    assert [line.split(":")[0] for line in told[:4]] == ["line 3", "line 4", "line 5", "line 6"]
    assert "`type`" in told[2]
    assert told[4:6] == ["sent 2, not sent 4", "error: 4 lines are no signals and were not sent; the other 2 were"]


def test_missing_file_is_a_usage_error(cli: Cli) -> None:
    """A file that is not there is named."""
    result = cli("signal", "send", "--file", "nowhere.jsonl")
    assert (result.exit_code, "nowhere.jsonl" in result.stderr) == (2, True)


def test_rate_spaces_the_signals(cli: Cli, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --rate N, the n-th signal is not sent before n/N seconds have passed."""
    now = 100.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr("signalbox.cli.signals.time.monotonic", lambda: now)
    monkeypatch.setattr("signalbox.cli.signals.time.sleep", sleep)
    assert cli("signal", "send", "--file", "-", "--rate", "4", input='{"type": "a"}\n' * 5).exit_code == 0
    assert (len(broker.signals("signals")), sum(slept)) == (5, 1.0)


@pytest.mark.parametrize("format", ["json", "jsonl", "none"])
def test_stdout_holds_data_only(cli: Cli, format: str) -> None:
    """Whatever the format, notes and summaries stay off stdout."""
    result = cli("signal", "send", "--file", "-", "-o", format, input='{"type": "a", "id": "1"}\n')
    wanted = {"json": '[\n{"id":"1"}\n]\n', "jsonl": '{"id":"1"}\n', "none": ""}
    assert (result.stdout, result.stderr) == (wanted[format], "sent 1, not sent 0\n")
