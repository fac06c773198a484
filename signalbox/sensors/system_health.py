"""Measures this machine's health: memory, CPU, disk and the number of processes, as `system.health.<level>` signals.

Inside a container the machine's own numbers mislead: a process may be at its limit on an idle host. So memory and CPU
are measured against the host and against every control group limit, and the tightest counts; the payload says which.
A reading is a moment's view and may flap around a threshold: hysteresis is the business of the monitor agents.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import psutil
from pydantic import Field, model_validator

from schemas.payloads.health import SystemHealth
from schemas.signal import Signal
from signalbox.sensors.cgroups import ControlGroups
from signalbox.sensors.contract import SampleContext, Sensor

Level = Literal["normal", "warning", "critical"]
Scope = Literal["host", "cgroup"]
Threshold = Annotated[float, Field(gt=0, le=1)]


class Host(Protocol):
    """What is asked of the whole machine."""

    def memory_usage(self) -> float:
        """Share of memory that cannot be had without swapping, 0 to 1."""
        ...

    def cpu_times(self) -> tuple[float, float]:
        """(busy, total) CPU seconds of all cores since boot."""
        ...

    def disk_usage(self, path: Path) -> float:
        """Share of the file system of `path` that users cannot fill any more, 0 to 1."""
        ...

    def process_count(self) -> int: ...


class PsutilHost:
    """This machine, through psutil."""

    def memory_usage(self) -> float:
        memory = psutil.virtual_memory()
        return 1 - memory.available / memory.total

    def cpu_times(self) -> tuple[float, float]:
        # psutil.cpu_percent() remembers its last call per thread, so from a fresh thread it would always say 0.
        times = psutil.cpu_times()
        # Linux counts guests in `user` and `nice` as well.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return total - times.idle - getattr(times, "iowait", 0.0), total

    def disk_usage(self, path: Path) -> float:
        return psutil.disk_usage(str(path)).percent / 100

    def process_count(self) -> int:
        return len(psutil.pids())


class SystemHealthSensor(Sensor):
    """Signals `system.health.normal`, `.warning` or `.critical`, with a `SystemHealth` payload; subject: the node.

    The worst of memory, CPU and disk decides the level. A value at its threshold has reached it.
    """

    name = "system_health"

    class Settings(Sensor.Settings):
        """Thresholds are ratios, 0 to 1."""

        memory_threshold: Threshold = 0.8
        """A ratio from which on memory in use is a warning."""
        cpu_threshold: Threshold = 0.8
        """Likewise for CPU time."""
        disk_threshold: Threshold = 0.8
        """Likewise for space on the watched file system."""
        critical_threshold: Threshold = 0.95
        """A ratio from which on any of the three is critical; at least as high as each of theirs."""
        disk_path: Path | None = None
        """Any path on the file system to watch. None: the data directory's."""

        @model_validator(mode="after")
        def _critical_is_highest(self) -> Self:
            if self.critical_threshold < max(self.memory_threshold, self.cpu_threshold, self.disk_threshold):
                msg = "critical_threshold lies below another threshold"
                raise ValueError(msg)
            return self

    settings: Settings

    def __init__(self, settings: Settings, node: str, *, root: Path = Path("/"), host: Host | None = None) -> None:
        super().__init__(settings, node)
        self._groups = ControlGroups(root)
        self._host = host or PsutilHost()
        self._host_cpu = (0.0, 0.0)
        self._group_cpu: dict[Path, float] = {}
        self._measured_at = 0.0
        self._cpu: tuple[float, Scope] = (0.0, "host")

    def start(self, context: SampleContext) -> None:
        """Note the CPU counters, so that the first sample has an interval to look back on."""
        self._host_cpu = self._host.cpu_times()
        self._group_cpu = {group.path: group.used_s for group in self._groups.cpu()}
        self._measured_at = context.monotonic()

    def sample(self, context: SampleContext) -> Iterator[Signal[Any]]:
        memory, memory_scope = self._memory()
        cpu, cpu_scope = self._cpu_since_last(context.monotonic())
        disk = self._host.disk_usage(_existing(self.settings.disk_path or context.data_dir))
        level = self._level(memory, cpu, disk)
        health = SystemHealth(
            memory_usage=memory,
            cpu_usage=cpu,
            disk_usage=disk,
            process_count=self._host.process_count(),
            timestamp=context.now(),
            level=level,
            memory_scope=memory_scope,
            cpu_scope=cpu_scope,
        )
        yield context.signal(f"system.health.{level}", health)

    def _memory(self) -> tuple[float, Scope]:
        groups = [group.ratio for group in self._groups.memory()]
        return _tightest(self._host.memory_usage(), groups)

    def _cpu_since_last(self, now: float) -> tuple[float, Scope]:
        elapsed = now - self._measured_at
        before, self._host_cpu = self._host_cpu, self._host.cpu_times()
        busy, total = (new - old for new, old in zip(self._host_cpu, before, strict=True))
        groups = self._groups.cpu()
        if total <= 0 or elapsed <= 0:
            return self._cpu  # two samples within a clock tick: nothing new to say
        shares = [
            (group.used_s - self._group_cpu[group.path]) / (elapsed * group.cores)
            for group in groups
            if group.path in self._group_cpu
        ]
        self._group_cpu = {group.path: group.used_s for group in groups}
        self._measured_at = now
        self._cpu = _tightest(busy / total, shares)
        return self._cpu

    def _level(self, memory: float, cpu: float, disk: float) -> Level:
        limits = self.settings
        if max(memory, cpu, disk) >= limits.critical_threshold:
            return "critical"
        if memory >= limits.memory_threshold or cpu >= limits.cpu_threshold or disk >= limits.disk_threshold:
            return "warning"
        return "normal"


def _tightest(host: float, groups: list[float]) -> tuple[float, Scope]:
    """The highest ratio, kept within 0 to 1, and whose it is. Counters are read one by one, so they can overshoot."""
    tightest = max(groups, default=0.0)
    ratio, scope = (tightest, "cgroup") if tightest > host else (host, "host")
    return min(1.0, max(0.0, ratio)), scope  # type: ignore[return-value]  # mypy widens the literals


def _existing(path: Path) -> Path:
    """`path`, or its nearest parent that exists: the data directory may not be there yet."""
    path = path.resolve()
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())
