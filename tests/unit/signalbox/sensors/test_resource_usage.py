"""Roles, rates and vanishing processes, with stand-ins for `psutil.Process` and with this very process."""

import os
import subprocess
import sys
from collections import namedtuple
from contextlib import nullcontext
from datetime import timedelta

import psutil
import pytest

from signalbox.clock import VirtualClock
from signalbox.sensors import ResourceUsageSensor, SampleContext
from signalbox.sensors.resource_usage import process_tree, role
from signalbox.supervision.parent import PARENT_VARIABLE

Times = namedtuple("Times", "user system")  # as psutil makes them
Memory = namedtuple("Memory", "rss")
WORKER = ["python", "-m", "flows.worker", "agents", "--index", "0"]


class FakeProcess:
    def __init__(self, pid, command, *, created, name="python", cpu_s=0.0):
        self.pid, self._command, self._name, self._created = pid, command, name, created
        self.cpu_s = cpu_s
        self.raises: dict[str, Exception] = {}
        self.zombie = False

    def __getattribute__(self, attribute):
        raises = object.__getattribute__(self, "__dict__").get("raises", {})
        if attribute in raises:
            raise raises[attribute]
        return object.__getattribute__(self, attribute)

    def oneshot(self):
        return nullcontext()

    def status(self):
        return psutil.STATUS_ZOMBIE if self.zombie else psutil.STATUS_SLEEPING

    def cpu_times(self):
        return Times(self.cpu_s * 0.75, self.cpu_s * 0.25)

    def create_time(self):
        return self._created

    def cmdline(self):
        return self._command

    def name(self):
        return self._name

    def memory_info(self):
        return Memory(1_000_000 * self.pid)

    def num_fds(self):
        return 7

    def num_threads(self):
        return 3


class System:
    """A sensor that looks at stand-ins, on a clock to advance."""

    def __init__(self, *processes):
        self.processes = list(processes)
        self.clock = VirtualClock()
        self.context = SampleContext(sensor="resource_usage", node="n1", clock=self.clock)
        self.sensor = ResourceUsageSensor(ResourceUsageSensor.Settings(), "n1", processes=lambda: list(self.processes))

    def add(self, pid, command=WORKER, *, age_s=100.0, **options):
        process = FakeProcess(pid, command, created=self.clock.now().timestamp() - age_s, **options)
        self.processes.append(process)
        return process

    def sample(self, after_s=10.0):
        self.clock.advance(timedelta(seconds=after_s))
        return list(self.sensor.sample(self.context))

    def pids(self):
        return [signal.data.pid for signal in self.sample()]


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [
        (["/v/bin/python", "-m", "flows.worker", "agents", "--index", "3"], "python", "agents-3"),
        (["python", "-m", "flows.worker", "agents", "--index", "0", "--addresses", "a:1,b:2"], "python", "agents-0"),
        (["python", "-m", "flows.worker", "agents"], "python", "agents"),
        (["python", "-m", "flows.worker"], "python", "worker"),
        (["python", "-m", "flows.worker", "agents", "--index"], "python", "agents"),
        (["python", "-m", "signalbox.sensors"], "python", "sensors"),
        (["/x/tansu-v0.6.0-510f3e2", "broker", "--cluster-id", "c"], "tansu-v0.6.0-510f3e2", "broker"),
        (["java", "-Xmx1g", "-cp", "x", "kafka.Kafka", "server.properties"], "java", "broker"),
        (["ffmpeg", "-i", "x"], "ffmpeg", "ffmpeg"),
        ([], "kworker/0:1 \x07", "kworker_0_1__"),
        ([], "", "unnamed"),
    ],
)
def test_a_role_is_told_by_the_command_line(command, name, expected):
    """Processes of this system have the names that the other tools use; the rest have their executable's."""
    assert role(command, name) == expected


