"""A real node to be mistreated: started as users start it, then killed, frozen, drained and started again.

Nothing here judges what came out of it: `chaos_check` does. `chaos_load` gives it work meanwhile. What is killed is a
process that this module started, or a child of it, by process id and start time.
"""

import os
import random
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx2
import psutil

from connectors.brokers.apache import ApacheKafka
from signalbox.supervision import discovery, fork_server
from tests.support.chaos_load import OpenLoop
from tests.support.eventually import eventually

_ROOT = Path(__file__).parents[2]
#: For what takes a second on a quiet machine. Reached only when something is broken.
PATIENCE_S = 120.0
FREEZE_S = 5.0
#: A pause that a strike caused begins so soon after it, and longer than this before the next one.
_SOON_MS, _BREATH_MS = 2_000, 100
_TAIL_LINES = 60
#: What the Kafka client says many times a second while a broker is away.
_NOISE = "Connection refused"
#: A crash loop is what these tests make, so it must neither be punished nor slow them down.
_SETTINGS = {
    "supervision.crash_limit": "1000000",
    "supervision.backoff_min_s": "0.05",
    "supervision.backoff_max_s": "0.5",
    "sensors.system_health.enabled": "false",
    "sensors.resource_usage.enabled": "false",
    "supervision.start_timeout_s": "120",
    "log.file": "false",
}


class Fault(StrEnum):
    """What can happen to a node."""

    WORKER = "worker"
    """SIGKILL of a worker process."""
    NODE = "node"
    """SIGKILL of the supervisor, which takes all its processes along; then the node is started again."""
    FREEZE = "freeze"
    """SIGSTOP of a worker for 5 s; some of them are killed with their node before they go on."""
    DRAIN = "drain"
    """SIGTERM; the node has to end with 0, and is started again."""
    BROKER = "broker"
    """SIGKILL of the broker, which is started again on its port; sometimes a worker is killed in between."""


def plan_faults(rng: random.Random, rounds: int, *, broker: int) -> list[Fault]:
    """The faults of a run: `broker` times the broker, each other kind at least once if `rounds` allows it."""
    kinds = [Fault.WORKER, Fault.NODE, Fault.FREEZE, Fault.DRAIN]
    others = rounds - broker
    faults = kinds[:others] + rng.choices(kinds, weights=(5, 3, 1, 2), k=max(0, others - len(kinds)))
    rng.shuffle(faults)
    for _ in range(broker):
        faults.insert(rng.randint(1, len(faults)), Fault.BROKER)
    return faults


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that happened. `at` is in seconds since 1970."""

    fault: Fault
    at: float
    detail: str


class MortalBroker:
    """An Apache Kafka that keeps its address over any number of deaths."""

    def __init__(self, directory: Path) -> None:
        self._broker = ApacheKafka(directory)
        self.bootstrap = ""

    def start(self) -> None:
        """Start it, for the first time on any free port; does nothing if it runs."""
        if not self._broker.alive():
            port = int(self.bootstrap.rpartition(":")[2] or 0)
            self.bootstrap = self._broker.start(port=port, timeout_s=PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL."""
        self._broker.kill()


@dataclass
class MortalNode:
    """One node on one data directory, started and ended many times."""

    directory: Path
    bootstrap: str
    prefix: str
    workers: int = 1
    flows: str = "agents"
    settings: Mapping[str, str] = field(default_factory=dict)
    module: str = "signalbox.cli"
    """What is run; a stand-in for the command takes the same words."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "node.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._children: set[psutil.Process] = set()

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def up(self) -> None:
        """Start it, without waiting for it."""
        settings = {**_SETTINGS, "kafka.topic_prefix": self.prefix, **self.settings}
        command = [
            sys.executable, "-m", self.module, "up", "--broker", self.bootstrap, "--data-dir", str(self.data_dir),
            "--http", "127.0.0.1:0", "--workers", str(self.workers), "--flows", self.flows,
            *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")),
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Wait until it says that it is ready."""
        eventually(self._record, timeout_s=PATIENCE_S)

    def get(self, path: str) -> Any:
        """Ask its HTTP interface, and again while it cannot answer."""

        def answer() -> Any:
            record = self._record()
            assert record is not None, "the node is not ready"
            with suppress(httpx2.HTTPError):
                response = httpx2.get(record.http + path, trust_env=False, timeout=10)
                if response.status_code == 200:
                    return response.json()
            return None

        return eventually(answer, timeout_s=PATIENCE_S)

    def _record(self) -> discovery.NodeRecord | None:
        process = self._running()
        record = discovery.find(self.data_dir)
        return record if record is not None and record.pid == process.pid else None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            msg = f"the node ended by itself with {code}"
            raise NodeEnded(msg)
        return self._process

    def worker(self, rng: random.Random) -> psutil.Process:
        """One of its worker processes, once there is one."""
        return rng.choice(eventually(self.workers_now, timeout_s=PATIENCE_S, every_s=0.005))

    def workers_now(self) -> list[psutil.Process]:
        """Its worker processes; there may be none at the moment."""
        with suppress(psutil.Error):
            children = psutil.Process(self._running().pid).children(recursive=True)
            self._children.update(children)
            return [child for child in children if _is_worker(child)]
        return []

    def kill(self) -> None:
        """SIGKILL of the supervisor. Its children are to die by themselves."""
        process = self._running()
        with suppress(psutil.Error):
            self._children.update(psutil.Process(process.pid).children(recursive=True))
        process.kill()
        process.wait()

    def ended(self) -> None:
        """Wait until the supervisor has ended by itself."""
        assert self._process is not None
        self._process.wait(PATIENCE_S)

    def drain(self) -> None:
        """SIGTERM, once it is ready; it has to end with exit code 0."""
        self.ready()
        process = self._running()
        process.terminate()
        code = process.wait(PATIENCE_S)
        assert code == 0, f"a drained node ended with {code}"

    def orphans(self) -> list[psutil.Process]:
        """Children of earlier runs that still live."""
        own = set()
        if self._process is not None and self._process.poll() is None:
            with suppress(psutil.Error):
                own = set(psutil.Process(self._process.pid).children(recursive=True))
        return [child for child in self._children - own if _lives(child)]

    def close(self) -> None:
        """End whatever is left of it."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for child in self._children:
            if _lives(child):
                with suppress(psutil.Error):
                    child.kill()

    def tail(self) -> str:
        """The end of what all its processes have logged."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line for line in text.splitlines() if _NOISE not in line]
        return "\n".join(lines[-_TAIL_LINES:])


