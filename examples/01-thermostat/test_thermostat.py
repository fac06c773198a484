from thermostat import app

from signalbox.agents import minutes
from signalbox.testing import Harness


def test_a_cold_room_is_heated_for_five_minutes():
    """However often it is told that the room is cold, it heats once, and stops after five minutes."""
    harness = Harness(app)
    for celsius in (19, 15, 14):
        harness.send("room.temperature", {"celsius": celsius}, subject="kitchen")
    assert [signal.type for signal in harness.emitted("heating.**")] == ["heating.on"]
    harness.advance(minutes(5))
    assert [signal.type for signal in harness.emitted("heating.**")] == ["heating.on", "heating.off"]
    assert harness.state("thermostat:kitchen").heating is False


def test_every_room_has_its_own_thermostat():
    """A reading of one room says nothing about another."""
    harness = Harness(app)
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    harness.send("room.temperature", {"celsius": 21}, subject="bath")
    assert [signal.subject for signal in harness.emitted("heating.on")] == ["kitchen"]


def test_the_timer_survives_a_crash():
    """A thermostat that is restored from its snapshot still stops heating in time."""
    harness = Harness(app)
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    harness.restart()
    harness.advance(minutes(5))
    assert [signal.type for signal in harness.emitted("heating.**")] == ["heating.on", "heating.off"]
