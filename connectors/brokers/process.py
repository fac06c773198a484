"""A broker as a child process: it gets a free port, writes to a log file, and dies with its starter.

On Linux the kernel kills the child when its starter ends, however that ends. Elsewhere only `stop` ends it, so a
starter that is itself killed leaves the broker behind. What is started, and with which words, is in `embedded` and
`apache`.
"""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from signalbox.errors import Conflict, DeadlineExceeded, SignalboxError
from signalbox.machine import is_free

LOOPBACK = "127.0.0.1"
#: Below what Linux (32768) and macOS (49152) hand out to clients: a client that keeps dialling a dead broker on a port
#: of that range can end up connected to itself, and then the broker cannot come back.
_PORTS = range(20_000, 32_768)
#: Taking a free port and listening on it are two steps; somebody else may be quicker.
_TRIES = 3
_GRACE_S = 10.0
#: All a broker needs; secrets in the starter's environment are not passed on.
_ENVIRONMENT = ("HOME", "JAVA_HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")
_LOG_BYTES = 10_000_000
_TAIL_BYTES = 100_000
_TAIL_LINES = 12
#: How Java and Rust word it.
_ADDRESS_IN_USE = ("Address already in use", "AddrInUse")
_STACK_FRAME = "\tat "
_PR_SET_PDEATHSIG = 1


class BrokerProcess:
    """A started broker process and its log."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        """Start `command`, appending what it prints to `log`; one older log is kept when that grows large.

        `environment` is added to the little that is passed on, and the open files `inherit` are the child's as well.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._process = _start_kept(command, log, {**inherited, **(environment or {})}, inherit)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self.alive() else None

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, bootstrap: str, timeout_s: float) -> None:
        """Wait until a client gets metadata that names a broker.

        Raises:
            Conflict: it ended, because its port is taken.
            SignalboxError: it ended for another reason.
            DeadlineExceeded: it runs but does not answer in time. All three end with the last log lines.
        """
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if _answers(bootstrap):
                return
            if time.monotonic() > deadline:
                msg = f"the broker on {bootstrap} was not ready within {timeout_s:g} s\n{self.tail()}"
                raise DeadlineExceeded(msg, hint=f"its log is {self.log}")
            time.sleep(0.01)
        kind = Conflict if any(words in self._printed() for words in _ADDRESS_IN_USE) else SignalboxError
        msg = f"the broker on {bootstrap} ended at once (exit code {self._process.returncode})\n{self.tail()}"
        raise kind(msg, hint=f"its log is {self.log}")

    def tail(self) -> str:
        """The last lines this process has printed, without stack frames."""
        lines = [line for line in self._printed().splitlines() if not line.startswith(_STACK_FRAME)]
        return "\n".join(lines[-_TAIL_LINES:])

    def _printed(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace")

    def stop(self, *, grace_s: float) -> None:
        """Ask it to end, and kill it after the grace; returns when it is gone."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it as a power cut would; returns when it is gone."""
        if self.alive():
            self._process.kill()
        self._process.wait()


class ProcessBroker(ABC):
    """What the local brokers have in common; see `signalbox.ports.LocalBroker`."""

    def __init__(self, data_dir: Path) -> None:
        self.log = data_dir / "logs" / "broker.log"
        self._process: BrokerProcess | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Find or fetch what it takes to run; `start` does so too. Raises as `start` does, and may take minutes."""

    @abstractmethod
    def _launch(self, port: int) -> BrokerProcess:
        """Start the process on a port of the loopback, without waiting for it."""

    def _preferred_port(self) -> int:
        """What port 0 means here, when it is free."""
        return 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, *, port: int = 0, timeout_s: float = 60.0) -> str:
        """See `LocalBroker`. What has to be fetched first is not part of `timeout_s`."""
        if self.alive():
            msg = f"this broker already runs, as process {self.pid}"
            raise Conflict(msg, hint="stop it first")
        if port:
            _require_free(port)
        self.prepare()
        if not port and is_free(LOOPBACK, self._preferred_port()):
            port = self._preferred_port()
        for _ in range(_TRIES - 1):
            with contextlib.suppress(Conflict):
                return self._start_once(port or free_port(), timeout_s)
        return self._start_once(port or free_port(), timeout_s)

    def _start_once(self, port: int, timeout_s: float) -> str:
        bootstrap = f"{LOOPBACK}:{port}"
        self._process = self._launch(port)
        try:
            self._process.wait_ready(bootstrap, timeout_s)
        except BaseException:
            self._process.kill()
            raise
        return bootstrap

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    def stop(self) -> None:
        """Stop it, waiting until it is gone; killed if it takes more than 10 s."""
        if self._process:
            self._process.stop(grace_s=_GRACE_S)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL), waiting until it is gone."""
        if self._process:
            self._process.kill()


def free_port() -> int:
    """A port of the loopback that nobody listens on just now."""
    for port in random.SystemRandom().sample(_PORTS, min(len(_PORTS), 200)):
        if is_free(LOOPBACK, port):
            return port
    msg = f"no free port between {_PORTS.start} and {_PORTS.stop}"
    raise Conflict(msg, hint="stop what listens there, or name a port")


def _start_kept(
    command: Sequence[str], log: Path, environment: Mapping[str, str], inherit: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start from a thread that lives as long as the child.

    The kernel's parent-death signal fires when the *thread* that forked ends, not the process, so a child started
    from a short-lived thread would die with it.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def keep() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    pass_fds=inherit,
                    # A Ctrl-C in the terminal is for the starter, which drains before it stops the broker.
                    start_new_session=True,
                    preexec_fn=_die_with_starter(),  # noqa: PLW1509 - one prepared system call, no Python locks
                )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()

    threading.Thread(target=keep, name=f"keeper of {Path(command[0]).name}", daemon=True).start()
    return started.result()


def _die_with_starter() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    starter = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:  # it ended before the call took effect
            os._exit(1)

    return in_child


def _require_free(port: int) -> None:
    """Raise `Conflict` when somebody listens on the port."""
    if not is_free(LOOPBACK, port):
        msg = f"port {port} on {LOOPBACK} is taken"
        raise Conflict(msg, hint="stop what listens there, or choose another port (0 takes a free one)")


def _answers(bootstrap: str) -> bool:
    host, _, port = bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.2).close()
        client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.ms": 20})
        return bool(client.list_topics(timeout=1).brokers)
    except (OSError, KafkaException):
        return False
