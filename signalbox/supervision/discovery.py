"""How client commands find the running node: a small file in its data directory.

The file appears when the node is ready and goes when it stops. It may outlive a node that was killed, so `find` checks
that the process still lives; it does not check that the node is healthy: ask its `/health` for that.
"""

from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from signalbox.durable import write_at_once


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running node can be reached."""

    pid: int
    http: str
    """`http://HOST:PORT`"""
    bootstrap: str
    """`HOST:PORT` of its Kafka broker, or several separated by commas."""
    node: str
    started_at: datetime
    version: str


def record_path(data_dir: Path) -> Path:
    """`<data_dir>/run/node.json`"""
    return data_dir / "run" / "node.json"


def find(data_dir: Path) -> NodeRecord | None:
    """The node that runs on this data directory, or None if none does."""
    try:
        record = msgspec.json.decode(record_path(data_dir).read_bytes(), type=NodeRecord)
    except (OSError, msgspec.MsgspecError):
        return None
    return record if psutil.pid_exists(record.pid) else None


def announce(data_dir: Path, record: NodeRecord) -> None:
    """Write the record in one step, so that a reader sees all of it or nothing."""
    write_at_once(record_path(data_dir), msgspec.json.encode(record))


def withdraw(data_dir: Path) -> None:
    """Remove the record; it may be gone already."""
    record_path(data_dir).unlink(missing_ok=True)
