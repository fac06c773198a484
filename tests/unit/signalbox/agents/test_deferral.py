"""Output that rests on a timer: kept until the firing is saved, never lost, never reordered, never doubled."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Schedule, on, seconds
from signalbox.agents.deferral import Deferral
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.ids import key_group
from signalbox.ports import Outgoing
from tests.unit.signalbox.agents.examples import Groups, make_signal


class Bell(Agent):
    """Rings a second after it was set, and says at each touch how often it rang."""

    class State(AgentState):
        rung: int = 0

    @on("bell.set")
    def set(self, state: State, signal: Signal[Any]) -> Directive:
        return Schedule("bell.ring", seconds(1))

    @on("bell.ring")
    def ring(self, state: State, signal: Signal[Any]) -> Directive:
        state.rung += 1
        return Emit("bell.rung", state.rung)

    @on("bell.touch")
    def touch(self, state: State, signal: Signal[Any]) -> Directive:
        return Emit("bell.heard", state.rung)

    @on("bell.fail")
    def fail(self, state: State, signal: Signal[Any]) -> None:
        raise ValueError


GROUP = str(key_group("bell:a"))
OTHER = next(name for n in range(10_000) if str(key_group(f"bell:{(name := str(n))}")) == GROUP)


class _Belfry:
    """One group of bells, with what it has written so far."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.groups = Groups(App(agents=[Bell], builtins=False), self.clock)
        self.group = self.groups.group(GROUP)
        self._sent = 0

    def send(self, type: str, subject: str = "a") -> None:
        self._sent += 1
        run = (0, [(f"bell:{subject}", make_signal(type, subject=subject, id=str(self._sent)), self._sent)])
        self.group.deliver(("signals", 0), [run])

    def ring(self) -> None:
        self.clock.advance(seconds(1))
        self.group.fire_due()

    def written(self) -> list[str]:
        return [out.type for out in self.group.take_output()]


def _rung() -> _Belfry:
    belfry = _Belfry()
    belfry.send("bell.set")
    belfry.ring()
    return belfry


def test_what_a_timer_sets_off_waits_for_a_snapshot() -> None:
    """What a timer's handler sends is written only when the firing has been saved."""
    belfry = _rung()
    belfry.group.release(snapshots=1)
    assert belfry.written() == []
    belfry.group.take_changes()
    belfry.group.release(snapshots=2)
    assert belfry.written() == []
    belfry.group.release(snapshots=1)
    assert belfry.written() == ["bell.rung"]
    assert not belfry.group.keeps_output()


def test_what_the_agent_sends_next_waits_with_it_in_order() -> None:
    """Whatever the same agent sends after its timer fired, failures included, waits behind it; others write at once."""
    belfry = _rung()
    belfry.send("bell.touch")
    belfry.send("bell.fail")
    belfry.send("bell.touch", OTHER)
    assert belfry.written() == ["bell.heard"]
    belfry.group.take_changes()
    belfry.group.release(snapshots=1)
    assert belfry.written() == ["bell.rung", "bell.heard", "agent.error", "signal.dead_letter"]
    belfry.send("bell.touch")
    assert belfry.written() == ["bell.heard"]


def test_what_waits_is_saved_and_written_after_a_crash() -> None:
    """A group brought back from a snapshot writes what that snapshot kept, with the same ids, and once."""
    belfry = _rung()
    changes = belfry.group.take_changes()
    again = _Belfry()
    again.group.restore(changes)
    again.group.restored()
    again.group.release(snapshots=0)
    belfry.group.release(snapshots=0)
    assert again.group.take_output() == belfry.group.take_output() != []
    again.group.restore(again.group.take_changes())
    assert list(again.group.all_records()) == belfry.groups.saved()[GROUP]
    again.group.release(snapshots=0)
    assert again.written() == []


def test_a_crash_before_the_snapshot_forgets_the_firing_and_what_followed() -> None:
    """A run from the snapshot before the firing may decide otherwise, since nothing of the lost run was written."""
    belfry = _Belfry()
    belfry.send("bell.set")
    saved = belfry.group.take_changes()
    belfry.ring()
    belfry.send("bell.touch")
    assert belfry.written() == []
    again = _Belfry()
    again.group.restore(saved)
    again.group.restored()
    again.send("bell.touch")
    (heard,) = again.group.take_output()
    assert b'"data":0' in heard.value


#: Agents fire or send, a snapshot is taken, a record arrives in the epoch after, or the group is merely looked at.
_steps = st.lists(
    st.tuples(st.sampled_from(["fire", "send", "send", "snapshot", "batch", "notify"]), st.sampled_from("ab")),
    max_size=60,
)


@given(_steps)
def test_any_course_of_events_keeps_order_and_loses_nothing(steps: list[tuple[str, str]]) -> None:
    """Each agent's output leaves in the order it was made, all of it, and none that rests on an unsaved firing."""
    deferral, out, made = Deferral(), list[Outgoing](), dict[str, list[str]](a=[], b=[])
    snapshots, fired = 0, dict[str, int]()
    for number, (step, agent) in enumerate(steps):
        match step:
            case "fire":
                deferral.fired(agent)
                fired[agent] = snapshots
            case "send":
                made[agent].append(str(number))
                deferral.outlet(agent, out).append(Outgoing("alerts", agent, str(number), "t", b""))
                assert (out[-1:] != [] and out[-1].id == str(number)) == (agent not in fired)
            case "snapshot":
                deferral.take_change()
                snapshots += 1
            case "batch" | "notify":
                age = 1 if step == "batch" else 2
                out += deferral.release(age)
                fired = {one: when for one, when in fired.items() if when > snapshots - age}
    out += deferral.release(0)
    assert not deferral
    assert {agent: [one.id for one in out if one.key == agent] for agent in "ab"} == made
