"""The harness that users test their agents with."""

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Schedule, minutes, on, seconds
from signalbox.app import App
from signalbox.errors import NotFound
from signalbox.testing import Harness
from tests.unit.signalbox.agents.examples import harness_of


class Thermostat(Agent):
    """Heats a room below 18 degrees Celsius."""

    class State(AgentState):
        heating: bool = False

    @on("room.temperature")
    def measured(self, state: State, signal: Signal[dict[str, float]]) -> Iterator[Directive]:
        if (signal.data or {})["celsius"] < 18 and not state.heating:
            state.heating = True
            yield Emit("heating.on")
            yield Schedule("heating.check", minutes(5))

    @on("heating.check")
    def check(self, state: State, signal: Signal[Any]) -> Iterator[Directive]:
        state.heating = False
        yield Emit("heating.off")
        yield Emit("alert.checked")


class Listener(Agent):
    """Hears what others tell."""

    class State(AgentState):
        heard: list[str] = []  # noqa: RUF012

    @on("heating.*")
    @on("alert.*")
    def hear(self, state: State, signal: Signal[Any]) -> None:
        state.heard.append(signal.type)


def test_the_example_of_the_documentation_works() -> None:
    """Sending, letting time pass and looking at what was emitted is all that a test needs."""
    harness = harness_of(Thermostat)
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    harness.send("room.temperature", {"celsius": 14}, subject="kitchen")
    harness.advance(minutes(5))
    assert [signal.type for signal in harness.emitted("heating.**")] == ["heating.on", "heating.off"]
    assert harness.state("thermostat:kitchen").heating is False


def test_agents_hear_each_other() -> None:
    """What one agent emits on a topic that agents listen to reaches the others within the same call."""
    harness = harness_of(Thermostat, Listener)
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    assert harness.state("listener:kitchen").heard == ["heating.on"]
    harness.advance(minutes(5))
    assert harness.state("listener:kitchen").heard == ["heating.on", "heating.off", "alert.checked"]


def test_emitted_can_be_narrowed() -> None:
    """`emitted` selects by pattern and topic, and leaves telemetry and dead letters to those who ask for them."""
    harness = Harness(App(agents=[Thermostat]))
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    harness.send("room.temperature", {"kelvin": 1}, subject="kitchen")
    assert {signal.type for signal in harness.emitted(topic="registry")} == {"agent.registered"}
    assert [signal.type for signal in harness.emitted("heating.*", topic="signals")] == ["heating.on"]
    assert not harness.emitted("agent.error")
    assert len(harness.emitted("agent.error", topic="telemetry")) == 1
    assert len(harness.dead_letters) == 1


def test_time_passes_only_by_hand() -> None:
    """Each timer fires at its own instant, also when many lie within one step, and the step ends where it should."""
    harness = harness_of(Thermostat)
    start = harness.clock.now()
    for minute in range(3):
        harness.send("room.temperature", {"celsius": 1}, subject=f"room-{minute}")
        harness.advance(minutes(1))
    harness.advance(minutes(60))
    assert [signal.time - start for signal in harness.emitted("heating.off")] == [minutes(5 + n) for n in range(3)]
    assert harness.clock.now() == start + minutes(63)


def test_a_signal_is_delivered_as_it_would_arrive() -> None:
    """What a handler gets went over the wire: models and times in `data` are JSON values, and ids are given."""
    harness = harness_of(Listener)
    sent = harness.send("heating.on", {"at": harness.clock.now(), "parts": (1, 2)}, subject="a")
    assert sent.data == {"at": "2026-01-01T00:00:00Z", "parts": [1, 2]}
    assert sent.id == "test-1"
    assert harness.send("heating.on", subject="a", id="mine", source="me").source == "me"


def test_a_restart_changes_nothing_that_an_agent_could_notice() -> None:
    """After a restart states, timers and counters are as before."""
    harness = harness_of(Thermostat)
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    harness.restart()
    assert harness.state("thermostat:kitchen").heating is True
    harness.advance(minutes(5))
    assert len(harness.emitted("heating.off")) == 1


def test_a_signal_that_nobody_could_take_is_set_aside_as_in_a_flow() -> None:
    """A keyed agent's signal without a subject, and a type that nobody handles, become the dead letters of a flow."""
    harness = harness_of(Thermostat)
    harness.send("room.temperature", {"celsius": 15})
    harness.send("room.temprature", {"celsius": 15}, subject="kitchen")
    assert [letter["reason"] for letter in harness.dead_letters] == ["missing_subject", "unknown_type"]
    assert harness.agents() == []


def test_looking_for_an_agent_that_is_not_there_says_who_is() -> None:
    """Asking for the state of an unknown agent names those that there are."""
    harness = harness_of(Thermostat)
    with pytest.raises(NotFound) as caught:
        harness.state("thermostat:kitchen")
    assert "none" in (caught.value.hint or "")
    harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    with pytest.raises(NotFound) as caught:
        harness.state("thermostat:kitchn")
    assert "thermostat:kitchen" in (caught.value.hint or "")


def test_agents_that_answer_each_other_for_ever_are_stopped() -> None:
    """A call that sets off signals without end raises, and says what that usually means."""

    class Echo(Agent):
        @on("echo")
        def again(self, state: Any, signal: Signal[Any]) -> Directive:
            return Emit("echo")

    with pytest.raises(RuntimeError, match="without end"):
        harness_of(Echo).send("echo", subject="a")


def test_commands_that_are_for_others_are_left_alone() -> None:
    """An agent may write commands that agents do not obey; the harness keeps them as emitted."""

    class Scaler(Agent):
        @on("load.high")
        def more(self, state: Any, signal: Signal[Any]) -> Directive:
            return Emit("control.scale", {"target": "flow/agents", "desired": 2, "reason": "load"})

    harness = harness_of(Scaler)
    harness.send("load.high", subject="a")
    assert [signal.type for signal in harness.emitted(topic="control")] == ["control.scale"]
    assert harness.dead_letters == []


def test_two_harnesses_are_apart() -> None:
    """A harness shares nothing with another one of the same app."""
    one, other = harness_of(Thermostat), harness_of(Thermostat)
    one.send("room.temperature", {"celsius": 15}, subject="kitchen")
    one.advance(seconds(1))
    assert other.agents() == []
    assert other.clock.now() < one.clock.now()
