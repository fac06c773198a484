"""Levels, CPU over the interval, and the choice between host and control group, on fake machines."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from schemas.payloads.health import SystemHealth
from signalbox.clock import VirtualClock
from signalbox.sensors import SampleContext, SystemHealthSensor
from signalbox.sensors.system_health import PsutilHost
from tests.unit.signalbox.sensors.machines import version_1, version_2, write


class FakeHost:
    def __init__(self, memory: float = 0.1, disk: float = 0.1) -> None:
        self.memory, self.disk = memory, disk
        self.busy_s = self.total_s = 5000.0
        self.disk_path: Path | None = None

    def memory_usage(self):
        return self.memory

    def cpu_times(self):
        return self.busy_s, self.total_s

    def disk_usage(self, path):
        self.disk_path = path
        return self.disk

    def process_count(self):
        return 42


class Machine:
    """A sensor on a fake machine of two cores, with a clock to advance."""

    def __init__(self, root: Path, host: FakeHost | None = None, **settings: Any) -> None:
        self.host = host or FakeHost()
        self.clock = VirtualClock()
        self.context = SampleContext(sensor="system_health", node="n1", data_dir=root / "later/data", clock=self.clock)
        self.sensor = SystemHealthSensor(SystemHealthSensor.Settings(**settings), "n1", root=root, host=self.host)
        self.sensor.start(self.context)

    def sample(self, *, after_s: float = 10.0, busy: float = 0.1) -> tuple[str, SystemHealth]:
        """Let time pass with both cores `busy` by that share, and sample; returns signal type and payload."""
        self.clock.advance(timedelta(seconds=after_s))
        self.host.total_s += 2 * after_s
        self.host.busy_s += 2 * after_s * busy
        [signal] = self.sensor.sample(self.context)
        assert signal.subject == "n1"
        assert signal.source == "sensor/system_health@n1"
        return signal.type, signal.data


@pytest.mark.parametrize(
    ("memory", "cpu", "disk", "level"),
    [
        (0.1, 0.1, 0.1, "normal"),
        (0.79, 0.79, 0.79, "normal"),
        (0.8, 0.1, 0.1, "warning"),
        (0.1, 0.81, 0.1, "warning"),
        (0.1, 0.1, 0.8, "warning"),
        (0.94, 0.94, 0.94, "warning"),
        (0.95, 0.1, 0.1, "critical"),
        (0.1, 0.96, 0.1, "critical"),
        (0.1, 0.9, 1.0, "critical"),
    ],
)
def test_the_worst_of_memory_cpu_and_disk_decides_the_level(tmp_path, memory, cpu, disk, level):
    """At 0.8 it is a warning, at 0.95 critical; the type's last word and the payload agree."""
    kind, health = Machine(tmp_path, FakeHost(memory, disk)).sample(busy=cpu)
    assert (kind, health.level) == (f"system.health.{level}", level)
    assert (health.memory_usage, health.cpu_usage, health.disk_usage) == pytest.approx((memory, cpu, disk))


def test_thresholds_can_be_set_one_by_one(tmp_path):
    """Each metric has its own warning threshold; the critical one is shared."""
    kind, _ = Machine(tmp_path, FakeHost(memory=0.5), memory_threshold=0.4).sample()
    assert kind == "system.health.warning"
    kind, _ = Machine(tmp_path, FakeHost(memory=0.85), critical_threshold=0.85).sample()
    assert kind == "system.health.critical"


@pytest.mark.parametrize("wrong", [{"critical_threshold": 0.7}, {"memory_threshold": 80}, {"cpu_threshold": 0}])
def test_thresholds_that_make_no_sense_are_refused(wrong):
    """Percentages, zero, and a critical threshold below a warning one are mistakes."""
    with pytest.raises(ValidationError):
        SystemHealthSensor.Settings(**wrong)


def test_the_interval_is_ten_seconds_unless_set():
    """The documented default."""
    assert SystemHealthSensor.Settings().interval_s == 10


def test_cpu_is_that_of_the_interval_between_samples(tmp_path):
    """Each sample looks back to the one before, the first to the start; the past does not linger."""
    machine = Machine(tmp_path)
    seen = [machine.sample(busy=busy, after_s=after)[1].cpu_usage for busy, after in [(0.9, 1), (0.3, 10), (0.0, 5)]]
    assert seen == pytest.approx([0.9, 0.3, 0.0])


def test_two_samples_within_a_clock_tick_say_the_same(tmp_path):
    """When no CPU time was counted yet, the last value stands, instead of a division by zero or a false zero."""
    machine = Machine(tmp_path)
    _, first = machine.sample(busy=0.5)
    _, second = machine.sample(after_s=0)
    assert second.cpu_usage == first.cpu_usage == 0.5