def test_each_process_is_one_signal_about_node_and_role():
    """Subject, type and payload of a worker."""
    system = System()
    system.add(5)
    [signal] = system.sample()
    assert (signal.type, signal.subject, signal.source) == (
        "application.metrics",
        "n1/agents-0",
        "sensor/resource_usage@n1",
    )
    usage = signal.data
    assert (usage.pid, usage.rss_bytes, usage.open_fds, usage.threads) == (5, 5_000_000, 7, 3)
    assert usage.timestamp == system.clock.now()


def test_cpu_is_that_of_the_interval_and_of_a_new_process_since_its_birth():
    """Cores in use since the last sample; a process that was not there then is measured over its life."""
    system = System()
    old = system.add(5, age_s=90, cpu_s=50)
    assert system.sample()[0].data.cpu_ratio == pytest.approx(0.5)
    old.cpu_s += 15
    system.add(6, age_s=0, cpu_s=2)
    assert [signal.data.cpu_ratio for signal in system.sample()] == pytest.approx([1.5, 0.2])


def test_a_process_id_that_is_used_again_is_another_process():
    """The successor does not inherit, nor subtract, its predecessor's CPU time."""
    system = System()
    system.add(5, cpu_s=1000)
    system.sample()
    system.processes.clear()
    system.add(5, age_s=0, cpu_s=1)
    assert system.sample()[0].data.cpu_ratio == pytest.approx(0.1)


def test_what_is_gone_is_forgotten():
    """Memory does not grow with every process that ever was."""
    system = System()
    for pid in range(1, 50):
        system.processes.clear()
        system.add(pid)
        system.sample()
    assert len(system.sensor._cpu_s) == 1


@pytest.mark.parametrize("call", ["status", "cpu_times", "cmdline", "name", "memory_info", "num_fds", "num_threads"])
def test_a_process_that_vanishes_during_the_look_is_left_out(call):
    """Whichever question finds it gone, the others are still reported."""
    system = System()
    system.add(5)
    system.add(6).raises[call] = psutil.NoSuchProcess(6)
    system.add(7)
    assert system.pids() == [5, 7]


def test_a_zombie_is_left_out():
    """It uses nothing any more."""
    system = System()
    system.add(5).zombie = True
    system.add(6).raises["cmdline"] = psutil.ZombieProcess(6)
    assert system.pids() == []


def test_a_process_that_may_not_be_looked_at_is_left_out():
    """Another user's process is no error."""
    system = System()
    system.add(5).raises["memory_info"] = psutil.AccessDenied(5)
    system.add(6)
    assert system.pids() == [6]


def test_file_descriptors_that_may_not_be_counted_are_null():
    """The rest of the reading stands."""
    system = System()
    system.add(5).raises["num_fds"] = psutil.AccessDenied(5)
    assert [signal.data.open_fds for signal in system.sample()] == [None]


def test_the_root_of_a_supervised_tree_is_the_supervisor(monkeypatch):
    """Whatever its command line looks like, and it alone."""
    monkeypatch.setenv(PARENT_VARIABLE, "4")
    system = System()
    system.add(4, ["python", "my_own_start.py"])
    system.add(5)
    assert [signal.subject for signal in system.sample()] == ["n1/supervisor", "n1/agents-0"]


def test_the_system_is_the_supervisors_tree_else_this_process_and_its_children(monkeypatch):
    """On this very machine: a child is found, and with a supervisor named, its tree is the one that is walked."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        tree = [process.pid for process in process_tree()]
        assert tree[0] == os.getpid()
        assert child.pid in tree
        monkeypatch.setenv(PARENT_VARIABLE, str(child.pid))
        assert [process.pid for process in process_tree()] == [child.pid]
    finally:
        child.communicate(b"\n")


def test_this_process_is_read_plausibly():
    """Real numbers of the process that runs this test."""
    sensor = ResourceUsageSensor(ResourceUsageSensor.Settings(), "n1")
    usages = [signal.data for signal in sensor.sample(SampleContext(sensor="resource_usage", node="n1"))]
    [own] = [usage for usage in usages if usage.pid == os.getpid()]
    assert own.rss_bytes > 10_000_000
    assert own.threads >= 1
    assert own.open_fds is None or own.open_fds >= 3
    assert 0 <= own.cpu_ratio < 64
