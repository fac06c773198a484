"""A broker to stop and start at will, and the sensor process as the supervisor would start it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.signal import Signal, decode
from signalbox import plugins
from signalbox.config import Settings, resolved_environment
from signalbox.errors import ConfigError, Unreachable
from signalbox.supervision import inspection
from signalbox.supervision.parent import PARENT_VARIABLE
from tests.support.lines import whole_lines

TOPIC = "signals"


class Broker:
    """An embedded broker that keeps its port over restarts. It forgets all topics when it stops."""

    def __init__(self, folder: Path) -> None:
        self._broker = plugins.local_broker("embedded", folder)
        self.bootstrap = self._broker.start()
        self.create_topic()

    def settings(self, folder: Path, **more: Any) -> Settings:
        """Settings of a node on this broker with its data in `folder`."""
        return Settings.model_validate(
            {
                "node": {"name": "n1", "data_dir": str(folder), **more.pop("node", {})},
                "kafka": {"bootstrap": self.bootstrap},
                "log": {"console": True, "file": False},
                **more,
            }
        )

    def create_topic(self) -> None:
        kafka = Settings.model_validate({"kafka": {"bootstrap": self.bootstrap}}).kafka
        plugins.admin(kafka).ensure_topics([TOPIC], partitions=2, replication=1)

    def signals(self) -> list[Signal[Any]]:
        """Everything on the topic."""
        kafka = Settings.model_validate({"kafka": {"bootstrap": self.bootstrap}}).kafka
        records = plugins.reader(kafka).read([TOPIC], start="start", follow=False, timeout_s=20)
        return [decode(record.value, record.headers) for record in records]

    def restart(self) -> None:
        self._broker.start(port=int(self.bootstrap.rpartition(":")[2]))
        self.create_topic()

    def stop(self) -> None:
        self._broker.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    try:
        broker = Broker(tmp_path / "broker")
    except ConfigError as error:
        pytest.skip(f"no embedded broker here: {error}")
    yield broker
    broker.stop()


class SensorProcess:
    """`python -m signalbox.sensors`, with this process as its supervisor."""

    def __init__(self, settings: Settings, *, python_path: Path | None = None) -> None:
        self.data_dir = settings.node.data_dir
        self._errors = self.data_dir.parent / "stderr.txt"
        environment = {
            **os.environ,
            **resolved_environment(settings, self.data_dir / "run" / "settings.json"),
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *([str(python_path)] if python_path else [])]),
        }
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "signalbox.sensors"], env=environment, stderr=errors, stdin=subprocess.DEVNULL
            )

    def status(self) -> dict[str, Any]:
        """What its inspection socket answers; empty while it is not ready."""
        return ask_status(self.data_dir)

    def terminate(self, *, timeout_s: float = 30) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self._errors)]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def ask_status(data_dir: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = inspection.ask(inspection.socket_path(data_dir, "sensors"), "status")
    except Unreachable:
        return {}
    return answer


@pytest.fixture
def start_sensors() -> Iterator[Any]:
    """Starts sensor processes, and leaves none behind."""
    started: list[SensorProcess] = []

    def start(settings: Settings, **options: Any) -> SensorProcess:
        started.append(SensorProcess(settings, **options))
        return started[-1]

    yield start
    for process in started:
        process.close()
