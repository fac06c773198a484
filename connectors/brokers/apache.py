"""Apache Kafka as a child process: one KRaft node on the loopback, its log under `<data_dir>/kafka`.

Records, topics, the cluster id and, when it is still free, the port outlive a restart and a SIGKILL of the broker. One
node, no replication, no encryption: for development, tests and benchmarks, not for production. Needs Java and, the
first time, Maven (`jars`). `python -m connectors.brokers.apache` runs it in the foreground.
"""

import argparse
import base64
import contextlib
import fcntl
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from connectors.brokers.jars import find_java, kafka_jars
from connectors.brokers.process import LOOPBACK, BrokerProcess, ProcessBroker, free_port
from signalbox.errors import Conflict, SignalboxError
from signalbox.machine import processors

#: Small heap and the quick compiler only: the thorough one takes half a minute from all others before it pays.
_JAVA_FLAGS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")
_FORMAT_TIMEOUT_S = 60.0
#: After a SIGKILL the controller holds the node's old registration for one session, and the restart waits for that.
_SESSION_MS = 3_000
_MESSAGE_BYTES = 4_194_304
_LOG4J = """\
<Configuration>
  <Appenders><Console name="out"><PatternLayout pattern="%d{ISO8601} %p %c{1}: %m%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class ApacheKafka(ProcessBroker):
    """See `signalbox.ports.LocalBroker`."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._home = data_dir.absolute() / "kafka"
        self._port_file = self._home / "port"

    def prepare(self) -> None:
        java, jars = find_java(), kafka_jars()
        self._home.mkdir(parents=True, exist_ok=True)
        logging = self._home / "log4j2.xml"
        logging.write_text(_LOG4J)
        self._java = [java, *_JAVA_FLAGS, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*"]

    def _launch(self, port: int) -> BrokerProcess:
        with (self._home / "lock").open("w") as lock:
            _hold(lock)
            return self._launch_locked(port, lock.fileno())

    def _launch_locked(self, port: int, lock: int) -> BrokerProcess:
        properties = self._home / "server.properties"
        properties.write_text(_server_properties(self._home / "data", port, free_port()))
        if not (self._home / "data" / "meta.properties").exists():
            self._format(properties)
        self._port_file.write_text(str(port))
        return BrokerProcess([*self._java, "kafka.Kafka", str(properties)], log=self.log, inherit=[lock])

    def _preferred_port(self) -> int:
        """The port of the last run, so that clients find the broker again."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._port_file.read_text())
        return 0

    def _format(self, properties: Path) -> None:
        command = [*self._java, "kafka.tools.StorageTool", "format", "-c", str(properties), "-t", _new_cluster_id()]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FORMAT_TIMEOUT_S)
        if result.returncode:
            msg = f"Apache Kafka could not format {self._home}:\n{(result.stdout + result.stderr)[-2000:]}"
            raise SignalboxError(msg, hint="is the disk full, or the directory not writable?")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a broker until SIGINT or SIGTERM. Its address is the one line on stdout."""
    parser = argparse.ArgumentParser(prog="python -m connectors.brokers.apache", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, default=Path(".signalbox"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    broker = ApacheKafka(given.data_dir)
    try:
        sys.stdout.write(f"kafka {broker.start(port=given.port)}\n")
        sys.stdout.flush()
        while broker.alive() and not ended.wait(0.5):
            pass
        if not ended.is_set():
            msg = "the broker ended by itself"
            raise SignalboxError(msg, hint=f"its log is {broker.log}")
    except SignalboxError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        sys.exit(error.exit_code)
    finally:
        broker.stop()


def _hold(lock: IO[str]) -> None:
    """Take the lock. The broker inherits the open file, so the lock is held for exactly as long as the broker runs.

    Kafka has a lock of its own, but writes to the metadata log before it looks at it, and so damages the other's.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        msg = f"another broker uses {Path(lock.name).parent}"
        raise Conflict(msg, hint="stop it, or choose another data directory (--data-dir)") from None


def _new_cluster_id() -> str:
    """A random id of Kafka's form, without the leading dash that its tools would take for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _server_properties(data: Path, port: int, controller_port: int) -> str:
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "message.max.bytes": _MESSAGE_BYTES,
        "replica.fetch.max.bytes": _MESSAGE_BYTES,
        # By default eight and three, which on a small machine take the processors from those whom the broker serves.
        "num.io.threads": min(8, processors()),
        "num.network.threads": min(3, (processors() + 1) // 2),
        "group.initial.rebalance.delay.ms": 0,
        "broker.session.timeout.ms": _SESSION_MS,
        "broker.heartbeat.interval.ms": 500,
        # One node: internal topics cannot be replicated, and need few partitions.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # The default, 128 MB, is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": 16_777_216,
        # A topic that can be compacted is seen soon: the looks cost nothing on a broker of a few topics.
        "log.cleaner.backoff.ms": 1_000,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


if __name__ == "__main__":
    main()