class NodeEnded(Exception):
    """A node ended that nobody had asked to."""


@dataclass
class Chaos:
    """Strikes a node, and notes when and how."""

    rng: random.Random
    node: MortalNode
    load: OpenLoop
    broker: MortalBroker | None = None
    strikes: list[Strike] = field(default_factory=list)

    def strike(self, fault: Fault) -> Strike:
        """Let the fault happen. Returns when its cause is over; the recovery may still be under way."""
        {
            Fault.WORKER: self._kill_worker,
            Fault.NODE: self._kill_node,
            Fault.FREEZE: self._freeze,
            Fault.DRAIN: self._drain,
            Fault.BROKER: self._kill_broker,
        }[fault]()
        return self.strikes[-1]

    def count(self) -> str:
        """How often each fault happened, for people."""
        kinds = [strike.fault for strike in self.strikes]
        return " ".join(f"{fault}={kinds.count(fault)}" for fault in Fault if fault in kinds)

    def _note(self, fault: Fault, detail: str) -> None:
        self.strikes.append(Strike(fault, time.time(), detail))
        print(f"{time.strftime('%H:%M:%S')} {fault}: {detail}", flush=True)

    def _kill_worker(self) -> None:
        while True:
            worker = self.node.worker(self.rng)
            age_s = time.time() - worker.create_time()
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                break
        self._note(Fault.WORKER, f"process {worker.pid}, {age_s:.2f} s after its start")

    def _kill_node(self) -> None:
        self.node.kill()
        self._note(Fault.NODE, "killed")
        self.node.up()

    def _freeze(self) -> None:
        worker = self.node.worker(self.rng)
        killed_after_s = self.rng.uniform(0, FREEZE_S) if self.rng.random() < 0.25 else None
        try:
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
            self._note(Fault.FREEZE, f"process {worker.pid}, killed after {killed_after_s} s")
            self.load.run_for(FREEZE_S if killed_after_s is None else killed_after_s)
            if killed_after_s is not None:
                self._kill_node()
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.resume()

    def _drain(self) -> None:
        self.node.drain()
        self._note(Fault.DRAIN, "ended with 0")
        self.node.up()

    def _kill_broker(self) -> None:
        assert self.broker is not None
        away_s, worker_too = self.rng.uniform(0, 2), self.rng.random() < 0.5
        self.broker.kill()
        self._note(Fault.BROKER, f"away for {away_s:.2f} s and its start, with a worker: {worker_too}")
        self.load.run_for(away_s)
        # A node that has just been killed waits for the broker before it starts a worker.
        if worker_too and self.node.workers_now():
            self._kill_worker()
        began = time.monotonic()
        self.broker.start()
        print(f"the broker is back after {time.monotonic() - began:.1f} s more", flush=True)


def recoveries_s(strikes: Sequence[Strike], times_ms: Sequence[int]) -> dict[Fault, list[float]]:
    """For each strike the seconds until answers flowed again.

    That is the end of the longest pause between two answers that began soon after the strike and before the next one.
    The first answer after a strike tells nothing: it may be one of a process that was not struck.

    Args:
        strikes: in order.
        times_ms: when the answers were made, sorted, in milliseconds since 1970.
    """
    found: dict[Fault, list[float]] = {}
    nexts = [strike.at * 1000 for strike in strikes[1:]] + [float("inf")]
    for strike, until in zip(strikes, nexts, strict=True):
        at = strike.at * 1000
        last = min(at + _SOON_MS, until - _BREATH_MS)
        longest, end, begin = 0.0, at, at
        for moment in times_ms[bisect_left(times_ms, at) :]:
            if moment - begin > longest:
                longest, end = moment - begin, float(moment)
            begin = moment
            if begin > last:
                break
        found.setdefault(strike.fault, []).append((end - at) / 1000)
    return found


def _is_worker(process: psutil.Process) -> bool:
    return "flows.worker" in process.cmdline() and process.name() != fork_server.NAME


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
