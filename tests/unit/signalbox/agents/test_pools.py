"""Pools and singletons: who gets a signal, and what happens when the size changes between two runs."""

from collections import Counter as Tally
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Pool, Singleton, on
from signalbox.agents.plan import Plan
from signalbox.app import App
from signalbox.config import Settings
from signalbox.errors import ConfigError
from signalbox.ids import key_group
from signalbox.testing import Harness
from tests.unit.signalbox.agents.examples import harness_of


class Worker(Agent):
    """Counts its work."""

    addressing = Pool(size=4, max=8)

    class State(AgentState):
        done: int = 0

    def started(self, state: State, context: Any) -> Directive:
        return Emit("worker.started", state.done)

    def stopped(self, state: State, context: Any) -> Directive:
        return Emit("worker.stopped", state.done)

    @on("work.do")
    def do(self, state: State, signal: Signal[Any], context: Any) -> Directive:
        state.done += 1
        return Emit("work.done", context.agent_id)


class Boss(Agent):
    """The only one."""

    addressing = Singleton("the_boss")

    class State(AgentState):
        heard: int = 0

    @on("work.**")
    def hear(self, state: State, signal: Signal[Any]) -> None:
        state.heard += 1


def _plan(size: int) -> Plan:
    return Plan(App(agents=[Worker], builtins=False), Settings.model_validate({"agents": {"worker": {"size": size}}}))


@given(st.text(min_size=1), st.integers(1, 8))
def test_a_subject_always_goes_to_the_same_member(subject: str, size: int) -> None:
    """Signals of one subject go to one member of the pool, in every process and whatever else the plan has placed."""
    (kind,) = _plan(size).kinds
    place = kind.place(subject, "id-1")
    assert place == kind.place(subject, "id-2") == _plan(size).kinds[0].place(subject, "other")
    assert place is not None
    assert place[0] in kind.declared()


def test_signals_without_a_subject_spread_over_the_pool() -> None:
    """Without a subject the signal's id decides, so work spreads evenly over all members."""
    (kind,) = _plan(4).kinds
    tally = Tally(place[0] for number in range(4000) if (place := kind.place(None, f"id-{number}")))
    assert set(tally) == set(kind.declared())
    assert max(tally.values()) < 1.2 * min(tally.values())


def test_a_members_id_as_the_subject_means_that_member() -> None:
    """A signal about a member of the pool reaches that very member; any other subject is placed by its hash."""
    (kind,) = _plan(4).kinds
    places = {member: kind.place(member, "id") for member in kind.declared()}
    assert places == {member: (member, str(key_group(member))) for member in kind.declared()}
    beyond = kind.place("worker_5", "id")
    assert beyond is not None
    assert beyond[0] in kind.declared()


def test_declared_agents_are_there_from_the_start() -> None:
    """Every member of a pool and every singleton exists, started, before the first signal."""
    harness = harness_of(Worker, Boss)
    assert harness.agents() == ["the_boss", "worker_1", "worker_2", "worker_3", "worker_4"]
    assert len(harness.emitted("worker.started")) == 4


def test_a_restart_starts_declared_agents_again_with_their_state() -> None:
    """At every start the `started` hook of declared agents runs once, on the state they had."""
    harness = harness_of(Worker)
    harness.send("work.do", subject="x")
    harness.restart()
    assert sorted(signal.data for signal in harness.emitted("worker.started")) == [0] * 7 + [1]


def test_a_signal_reaches_every_kind_of_agent_that_handles_it() -> None:
    """One signal goes to one member of each pool and to each singleton that handles its type."""
    harness = harness_of(Worker, Boss)
    harness.send("work.do", subject="x")
    assert sum(harness.state(f"worker_{n}").done for n in range(1, 5)) == 1
    assert harness.state("the_boss").heard >= 1


def _with_size(harness: Harness, size: int) -> Harness:
    """The same saved agents in a run with another size of the pool."""
    other = Harness(
        App(agents=[Worker, Boss], builtins=False), Settings.model_validate({"agents": {"worker": {"size": size}}})
    )
    saved = {key: list(group.all_records()) for key, group in harness._groups.items()}
    other._groups = {key: other._group(key) for key in saved}
    other._written.clear()
    for key, changes in saved.items():
        other._groups[key].restore(changes)
        other._groups[key].restored()
        other._groups[key].start()
    other._settle()
    return other


def test_a_smaller_pool_ends_the_members_beyond_its_size() -> None:
    """After a start with a smaller size the surplus members are gone, told by their `stopped` hook, for good."""
    harness = harness_of(Worker, Boss)
    for n in range(40):
        harness.send("work.do", subject=f"s{n}")
    before = {n: harness.state(f"worker_{n}").done for n in range(1, 5)}
    smaller = _with_size(harness, 2)
    assert smaller.agents() == ["the_boss", "worker_1", "worker_2"]
    assert sorted(signal.data for signal in smaller.emitted("worker.stopped")) == sorted([before[3], before[4]])
    assert smaller.state("worker_1").done == before[1]
    back = _with_size(smaller, 4)
    assert back.state("worker_4").done == 0


def test_a_larger_pool_keeps_the_members_it_had() -> None:
    """After a start with a larger size the old members have their state and the new ones are fresh."""
    harness = harness_of(Worker, Boss)
    for n in range(40):
        harness.send("work.do", subject=f"s{n}")
    larger = _with_size(harness, 8)
    assert [larger.state(f"worker_{n}").done for n in range(1, 5)] == [
        harness.state(f"worker_{n}").done for n in range(1, 5)
    ]
    assert [larger.state(f"worker_{n}").done for n in range(5, 9)] == [0] * 4


def test_signals_held_by_a_member_that_ends_are_not_lost() -> None:
    """A paused member beyond the new size leaves the signals it held as dead letters."""
    harness = harness_of(Worker, Boss)
    harness.pause("worker_4")
    for n in range(40):
        harness.send("work.do", subject=f"s{n}")
    smaller = _with_size(harness, 3)
    done = sum(smaller.state(f"worker_{n}").done for n in range(1, 4))
    assert {letter["reason"] for letter in smaller.dead_letters} == {"agent_stopped"}
    assert done + len(smaller.dead_letters) == 40


def test_a_pool_larger_than_its_maximum_is_refused() -> None:
    """A configured size beyond the class's maximum is a configuration error that names both."""
    with pytest.raises(ConfigError, match="pool of 9 is larger than its maximum of 8"):
        _plan(9)


def test_resizing_does_not_change_derived_ids() -> None:
    """Ids derived by a pool do not depend on its size, so a replay under another size makes the same ones."""
    ids = []
    for size in (1, 3, 8):
        harness = harness_of(Worker, agents={"worker": {"size": size}})
        for n in range(10):
            harness.send("work.do", subject=f"s{n}")
        ids.append([signal.id for signal in harness.emitted("work.done")])
    assert ids[0] == ids[1] == ids[2]
