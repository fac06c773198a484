"""Runs a node whose children and broker are stand-ins: `fake_node.py OVERRIDES_JSON`.

Prints the ready line on stdout, and ends with the exit code that the command line would give.
"""

import json
import subprocess
import sys
from pathlib import Path

from signalbox import plugins
from signalbox.config import load_settings
from signalbox.errors import SignalboxError, Unreachable
from signalbox.supervision.node import Node
from tests.support.fakes import MemoryBroker, MemoryPublisher, MemoryReader

_CHILD = (sys.executable, str(Path(__file__).with_name("fake_process.py")))
_IDLE = "import os, time, ctypes; ctypes.CDLL(None).prctl(1, 9); time.sleep(3600)"


class FakeBroker:
    """A process that does nothing, as the broker."""

    def __init__(self, data_dir: Path) -> None:
        self._notes = data_dir / "broker.jsonl"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process and self._process.pid

    def start(self, *, port: int = 0, timeout_s: float = 60.0) -> str:
        self._process = subprocess.Popen([sys.executable, "-c", _IDLE], start_new_session=True)
        with self._notes.open("a") as notes:
            notes.write(json.dumps({"pid": self._process.pid, "port": port}) + "\n")
        return f"127.0.0.1:{port or 4711}"

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class FakeAdmin:
    """A broker that answers, unless its address is `nowhere`."""

    def __init__(self, kafka: object) -> None:
        self._away = "nowhere" in kafka.bootstrap
        self._cluster = kafka.client.get("client.id", "cluster-1")

    def cluster_id(self) -> str:
        if self._away:
            msg = "connection refused"
            raise Unreachable(msg)
        return self._cluster

    def ensure_topics(self, names: list[str], *, partitions: int, replication: int) -> list[str]:
        return list(names)


def main() -> int:
    plugins.admin = FakeAdmin
    records = MemoryBroker(["registry"])
    plugins.publisher = lambda _kafka: MemoryPublisher(records)
    plugins.reader = lambda _kafka: MemoryReader(records)
    plugins.local_broker = lambda _kind, data_dir: FakeBroker(data_dir)
    try:
        settings = load_settings(overrides=json.loads(sys.argv[1]))
        Node(settings, commands={"worker": _CHILD, "sensors": _CHILD}).run(lambda line: print(line, flush=True))
    except SignalboxError as error:
        print(f"error: {error} ({error.hint})", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
