"""`python -m signalbox.sensors` as the supervisor starts and ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from schemas.payloads.health import ResourceUsage, SystemHealth
from signalbox.config import resolved_environment
from signalbox.supervision import inspection
from signalbox.supervision.parent import PARENT_VARIABLE
from tests.integration.sensors.conftest import ask_status
from tests.support.eventually import eventually

#: Fast, so that a test takes seconds; the machine under test may be busy, so thresholds play no part.
SENSORS = {
    "system_health": {"interval_s": 0.3},
    "resource_usage": {"interval_s": 0.3},
    "load": {"enabled": False},
}

HANGING_APP = '''
import time
from types import SimpleNamespace
from signalbox.sensors import Sensor

class Hanging(Sensor):
    """Never comes back."""
    name = "hanging"
    def sample(self, context):
        yield context.signal("hanging.begun")
        time.sleep(3600)

class Failing(Sensor):
    """Fails at every second sample."""
    name = "failing"
    calls = 0
    def sample(self, context):
        self.calls += 1
        if self.calls % 2:
            raise OSError("no such thing")
        yield context.signal("failing.worked")

app = SimpleNamespace(sensors=[Hanging, Failing])
'''


def test_readings_of_this_machine_reach_the_broker(broker, start_sensors, tmp_path):
    """Both shipped sensors read plausible values here, the status says so, and SIGTERM ends the process with 0."""
    sensors = start_sensors(broker.settings(tmp_path / "data", sensors=SENSORS))
    eventually(lambda: [each["samples"] >= 3 for each in sensors.status().values()] == [True, True], timeout_s=30)
    found = sensors.status()
    assert found.keys() == {"system_health", "resource_usage"}
    for sensor in found.values():
        assert (sensor["errors"], sensor["dropped"], sensor["last_error"], sensor["interval_s"]) == (0, 0, None, 0.3)
        assert sensor["last_success"]

    assert sensors.terminate() == 0
    assert not inspection.socket_path(sensors.data_dir, "sensors").exists()
    arrived = broker.signals()
    health = [signal for signal in arrived if signal.type.startswith("system.health.")]
    assert len(health) >= 3
    assert len({signal.id for signal in arrived}) == len(arrived)
    assert {(signal.source, signal.subject) for signal in health} == {("sensor/system_health@n1", "n1")}
    for reading in (SystemHealth.model_validate(made.data) for made in health):
        assert 0 < reading.memory_usage < 1
        assert 0 <= reading.cpu_usage <= 1
        assert 0 < reading.disk_usage <= 1
        assert reading.process_count >= 2
        assert reading.memory_scope in ("host", "cgroup")
    assert any(signal.data["cpu_usage"] > 0 for signal in health), "cpu is over the interval, not an instant's 0"

    usages = {signal.subject: ResourceUsage.model_validate(signal.data) for signal in arrived if signal not in health}
    assert usages["n1/sensors"].pid == sensors.process.pid
    assert usages["n1/sensors"].rss_bytes > 10_000_000
    assert usages["n1/supervisor"].pid == os.getpid()
    assert usages["n1/broker"].pid in {child.pid for child in psutil.Process().children(recursive=True)}


def test_it_starts_without_a_broker_and_delivers_when_there_is_one(broker, start_sensors, tmp_path):
    """A broker that comes later gets what was sampled before it came."""
    broker.stop()
    sensors = start_sensors(broker.settings(tmp_path / "data", sensors=SENSORS))
    eventually(sensors.status, timeout_s=30)
    eventually(lambda: sensors.status()["system_health"]["samples"] >= 5, timeout_s=30)
    before = sensors.status()["system_health"]["last_success"]
    broker.restart()
    assert sensors.terminate() == 0
    health = [signal for signal in broker.signals() if signal.type.startswith("system.health.")]
    assert len({signal.id for signal in health}) >= 5
    assert min(signal.time for signal in health).isoformat() < before


def test_a_hanging_and_a_failing_sensor_hold_up_nothing(broker, start_sensors, tmp_path):
    """Their errors are in status and log, other samples arrive, and the process still ends with 0 in time."""
    (tmp_path / "hanging_app.py").write_text(HANGING_APP)
    settings = broker.settings(
        tmp_path / "data",
        node={"app": "hanging_app:app"},
        sensors={"hanging": {"interval_s": 0.2, "timeout_s": 0.3}, "failing": {"interval_s": 0.2}},
        supervision={"drain_timeout_s": 5},
    )
    sensors = start_sensors(settings, python_path=tmp_path)
    eventually(sensors.status, timeout_s=30)

    def both_reported():
        status = sensors.status()
        return status["failing"]["samples"] >= 2 and status["failing"]["errors"] and status["hanging"]["errors"] >= 2

    eventually(both_reported, timeout_s=30)
    assert sensors.terminate(timeout_s=5) == 0
    assert {signal.type for signal in broker.signals()} == {"hanging.begun", "failing.worked"}
    failures = {record["sensor"]: record for record in sensors.logged() if record["event"] == "a sensor failed"}
    assert failures["failing"]["error"] == "OSError: no such thing"
    assert "hanging" in failures


def test_a_wrong_sensor_setting_ends_it_with_the_code_of_bad_config(broker, start_sensors, tmp_path):
    """The log names the sensor, the key and the keys there are; nothing is started."""
    settings = broker.settings(tmp_path / "data", sensors={"system_health": {"memory_treshold": 0.5}})
    sensors = start_sensors(settings)
    assert sensors.process.wait(30) == 3
    [record] = sensors.logged()
    assert "sensors.system_health.memory_treshold" in record["error"]
    assert "memory_threshold" in record["hint"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the parent is polled")
def test_it_dies_with_its_supervisor(broker, tmp_path):
    """When the supervisor is killed, the sensor process is gone at once."""
    settings = broker.settings(tmp_path / "data", sensors=SENSORS)
    environment = {**os.environ, **resolved_environment(settings, tmp_path / "data" / "run" / "settings.json")}
    starter = (
        "import os, subprocess, sys\n"
        f"os.environ[{PARENT_VARIABLE!r}] = str(os.getpid())\n"
        "child = subprocess.Popen([sys.executable, '-m', 'signalbox.sensors'], stderr=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    environment["PYTHONPATH"] = str(Path.cwd())
    with subprocess.Popen([sys.executable, "-c", starter], env=environment, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        child = psutil.Process(int(supervisor.stdout.readline()))
        try:
            eventually(lambda: ask_status(settings.node.data_dir), timeout_s=30)
            supervisor.send_signal(signal.SIGKILL)
            supervisor.wait()
            eventually(lambda: gone(child), timeout_s=5)
        finally:
            if not gone(child):
                child.kill()


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
