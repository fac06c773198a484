"""Sensors look at the world and say what they see, as signals. The contract is in `contract.py`."""

from signalbox.sensors.contract import SampleContext, Sensor
from signalbox.sensors.load import LoadSensor
from signalbox.sensors.resource_usage import ResourceUsageSensor
from signalbox.sensors.system_health import SystemHealthSensor

BUILTIN_SENSORS: tuple[type[Sensor], ...] = (SystemHealthSensor, ResourceUsageSensor, LoadSensor)

__all__ = ["BUILTIN_SENSORS", "LoadSensor", "ResourceUsageSensor", "SampleContext", "Sensor", "SystemHealthSensor"]
