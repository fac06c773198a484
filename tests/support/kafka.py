"""Finds an Apache Kafka for the tests, starts it at most once per run, and says which one it is.

Under pytest-xdist the controller owns the broker, because workers come and go: a worker asks for it through a Unix
socket. Nothing is started before the first test that needs it.
"""

import json
import os
import shutil
import socket
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, Literal, Protocol

from connectors.brokers.apache import ApacheKafka
from connectors.brokers.jars import KAFKA_VERSION, cached_jars, kafka_jars
from connectors.brokers.process import LOOPBACK, free_port
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, Unreachable

GIVEN_VARIABLE = "SIGNALBOX_TEST_KAFKA"
_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_NOTHING = f"no {GIVEN_VARIABLE}, no Docker engine, no Java with Maven"
_DOCKER_SOCKETS = (Path("/var/run/docker.sock"), Path.home() / ".docker/run/docker.sock")


@dataclass(frozen=True, slots=True)
class BrokerUnderTest:
    """A running broker that tests share; keep to topics of your own prefix."""

    bootstrap: str
    kind: Literal["embedded", "kafka"]

    def settings(self, prefix: str = "", **more: Any) -> KafkaSettings:
        """Settings of clients of this broker."""
        return KafkaSettings(bootstrap=self.bootstrap, topic_prefix=prefix, **more)


class Unavailable(Exception):
    """There is no Apache Kafka for the tests, and this is why."""


class KafkaProvider(Protocol):
    """Gets the one Apache Kafka of this run; both calls raise `Unavailable` when there is none."""

    def prepare(self) -> None:
        """Do what may take minutes the first time, such as fetching jars."""

    def bootstrap(self) -> str:
        """Its address; starts it unless it runs."""


@dataclass
class LocalProvider:
    """Owns the broker. Made in the process that outlives the tests; `close` ends the broker."""

    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._outcome: str | Exception | None = None
        self._undo: list[Callable[[], object]] = []
        self.description, self._start = self._choose()

    def _choose(self) -> tuple[str, Callable[[], str]]:
        if given := self.environment.get(GIVEN_VARIABLE):
            return f"given by {GIVEN_VARIABLE}: {given}", lambda: given
        if _docker_answers():
            return f"a container of {_IMAGE}", self._start_container
        if shutil.which("java") and (cached_jars().is_dir() or shutil.which("mvn")):
            return f"Apache Kafka {KAFKA_VERSION} from its jars", self._start_jars
        return f"none ({_NOTHING})", self._refuse

    def prepare(self) -> None:
        if self._start == self._start_jars:
            try:
                kafka_jars()
            except (ConfigError, Unreachable) as error:
                raise Unavailable(str(error)) from error
        elif self._start == self._start_container:
            self.bootstrap()

    def bootstrap(self) -> str:
        with self._lock:
            if self._outcome is None:
                self._outcome = self._attempt()
            if isinstance(self._outcome, Exception):
                raise self._outcome
            return self._outcome

    def _attempt(self) -> str | Exception:
        try:
            return self._start()
        except (ConfigError, Unreachable) as error:
            return Unavailable(str(error))
        except Exception as error:  # a broker that fails to start fails every test that needs it, and only once
            return error

    def serve(self) -> str:
        """Answer workers; returns the address of the socket."""
        directory = tempfile.mkdtemp(prefix="signalbox-test-")
        self._undo.append(lambda: shutil.rmtree(directory, ignore_errors=True))
        listener = Listener(f"{directory}/kafka.sock", "AF_UNIX", backlog=64)
        self._undo.append(listener.close)
        threading.Thread(target=self._answer, args=(listener,), daemon=True, name="kafka for workers").start()
        return f"{directory}/kafka.sock"

    def close(self) -> None:
        with self._lock:
            while self._undo:
                self._undo.pop()()

    def _answer(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except OSError:
                return
            with connection, suppress(EOFError, OSError):
                connection.send_bytes(json.dumps(self._reply(connection.recv_bytes())).encode())

    def _reply(self, request: bytes) -> dict[str, str]:
        try:
            if request == b"prepare":
                self.prepare()
                return {}
            return {"bootstrap": self.bootstrap()}
        except Exception as error:  # whatever it is, the worker has to hear of it
            return {"error": str(error), "kind": type(error).__name__}

    def _refuse(self) -> str:
        raise Unavailable(_NOTHING)

    def _start_jars(self) -> str:
        directory = tempfile.mkdtemp(prefix="signalbox-kafka-")
        self._undo.append(lambda: shutil.rmtree(directory, ignore_errors=True))
        broker = ApacheKafka(Path(directory))
        self._undo.append(broker.kill)
        return broker.start()

    def _start_container(self) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own making
            from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - slow to import, rarely there
            from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

            port = free_port()
            container = DockerContainer(_IMAGE)
            container.ports["9092/tcp"] = (LOOPBACK, port)  # type: ignore[assignment]  # as the Docker client takes it
            for name, value in _container_settings(port).items():
                container.with_env(name, value)
            container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(120))
            container.start()
        self._undo.append(container.stop)
        return f"{LOOPBACK}:{port}"


@dataclass(frozen=True)
class RemoteProvider:
    """Asks the process that owns the broker."""

    address: str

    def prepare(self) -> None:
        self._ask(b"prepare")

    def bootstrap(self) -> str:
        return self._ask(b"bootstrap")["bootstrap"]

    def _ask(self, request: bytes) -> dict[str, str]:
        with Client(self.address, "AF_UNIX") as connection:
            connection.send_bytes(request)
            reply: dict[str, str] = json.loads(connection.recv_bytes())
        if "error" in reply:
            if reply["kind"] == Unavailable.__name__:
                raise Unavailable(reply["error"])
            msg = f"{reply['kind']}: {reply['error']}"
            raise RuntimeError(msg)
        return reply


def unique_prefix() -> str:
    """Before the names of one test's topics."""
    return f"t{uuid.uuid4().hex[:12]}-"


def silent_port() -> int:
    """A port of the loopback on which nobody listens."""
    return free_port()


def _docker_answers() -> bool:
    host = os.environ.get("DOCKER_HOST", "")
    paths = [Path(host.removeprefix("unix://"))] if host.startswith("unix://") else list(_DOCKER_SOCKETS)
    if host and not host.startswith("unix://"):
        return shutil.which("docker") is not None
    for path in paths:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
            return True
    return False


def _container_settings(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{LOOPBACK}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_MESSAGE_MAX_BYTES": "4194304",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    }
