import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalbox.supervision import discovery
from signalbox.supervision.discovery import NodeRecord


def _record(pid: int) -> NodeRecord:
    return NodeRecord(
        pid=pid,
        http="http://127.0.0.1:8080",
        bootstrap="127.0.0.1:9092",
        node="n",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        version="1.0",
    )


def test_an_announced_node_is_found_until_it_withdraws(tmp_path: Path) -> None:
    """A client reads exactly what the node wrote, and nothing once the node has gone."""
    assert discovery.find(tmp_path) is None
    discovery.announce(tmp_path, _record(os.getpid()))
    assert discovery.find(tmp_path) == _record(os.getpid())
    discovery.withdraw(tmp_path)
    discovery.withdraw(tmp_path)
    assert discovery.find(tmp_path) is None


def test_the_record_of_a_dead_node_is_not_believed(tmp_path: Path) -> None:
    """A killed node leaves its record behind, and no client falls for it."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    discovery.announce(tmp_path, _record(child.pid))
    assert discovery.find(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}'])
def test_a_broken_record_is_no_node(tmp_path: Path, content: bytes) -> None:
    """A file that is not a record is taken as no node."""
    discovery.record_path(tmp_path).parent.mkdir()
    discovery.record_path(tmp_path).write_bytes(content)
    assert discovery.find(tmp_path) is None