def test_process_count_and_time_are_in_the_payload(tmp_path):
    """The seed's fields are all there, with the time of the injected clock."""
    machine = Machine(tmp_path)
    _, health = machine.sample()
    assert (health.process_count, health.timestamp) == (42, machine.clock.now())


def test_without_limits_the_host_is_what_counts(tmp_path):
    """On a machine without control groups the payload says host."""
    _, health = Machine(tmp_path).sample()
    assert (health.memory_scope, health.cpu_scope) == ("host", "host")


def test_a_tight_memory_limit_is_critical_on_an_idle_host(tmp_path):
    """A container at its limit is in trouble though the host has plenty."""
    root = version_2(tmp_path, "/", {"memory.max": 1000, "memory.current": 970, "memory.stat": "inactive_file 0"})
    kind, health = Machine(root).sample()
    assert (kind, health.memory_usage, health.memory_scope) == ("system.health.critical", 0.97, "cgroup")
    assert health.cpu_scope == "host"


def test_a_full_host_counts_inside_a_roomy_container(tmp_path):
    """The tighter of the two views is taken, whichever it is."""
    root = version_2(tmp_path, "/", {"memory.max": 1000, "memory.current": 100, "memory.stat": ""})
    _, health = Machine(root, FakeHost(memory=0.9)).sample()
    assert (health.memory_usage, health.memory_scope) == (0.9, "host")


def test_a_cpu_quota_is_measured_against_the_time_between_samples(tmp_path):
    """Half a core used for ten seconds under a quota of 0.6 cores is 5/6, on a host that is idle."""
    files = {"cpu.max": "60000 100000", "cpu.stat": "usage_usec 7000000"}
    machine = Machine(version_2(tmp_path, "/", files))
    write(tmp_path, {"sys/fs/cgroup/cpu.stat": "usage_usec 12000000"})
    kind, health = machine.sample(busy=0.25)
    assert (kind, health.cpu_scope) == ("system.health.warning", "cgroup")
    assert health.cpu_usage == pytest.approx(5 / 6)
    _, health = machine.sample(busy=0.25)
    assert (health.cpu_usage, health.cpu_scope) == (0.25, "host")


def test_a_cpu_quota_of_version_1_works_alike(tmp_path):
    """The older files give the same ratio."""
    files = {"cpu,cpuacct/cpu.cfs_quota_us": 60000, "cpu,cpuacct/cpu.cfs_period_us": 100000}
    root = version_1(tmp_path, {"cpu,cpuacct": "/"}, {**files, "cpu,cpuacct/cpuacct.usage": 7_000_000_000})
    machine = Machine(root)
    write(tmp_path, {"sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": 12_000_000_000})
    _, health = machine.sample()
    assert (health.cpu_usage, health.cpu_scope) == (pytest.approx(5 / 6), "cgroup")


def test_a_quota_that_appears_later_counts_from_its_second_sample(tmp_path):
    """A limit set on a running container has no past to compare with, and then it has."""
    machine = Machine(version_2(tmp_path, "/", {}))
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "100000 100000", "sys/fs/cgroup/cpu.stat": "usage_usec 9000000"})
    assert machine.sample()[1].cpu_scope == "host"
    write(tmp_path, {"sys/fs/cgroup/cpu.stat": "usage_usec 18000000"})
    assert machine.sample()[1].cpu_usage == pytest.approx(0.9)


def test_ratios_stay_within_0_and_1(tmp_path):
    """Bursts above a quota are full, not an invalid payload."""
    machine = Machine(version_2(tmp_path, "/", {"cpu.max": "10000 100000", "cpu.stat": "usage_usec 0"}))
    write(tmp_path, {"sys/fs/cgroup/cpu.stat": "usage_usec 99000000"})
    assert machine.sample()[1].cpu_usage == 1


def test_the_disk_is_the_data_directorys_even_before_that_exists(tmp_path):
    """The nearest folder that exists is on the same file system; a path can be given instead."""
    machine = Machine(tmp_path)
    machine.sample()
    assert machine.host.disk_path == tmp_path
    other = tmp_path / "other"
    other.mkdir()
    machine = Machine(tmp_path, disk_path=other)
    machine.sample()
    assert machine.host.disk_path == other


def test_the_real_host_is_read_plausibly(tmp_path):
    """On this very machine every number is in range and agrees with an independent look."""
    host = PsutilHost()
    assert 0 < host.memory_usage() < 1
    assert host.memory_usage() == pytest.approx(psutil.virtual_memory().percent / 100, abs=0.1)
    assert 0 < host.disk_usage(tmp_path) <= 1
    assert host.process_count() >= 1
    busy, total = host.cpu_times()
    assert 0 < busy < total
