"""What a sensor's author and a sensor's user rely on: settings, names and the signals that a context makes."""

from pathlib import Path
from typing import Any

import pytest

from signalbox.clock import VirtualClock
from signalbox.config import Settings
from signalbox.errors import ConfigError
from signalbox.sensors import BUILTIN_SENSORS, SampleContext, Sensor
from signalbox.sensors.contract import build_sensors


class Door(Sensor):
    name = "door"

    class Settings(Sensor.Settings):
        path: Path = Path("/door")
        limit: float = 0.5

    def sample(self, context):
        return [context.signal("door.open")]


def settings(**sensors: Any) -> Settings:
    return Settings.model_validate({"node": {"name": "n1"}, "sensors": sensors})


def test_a_sensor_gets_its_own_settings_and_the_nodes_name():
    """What stands under `sensors.<name>` arrives typed, the rest has its default."""
    [door] = build_sensors([Door], settings(door={"limit": "0.7", "interval_s": 2}))
    assert isinstance(door.settings, Door.Settings)
    assert (door.settings.limit, door.settings.interval_s, door.settings.path) == (0.7, 2.0, Path("/door"))
    assert door.node == "n1"


def test_a_sensor_without_settings_has_its_defaults():
    """Nothing needs to be configured."""
    [door] = build_sensors([Door], settings())
    assert door.settings == Door.Settings()


def test_an_interval_that_is_not_set_is_the_sensors_own():
    """Setting something else leaves it alone."""
    [door] = build_sensors([Door], settings(door={"limit": 1}))
    assert door.settings.interval_s == 10


def test_a_disabled_sensor_is_not_made():
    """`enabled = false` switches it off, whatever else is set."""
    assert build_sensors([Door], settings(door={"enabled": False, "limit": 1})) == []


def test_an_unknown_key_names_the_sensor_and_the_keys_it_has():
    """A slip in a sensor's settings is an error that says what would be right."""
    with pytest.raises(ConfigError, match=r"sensors\.door\.limt") as caught:
        build_sensors([Door], settings(door={"limt": 1}))
    assert caught.value.hint is not None
    assert "door" in caught.value.hint
    assert all(key in caught.value.hint for key in ("enabled", "interval_s", "timeout_s", "path", "limit"))


def test_a_value_that_does_not_fit_is_shown():
    """The message holds key and value."""
    with pytest.raises(ConfigError, match=r"sensors\.door\.limit.*'wide'"):
        build_sensors([Door], settings(door={"limit": "wide"}))


def test_settings_for_a_sensor_that_is_not_there_are_an_error():
    """A misspelt sensor name is never ignored; the hint lists those there are."""
    with pytest.raises(ConfigError, match="dor") as caught:
        build_sensors([Door], settings(dor={"limit": 1}))
    assert caught.value.hint == "the app's sensors are: door"


def test_two_sensors_cannot_share_a_name():
    """Their settings and their source would be one."""
    other = type("Other", (Door,), {})
    with pytest.raises(ConfigError, match="two sensors are named 'door'"):
        build_sensors([Door, other], settings())


@pytest.mark.parametrize("thing", [Sensor, Door(Door.Settings(), "n"), object, type("Odd", (Door,), {"name": "a b"})])
def test_what_is_no_named_sensor_class_is_refused(thing):
    """A base class, an instance or a nameless thing in an app's list is a configuration error, not a crash later."""
    with pytest.raises(ConfigError, match="not a sensor with a name"):
        build_sensors([thing], settings())


def test_a_signal_says_which_sensor_where_when_and_about_what():
    """Source, subject, time and a fresh id come from the context."""
    clock = VirtualClock()
    context = SampleContext(sensor="door", node="n1", clock=clock)
    first, second = context.signal("door.open", {"a": 1}), context.signal("door.open", subject="room-7")
    assert (first.source, first.subject, first.time, first.data) == ("sensor/door@n1", "n1", clock.now(), {"a": 1})
    assert second.subject == "room-7"
    assert first.id != second.id


def test_shipped_sensors_can_be_built_from_default_settings():
    """The app without any configuration has the health, the usage and the load sensor."""
    assert [sensor.name for sensor in build_sensors(BUILTIN_SENSORS, settings())] == [
        "system_health",
        "resource_usage",
        "load",
    ]
