"""Measures what each process of this system uses: memory, CPU, file descriptors, threads, as `application.metrics`.

The system is the supervisor's process tree. Started by hand, without a supervisor, it is this process and its children.
Processes come and go while they are looked at: one that is gone, or that may not be looked at, is left out.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil

from schemas.payloads.health import ResourceUsage
from schemas.signal import Signal
from signalbox.sensors.contract import SampleContext, Sensor
from signalbox.supervision import fork_server
from signalbox.supervision.parent import PARENT_VARIABLE

Processes = Callable[[], Sequence[psutil.Process]]
_Identity = tuple[int, float]
"""Process id and start time, because ids are used again."""
#: A process younger than this is measured as if it were this old: what it used in its first moment says nothing.
_YOUNGEST_S = 0.1


def process_tree() -> list[psutil.Process]:
    """The processes of this system, its root first."""
    parent = os.environ.get(PARENT_VARIABLE)
    root = psutil.Process(int(parent) if parent else None)
    return [root, *root.children(recursive=True)]


def role(command: Sequence[str], name: str) -> str:
    """What a process is to the system, such as `agents-0`, told by its command line; else its executable's name."""
    words = list(command)
    if "flows.worker" in words and fork_server.OPTION not in words:
        flow = words[words.index("flows.worker") + 1 :][:1]
        index = words[words.index("--index") + 1 :][:1] if "--index" in words else []
        return "-".join([*(flow or ["worker"]), *index])
    if "signalbox.sensors" in words:
        return "sensors"
    if name.startswith("tansu") or "kafka.Kafka" in words:
        return "broker"
    # Processes may rename themselves, and a subject may not hold control characters.
    return re.sub(r"[^A-Za-z0-9._-]", "_", name) or "unnamed"


class ResourceUsageSensor(Sensor):
    """Signals `application.metrics` with a `ResourceUsage` payload per process; the subject is `<node>/<role>`."""

    name = "resource_usage"

    def __init__(self, settings: Sensor.Settings, node: str, *, processes: Processes = process_tree) -> None:
        super().__init__(settings, node)
        self._processes = processes
        self._cpu_s: dict[_Identity, float] = {}
        self._measured_at = 0.0

    def sample(self, context: SampleContext) -> Iterator[Signal[Any]]:
        now = context.monotonic()
        elapsed = now - self._measured_at
        before, self._cpu_s, self._measured_at = self._cpu_s, {}, now
        supervised = PARENT_VARIABLE in os.environ
        for position, process in enumerate(self._processes()):
            try:
                usage = self._usage(process, before, elapsed, context)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if usage is None:
                continue
            if supervised and position == 0:
                usage = usage.model_copy(update={"name": "supervisor"})
            yield context.signal("application.metrics", usage, subject=f"{self.node}/{usage.name}")

    def _usage(
        self, process: psutil.Process, before: dict[_Identity, float], elapsed: float, context: SampleContext
    ) -> ResourceUsage | None:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            times = process.cpu_times()
            identity = (process.pid, process.create_time())
            cpu_s = times.user + times.system
            self._cpu_s[identity] = cpu_s
            if identity in before and elapsed > 0:
                used_s, during_s = cpu_s - before[identity], elapsed
            else:
                used_s, during_s = cpu_s, context.now().timestamp() - process.create_time()
            return ResourceUsage(
                name=role(process.cmdline(), process.name()),
                pid=process.pid,
                rss_bytes=process.memory_info().rss,
                cpu_ratio=max(0.0, used_s) / max(_YOUNGEST_S, during_s),
                open_fds=_open_fds(process),
                threads=process.num_threads(),
                timestamp=context.now(),
            )


def _open_fds(process: psutil.Process) -> int | None:
    try:
        return process.num_fds()
    except psutil.AccessDenied:
        return None
