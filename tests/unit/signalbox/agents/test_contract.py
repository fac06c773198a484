"""The contract of an agent class: its names, its handlers and the mistakes that are refused when it is written."""

from typing import Any

import pytest

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, minutes, on, seconds
from signalbox.agents.contract import RouteSpec, as_directives
from signalbox.agents.directives import CancelTimer, Reply, Schedule, Spawn, Stop
from signalbox.errors import ConfigError


@pytest.mark.parametrize(
    ("class_name", "name"),
    [("Thermostat", "thermostat"), ("RoomHeater2", "room_heater2"), ("HTTPProbe", "httpprobe"), ("a", "a")],
)
def test_an_agent_is_named_after_its_class(class_name: str, name: str) -> None:
    """Without a name of its own an agent has its class's, in lower case with underscores."""
    assert type(class_name, (Agent,), {}).name == name


def test_a_name_of_ones_own_wins_and_is_not_inherited() -> None:
    """A class may set its name; a subclass has its own, never that of its base."""

    class Base(Agent):
        name = "the_base"

    class Derived(Base):
        pass

    assert (Base.name, Derived.name) == ("the_base", "derived")


@pytest.mark.parametrize("name", ["", "Upper", "with-dash", "with space", "1st", "a:b", "ü"])
def test_a_name_that_would_not_fit_ids_is_refused(name: str) -> None:
    """A name must be usable in ids and settings; another is refused with the form that is right."""
    with pytest.raises(ConfigError, match="not an agent name") as caught:
        type("Some", (Agent,), {"name": name})
    assert "lower-case" in (caught.value.hint or "")


def test_the_description_is_the_first_line_of_the_docstring() -> None:
    """A class without a description takes the first line of its docstring, and not that of its base."""

    class Told(Agent):
        """Heats a room.

        Slowly.
        """

    class Silent(Told):
        pass

    assert Told.description == "Heats a room."
    assert Silent.description in ("", "Heats a room.")


def test_on_keeps_every_route_of_a_handler() -> None:
    """Several `@on` on one method are several routes; the method itself stays callable as it was."""

    class Many(Agent):
        @on("a.*", priority=3)
        @on("b")
        def handle(self, state: Any, signal: Signal[Any]) -> Directive:
            return Emit("done")

    assert set(Many.handle.routes) == {RouteSpec("a.*", None, 3), RouteSpec("b", None, 0)}  # type: ignore[attr-defined]
    assert Many().handle(None, Signal(id="1", source="s", type="b")) == Emit("done")


def test_directives_compare_by_value() -> None:
    """What a handler decides can be compared as a whole, without running anything."""
    assert Emit("a", {"n": 1}) == Emit("a", {"n": 1})
    assert Emit("a") != Emit("b")
    assert Schedule("a", minutes(1)) == Schedule("a", seconds(60))
    assert [Stop(), CancelTimer("t"), Spawn("x", "y"), Reply("r")] == [
        Stop(),
        CancelTimer("t"),
        Spawn("x", "y"),
        Reply("r"),
    ]
    with pytest.raises(AttributeError):
        Emit("a").type = "b"  # type: ignore[misc]


def test_a_handler_may_return_none_one_or_many() -> None:
    """Nothing, a single directive, any iterable and a generator all become a list of directives."""
    one = Emit("a")
    assert as_directives(None) == []
    assert as_directives(one) == [one]
    assert as_directives((one, one)) == [one, one]
    assert as_directives(each for each in [one]) == [one]


def test_states_of_instances_are_apart() -> None:
    """Default values of a state that can be changed in place are never shared."""

    class State(AgentState):
        items: list[int] = []  # noqa: RUF012

    first, second = State(), State()
    first.items.append(1)
    assert second.items == []
