"""Eviction of keyed agents that were idle for too long."""

from datetime import timedelta
from typing import Any

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Schedule, minutes, on, seconds
from signalbox.app import App
from signalbox.clock import VirtualClock
from tests.unit.signalbox.agents.examples import Counter, Groups, group_of, harness_of, make_signal


class Brief(Agent):
    """Kept for a minute after its last signal."""

    idle_ttl = minutes(1)

    class State(AgentState):
        touched: int = 0

    def stopped(self, state: State, context: Any) -> Directive:
        return Emit("brief.gone", state.touched)

    @on("brief.touch")
    def touch(self, state: State, signal: Signal[Any]) -> None:
        state.touched += 1

    @on("brief.wait")
    def wait(self, state: State, signal: Signal[Any]) -> Directive:
        return Schedule("brief.touch", minutes(5))


def test_an_idle_agent_is_evicted_after_its_time() -> None:
    """An agent without a signal for its idle time ends, with its `stopped` hook; each signal starts the time anew."""
    harness = harness_of(Brief)
    harness.send("brief.touch", subject="a")
    harness.advance(seconds(40))
    harness.send("brief.touch", subject="a")
    harness.advance(seconds(59.999))
    assert harness.agents() == ["brief:a"]
    harness.advance(timedelta(milliseconds=1))
    assert harness.agents() == []
    assert [signal.data for signal in harness.emitted("brief.gone")] == [2]


def test_an_evicted_agent_begins_afresh() -> None:
    """A signal after the eviction makes a new agent that knows nothing of the old one."""
    harness = harness_of(Brief)
    harness.send("brief.touch", subject="a")
    harness.advance(minutes(2))
    harness.send("brief.touch", subject="a")
    assert harness.state("brief:a").touched == 1


def test_an_agent_that_waits_for_a_timer_is_not_idle() -> None:
    """A pending timer keeps an agent beyond its idle time, without keeping the group busy; then it is evicted."""
    harness = harness_of(Brief)
    harness.send("brief.wait", subject="a")
    harness.advance(minutes(4.9))
    assert harness.agents() == ["brief:a"]
    harness.advance(minutes(0.1))
    assert harness.agents() == []
    assert [signal.data for signal in harness.emitted("brief.gone")] == [1]


def test_a_paused_agent_is_not_evicted() -> None:
    """Eviction would undo a pause and lose what it holds back, so a paused agent stays until it is resumed."""
    harness = harness_of(Brief)
    harness.send("brief.touch", subject="a")
    harness.pause("brief:a")
    harness.send("brief.touch", subject="a")
    harness.advance(minutes(30))
    assert harness.agents() == ["brief:a"]
    harness.restart()
    harness.advance(minutes(30))
    harness.resume("brief:a")
    assert harness.state("brief:a").touched == 2
    harness.advance(minutes(1))
    assert harness.agents() == []


def test_an_evicted_agent_leaves_a_tombstone_in_the_changes() -> None:
    """The first changes after an eviction say that the record is gone, so a restore does not bring the agent back."""
    clock = VirtualClock()
    app = App(agents=[Brief], builtins=False)
    groups = Groups(app, clock)
    groups.deliver([(0, make_signal("brief.touch"))])
    group = groups.group(group_of("brief:s"))
    base = group.take_changes()
    clock.advance(minutes(1))
    group.fire_due()
    assert ("brief:s", 0, None) in group.take_changes()
    assert group.take_changes() == []
    again = Groups(app, clock).group(group.key)
    again.restore(base)
    again.restore([("brief:s", 0, None)])
    again.restored()
    again.fire_due()
    assert list(again) == []
    assert again.take_output() == []


def test_idle_agents_are_evicted_after_a_restart_too() -> None:
    """The idle time counts from the last signal, not from the restart."""
    harness = harness_of(Brief)
    harness.send("brief.touch", subject="a")
    harness.advance(seconds(50))
    harness.restart()
    harness.advance(seconds(10))
    assert harness.agents() == []


def test_an_idle_time_that_is_new_reaches_agents_saved_without_one() -> None:
    """Agents that were saved when their class had no idle time are evicted too, one idle time after the start."""
    clock = VirtualClock()
    app = App(agents=[Counter], builtins=False)
    before = Groups(app, clock)
    before.deliver([(n, make_signal("counter.add", {"amount": 1}, subject=f"s{n}", id=str(n))) for n in range(50)])
    clock.advance(minutes(60))
    after = Groups(app, clock, agents={"counter": {"idle_ttl_s": 30}})
    after.restore(before.saved())
    after.fire_due()
    assert len(after.states()) == 50
    clock.advance(seconds(30))
    after.fire_due()
    assert after.states() == {}


def test_without_an_idle_time_agents_stay() -> None:
    """Agents of a class without an idle time, and pools and singletons whatever their class says, are kept for ever."""
    harness = harness_of(Counter)
    harness.send("counter.add", {"amount": 1}, subject="a")
    harness.advance(timedelta(days=10_000))
    assert harness.agents() == ["counter:a"]


def test_the_census_follows() -> None:
    """The number of agents by class is right through creation, eviction and restore."""
    clock = VirtualClock()
    app = App(agents=[Brief], builtins=False)
    groups = Groups(app, clock)
    group = groups.group(group_of("brief:s"))
    groups.deliver([(0, make_signal("brief.touch"))])
    assert group.census["brief"] == 1
    after = Groups(app, clock)
    after.restore(groups.saved())
    assert after.group(group.key).census["brief"] == 1
    clock.advance(minutes(1))
    after.fire_due()
    assert after.group(group.key).census["brief"] == 0


def test_a_shorter_idle_time_counts_from_the_first_signal_on() -> None:
    """An agent saved under a long idle time is evicted under a new, shorter one once a signal has loaded it."""
    clock = VirtualClock()
    app = App(agents=[Counter], builtins=False)
    before = Groups(app, clock, agents={"counter": {"idle_ttl_s": 3600}})
    before.deliver([(0, make_signal("counter.add", {"amount": 1}))])
    after = Groups(app, clock, agents={"counter": {"idle_ttl_s": 30}})
    after.restore(before.saved())
    after.deliver([(1, make_signal("counter.add", {"amount": 1}, id="2"))])
    clock.advance(seconds(30))
    after.fire_due()
    assert after.states() == {}


def test_an_eviction_repeated_after_a_crash_has_the_same_ids() -> None:
    """What the `stopped` hook sends at an eviction has the same id when the eviction is repeated, however late."""
    clock = VirtualClock()
    app = App(agents=[Brief], builtins=False)
    before = Groups(app, clock)
    before.deliver([(0, make_signal("brief.touch"))])
    saved = before.saved()
    ids = []
    for wait in (minutes(1), minutes(7)):
        clock.advance(wait)
        run = Groups(app, clock)
        run.restore(saved)
        run.fire_due()
        ids.append([out.id for out in run.outgoing if out.type == "brief.gone"])
    assert ids[0] == ids[1] != []
