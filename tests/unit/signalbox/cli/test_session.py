"""Which settings, node and broker a command gets."""

import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalbox.cli.session import Session
from signalbox.config import Settings, load_settings, resolved_environment
from signalbox.errors import SignalboxError, Unreachable, UsageError
from signalbox.supervision import discovery


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def session(**options: object) -> Session:
    state = Session()
    state.add(options)
    return state


def running_node(data_dir: Path, bootstrap: str = "node:9", **overrides: str) -> Settings:
    """Leave in the data directory what a running node leaves there; this process stands in for the node."""
    settings = load_settings(overrides={"node.data_dir": str(data_dir), **overrides})
    resolved_environment(settings, data_dir / "run" / "settings.json")
    record = discovery.NodeRecord(
        pid=os.getpid(),
        http="http://127.0.0.1:1",
        bootstrap=bootstrap,
        node="n",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        version="1",
    )
    discovery.announce(data_dir, record)
    return settings


def test_node_of_the_data_directory_gives_the_broker(tmp_path: Path) -> None:
    """Without --bootstrap, the running node's broker is used, with the node's topic prefix and client settings."""
    running_node(tmp_path / "d", **{"kafka.topic_prefix": "x.", "kafka.client": '{"sasl.password": "secret"}'})
    settings = session(data_dir=tmp_path / "d").connected()
    assert (settings.kafka.bootstrap, settings.topic("signals")) == ("node:9", "x.signals")
    assert settings.kafka.client == {"sasl.password": "secret"}


def test_bootstrap_wins_over_the_node(tmp_path: Path) -> None:
    """A broker named on the command line is used whether or not a node runs."""
    running_node(tmp_path / "d", **{"kafka.topic_prefix": "x."})
    settings = session(data_dir=tmp_path / "d", bootstrap="other:1").connected()
    assert (settings.kafka.bootstrap, settings.topic("signals")) == ("other:1", "signals")


def test_own_kafka_settings_win_over_those_of_the_node(tmp_path: Path) -> None:
    """A `--set kafka...` on the command line counts, while the address stays the node's."""
    running_node(tmp_path / "d", **{"kafka.topic_prefix": "x."})
    settings = session(data_dir=tmp_path / "d", set=["kafka.topic_prefix=y."]).connected()
    assert (settings.kafka.bootstrap, settings.topic("signals")) == ("node:9", "y.signals")


def test_settings_of_the_node_that_cannot_be_read_are_done_without(tmp_path: Path) -> None:
    """A node of another user or version still tells where its broker is."""
    running_node(tmp_path / "d")
    (tmp_path / "d" / "run" / "settings.json").write_text('{"kafka": {"no_such_setting": 1}}')
    assert session(data_dir=tmp_path / "d").connected().kafka.bootstrap == "node:9"


def test_without_a_node_the_settings_give_an_external_broker() -> None:
    """Where the settings name somebody else's broker, no node is needed."""
    settings = session(set=["kafka.broker=external", "kafka.bootstrap=b:1"]).connected()
    assert settings.kafka.bootstrap == "b:1"


def test_without_a_node_its_own_broker_is_unreachable(tmp_path: Path) -> None:
    """Where the broker would be the node's own and no node runs, the error says how to start one."""
    with pytest.raises(Unreachable, match="no node runs on the data directory") as refused:
        session(data_dir=tmp_path / "d").connected()
    assert "signalbox up" in str(refused.value.hint)


def test_record_of_a_dead_node_counts_for_nothing(tmp_path: Path) -> None:
    """What a killed node left behind is not taken for a running one."""
    running_node(tmp_path / "d")
    path = discovery.record_path(tmp_path / "d")
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 2**22 + 1}))
    assert session(data_dir=tmp_path / "d").find_node() is None


@pytest.mark.parametrize("bootstrap", ["nowhere", "host:", "host:port", "a:1,b"])
def test_bootstrap_is_host_and_port(bootstrap: str) -> None:
    """--bootstrap without a port is refused before anything is tried."""
    with pytest.raises(UsageError, match="not an address"):
        session(bootstrap=bootstrap).settings()


def test_question_without_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that asks goes ahead without -y when nobody can answer."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="no terminal"):
        session().confirm("Really?")
    session(yes=True).confirm("Really?")


@pytest.mark.parametrize("answer", ["n\n", "\n", "y\n"])
def test_question_is_asked_on_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """On a terminal, only yes goes ahead."""
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    if answer == "y\n":
        session().confirm("Really?")
    else:
        with pytest.raises(SignalboxError, match="nothing was done"):
            session().confirm("Really?")


def test_quiet_silences_notes(capsys: pytest.CaptureFixture[str]) -> None:
    """Notes go to stderr, and -q keeps them back."""
    session().note("hello")
    session(quiet=True).note("silence")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
