"""A system of topics on a broker, and worker processes of it that are started, killed and drained by hand."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from connectors.brokers.process import LOOPBACK, free_port
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.offsets import end_offsets
from connectors.kafka.parts import split_part
from connectors.kafka.publisher import KafkaPublisher
from connectors.kafka.reader import KafkaReader
from schemas.signal import Signal, decode, new_signal
from signalbox.config import TOPICS, Settings, resolved_environment
from signalbox.errors import Unreachable
from signalbox.ports import Record
from signalbox.supervision import inspection
from signalbox.supervision.parent import PARENT_VARIABLE
from tests.support.eventually import eventually
from tests.support.lines import whole_lines

_ROOT = Path(__file__).parents[2]
#: For what takes a second on a quiet machine.
PATIENCE_S = 60.0


class System:
    """Topics of one prefix, and one data directory."""

    def __init__(self, bootstrap: str, prefix: str, data_dir: Path, *, partitions: int = 4, **settings: Any) -> None:
        own = {name: settings.pop(name, {}) for name in ("node", "kafka", "flows", "log")}
        self.settings = Settings.model_validate(
            {
                "node": {"name": "n1", "data_dir": str(data_dir), **own["node"]},
                "kafka": {"bootstrap": bootstrap, "topic_prefix": prefix, **own["kafka"]},
                "flows": {"agents": {"epoch_ms": 100, **own["flows"]}},
                "log": {"console": True, "file": False, **own["log"]},
                **settings,
            }
        )
        self.workers: list[Worker] = []
        names = [self.settings.topic(name) for name in TOPICS]
        KafkaAdmin(self.settings.kafka).ensure_topics(names, partitions=partitions, replication=1)

    def start(self, *, index: int = 0, addresses: Sequence[str] = (), python_path: Path | None = None) -> "Worker":
        """Start a worker process, without waiting for it."""
        self.workers.append(Worker(self.settings, index=index, addresses=addresses, python_path=python_path))
        return self.workers[-1]

    def start_cluster(self, size: int) -> "list[Worker]":
        """Start the worker processes of one cluster."""
        addresses = [f"{LOOPBACK}:{free_port()}" for _ in range(size)]
        return [self.start(index=index, addresses=addresses) for index in range(size)]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()

    def send(self, signals: Iterable[Signal[Any]], topic: str = "signals") -> None:
        """Put signals on a topic; returns when the broker has them."""
        publisher = KafkaPublisher(self.settings.kafka)
        try:
            for one in signals:
                publisher.publish(self.settings.topic(topic), one)
            publisher.flush(PATIENCE_S)
        finally:
            publisher.close()

    def records(self, topic: str) -> list[Record]:
        """Everything that is on a topic now."""
        reader = KafkaReader(self.settings.kafka)
        return list(reader.read([self.settings.topic(topic)], start="start", follow=False, timeout_s=PATIENCE_S))

    def count(self, topic: str) -> int:
        """How many records are on a topic now."""
        name = self.settings.topic(topic)
        partitions = KafkaAdmin(self.settings.kafka).topics()
        return sum(sum(info.end_offsets.values()) for info in partitions if info.name == name)

    def signals(self, topic: str) -> list[Signal[Any]]:
        return [decode(record.value, record.headers) for record in self.records(topic)]

    def answers(self) -> "Counter[str]":
        """How often each task was answered."""
        return Counter(one.data["task_id"] for one in self.signals("results"))

    def await_answers(self, task_ids: Iterable[str], *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until each task has its answer, and fail if one has two, or an unknown one has any."""
        expected = Counter(task_ids)

        def all_there() -> bool:
            answers = self.answers()
            assert answers.total() >= expected.total(), f"{answers.total()} of {expected.total()} answers"
            assert answers == expected, f"doubled: {answers - expected}; lost: {expected - answers}"
            return True

        eventually(all_there, timeout_s=timeout_s, every_s=0.2)


class Worker:
    """One worker process, with this process as its supervisor."""

    def __init__(
        self, settings: Settings, *, index: int, addresses: Sequence[str], python_path: Path | None = None
    ) -> None:
        self._kafka = settings.kafka
        self._socket = inspection.socket_path(settings.node.data_dir, f"agents-{index}")
        environment = {
            **os.environ,
            **resolved_environment(settings, settings.node.data_dir / "run" / f"settings-{index}.json"),
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *([str(python_path)] if python_path else [])]),
        }
        command = [sys.executable, "-m", "flows.worker", "agents", "--index", str(index)]
        if addresses:
            command += ["--addresses", ",".join(addresses)]
        self.log = settings.node.data_dir / f"worker-{index}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log, stdout=log)

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, op: str, **params: Any) -> Any:
        """Ask it over its inspection socket, and again while it does not serve yet."""

        def answer() -> Any:
            assert self.alive(), f"the worker ended with {self.process.returncode}:\n{self.tail()}"
            try:
                return [inspection.ask(self._socket, op, **params)]
            except Unreachable as error:
                raise AssertionError(str(error)) from None

        return eventually(answer, timeout_s=PATIENCE_S)[0]

    def await_caught_up(self) -> None:
        """Wait until it has processed everything that is on its inputs, and nothing more comes of it there.

        It must be the only one of its cluster.
        """
        before: dict[tuple[str, int], int] = {}

        def caught_up() -> bool:
            nonlocal before
            positions = {split_part(name): place for name, (place, _) in self.ask("status")["positions"].items()}
            partitions = {(self._kafka.topic_prefix + topic, number): (topic, number) for topic, number in positions}
            ends = end_offsets(self._kafka, partitions, timeout_s=PATIENCE_S) if partitions else {}
            # What it has read may make it write to its own inputs a moment later.
            same, before = ends == before, ends
            return bool(ends) and same and all(positions[partitions[place]] == end for place, end in ends.items())

        eventually(caught_up, timeout_s=PATIENCE_S, every_s=0.25)

    def await_exit(self, timeout_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout_s)

    def drain(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM to a worker that is up; returns the exit code."""
        self.ask("status")
        self.process.send_signal(signal.SIGTERM)
        return self.await_exit(timeout_s)

    def kill(self) -> None:
        """SIGKILL, if it runs; returns when it is gone."""
        if self.alive():
            self.process.kill()
        self.process.wait()

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self.log) if line.startswith("{")]

    def tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-30:])


def tasks(first: int, count: int, *, subjects: int = 50, action: str = "echo") -> list[Signal[Any]]:
    """Numbered tasks, spread over some subjects."""
    return [
        new_signal(
            "task.submitted",
            {"task_id": f"t{n}", "action": action, "params": {"value": n}},
            source="test",
            subject=f"order-{n % subjects}",
            id=f"signal-{n}",
        )
        for n in range(first, first + count)
    ]


def task_ids(count: int) -> list[str]:
    return [f"t{n}" for n in range(count)]
