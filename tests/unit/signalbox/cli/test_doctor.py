"""`doctor`: what it finds, and what it says to do about it."""

import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from signalbox.cli import doctor
from signalbox.supervision import discovery
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli


class Usage(NamedTuple):
    """As `shutil.disk_usage` gives it."""

    total: int
    used: int
    free: int


def findings(cli: Cli, *words: str) -> tuple[int, dict[str, tuple[str, str | None]]]:
    result = cli("doctor", "-o", "json", "--set", "http.port=0", *words)
    return result.exit_code, {row["check"]: (row["status"], row["fix"]) for row in json.loads(result.stdout)}


def test_healthy_surroundings_are_ok(cli: Cli, broker: MemoryBroker) -> None:
    """Where nothing is missing, every line is OK and the exit code 0."""
    code, found = findings(cli)
    assert code == 0
    assert {status for status, _ in found.values()} == {"OK"}
    assert found.keys() >= {"python", "engine", "settings", "data directory", "disk", "http", "kafka", "topics"}


def test_nothing_is_changed(cli: Cli, tmp_path: Path) -> None:
    """Looking leaves no data directory behind."""
    findings(cli)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_kafka_fails(cli: Cli, broker: MemoryBroker) -> None:
    """A broker that does not answer is a FAIL with its fix, asked once, and the exit code is 6."""
    broker.up = False
    code, found = findings(cli)
    assert (code, found["kafka"]) == (6, ("FAIL", "start it"))
    assert "topics" not in found


def test_missing_topics_are_a_warning(bare_cli: Cli, broker: MemoryBroker) -> None:
    """Topics that a node would make are no failure."""
    code, found = findings(bare_cli, "--bootstrap", "memory:1", "--set", "kafka.topic_prefix=x.")
    assert (code, found["topics"][0]) == (0, "WARN")


@pytest.mark.parametrize(
    ("policy", "status"), [("compact", "OK"), ("delete", "WARN"), ("compact,delete", "WARN"), (None, "OK")]
)
def test_a_registry_that_is_not_compacted_is_a_warning(
    cli: Cli, broker: MemoryBroker, policy: str | None, status: str
) -> None:
    """A topic that was made otherwise is taken as it is, but forgets agents or keeps too much, and the fix is named."""
    if policy is not None:
        broker.topic_settings["registry", "cleanup.policy"] = policy
    code, found = findings(cli)
    assert (code, found["registry"][0]) == (0, status)
    assert ("cleanup.policy=compact" in str(found["registry"][1])) == (status == "WARN")


def test_a_registry_that_is_missing_is_made_later(bare_cli: Cli, broker: MemoryBroker) -> None:
    """A node makes it compacted."""
    assert findings(bare_cli, "--bootstrap", "memory:1", "--set", "kafka.topic_prefix=x.")[1]["registry"][0] == "OK"


def test_bad_settings_fail_and_end_the_examination(cli: Cli) -> None:
    """Without settings there is nothing else to look at."""
    code, found = findings(cli, "--set", "nonsense=1")
    assert (code, found["settings"][0], "kafka" in found) == (6, "FAIL", False)


def test_port_in_use_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that somebody else listens on is found before `up` finds it."""

    def taken(_address: object, **_more: object) -> Any:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(doctor.socket, "create_server", taken)
    code, found = findings(cli)
    assert (code, found["http"][0], "--http" in str(found["http"][1])) == (6, "FAIL", True)


@pytest.mark.parametrize(
    ("free", "code", "status"), [(10 << 30, 0, "OK"), (500 << 20, 0, "WARN"), (1 << 20, 6, "FAIL")]
)
def test_disk_space(cli: Cli, monkeypatch: pytest.MonkeyPatch, free: int, code: int, status: str) -> None:
    """Less than a gigabyte is a warning, almost nothing a failure."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1 << 40, 0, free))
    assert findings(cli)[0] == code
    assert findings(cli)[1]["disk"][0] == status


def test_data_directory_that_cannot_be_written_fails(cli: Cli, tmp_path: Path) -> None:
    """A file where the data directory should be is a failure."""
    (tmp_path / "file").write_text("")
    code, found = findings(cli, "--data-dir", "file/data")
    assert (code, found["data directory"][0]) == (6, "FAIL")


def test_old_python_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without wheels of the engine is named with those that have them."""
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    code, found = findings(cli)
    assert (code, found["python"]) == (6, ("FAIL", "use Python 3.11 or 3.12: the engine has no others"))


def test_own_broker_is_looked_for_on_this_machine(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's own broker must be installable: what is missing is named with what to install."""
    assert findings(bare_cli)[1]["kafka"][0] == "OK"
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    code, found = findings(bare_cli, "--set", "kafka.broker=kafka")
    assert (code, found["kafka"][0]) == (6, "FAIL")


def test_running_node_is_asked(bare_cli: Cli, broker: MemoryBroker, tmp_path: Path) -> None:
    """A node that runs on the data directory is named, and one that does not answer is a failure."""
    record = discovery.NodeRecord(
        pid=os.getpid(),
        http="http://127.0.0.1:1",
        bootstrap="memory:1",
        node="n",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        version="1",
    )
    discovery.announce(tmp_path / ".signalbox", record)
    code, found = findings(bare_cli)
    assert (code, found["data directory"][0], found["http"][0], found["kafka"][0]) == (6, "OK", "FAIL", "OK")
