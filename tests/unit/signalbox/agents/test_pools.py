"""Pools and singletons: who gets a signal, and what happens when the size changes while they run."""

from collections import Counter as Tally
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Pool, Schedule, Singleton, on, seconds
from signalbox.agents.plan import Plan
from signalbox.app import App
from signalbox.config import Settings
from signalbox.errors import ConfigError, NotFound
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
    """A signal about a member that the pool can have reaches that very member; other subjects are placed by hash."""
    (kind,) = _plan(4).kinds
    members = [f"worker_{n}" for n in range(1, 9)]
    assert [kind.place(member, "id") for member in members] == [(one, str(key_group(one))) for one in members]
    beyond = kind.place("worker_9", "id")
    assert beyond is not None
    assert beyond[0] in kind.declared()


@given(st.text(min_size=1), st.integers(1, 8))
def test_a_size_places_as_if_it_were_declared(subject: str, size: int) -> None:
    """A pool that is resized while it runs spreads signals as one that was configured with that size."""
    assert _plan(4).kinds[0].place(subject, "id", size) == _plan(size).kinds[0].place(subject, "id")


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


def _work(harness: Harness, count: int = 40) -> None:
    for n in range(count):
        harness.send("work.do", subject=f"s{n}")


def test_a_smaller_pool_ends_the_members_beyond_its_size() -> None:
    """The members beyond a smaller size are gone, told by their `stopped` hook, for good; the others go on."""
    harness = harness_of(Worker, Boss)
    _work(harness)
    before = {n: harness.state(f"worker_{n}").done for n in range(1, 5)}
    harness.resize("worker", 2)
    assert harness.agents() == ["the_boss", "worker_1", "worker_2"]
    assert sorted(signal.data for signal in harness.emitted("worker.stopped")) == sorted([before[3], before[4]])
    assert harness.state("worker_1").done == before[1]
    harness.resize("worker", 4)
    assert harness.state("worker_4").done == 0


def test_a_larger_pool_keeps_the_members_it_had() -> None:
    """After a resize to more the old members have their state, and the new ones are there and started at once."""
    harness = harness_of(Worker, Boss)
    _work(harness)
    before = [harness.state(f"worker_{n}").done for n in range(1, 5)]
    harness.resize("worker", 8)
    assert [harness.state(f"worker_{n}").done for n in range(1, 9)] == [*before, 0, 0, 0, 0]
    assert len(harness.emitted("worker.started")) == 8


def test_a_resize_is_idempotent_and_survives_a_restart() -> None:
    """The same size again changes nothing, and after a restart the pool has the size it was given, not the declared."""
    harness = harness_of(Worker)
    harness.resize("worker", 7)
    agents, started = harness.agents(), len(harness.emitted("worker.started"))
    harness.resize("worker", 7)
    assert (harness.agents(), len(harness.emitted("worker.started"))) == (agents, started)
    harness.restart()
    assert harness.agents() == agents


@pytest.mark.parametrize("size", [0, 9, -1, True, "3", 2.5, None])
def test_a_size_that_a_pool_cannot_have_is_refused(size: Any) -> None:
    """A size is a number from 1 to the maximum; anything else is refused with the bounds, and nothing changes."""
    harness = harness_of(Worker)
    with pytest.raises(ConfigError, match="worker cannot have") as refused:
        harness.resize("worker", size)
    assert refused.value.hint == "give a number from 1 to 8"
    assert len(harness.agents()) == 4
    with pytest.raises(NotFound, match="no pool 'boss'"):
        harness.resize("boss", 1)


def test_every_signal_is_handled_once_whatever_the_sizes() -> None:
    """Signals between resizes are each handled by one member, and those of a subject in their order."""
    harness = harness_of(Worker)
    for size in (1, 8, 3, 8, 1, 5):
        harness.resize("worker", size)
        _work(harness, 16)
    done = [(signal.causationid, signal.data) for signal in harness.emitted("work.done")]
    assert len(done) == len({cause for cause, _ in done}) == 96
    assert {int(member.rpartition("_")[2]) for _, member in done} == set(range(1, 9))


class Patient(Agent):
    """Works on what it is given for a while: by a timer or by an action."""

    addressing = Pool(size=4, max=4)

    def started(self, state: AgentState, context: Any) -> Directive:
        return Emit("patient.started", context.agent_id)

    def stopped(self, state: AgentState, context: Any) -> Directive:
        return Emit("patient.stopped", context.agent_id)

    @on("job.wait")
    def wait(self, state: AgentState, signal: Signal[Any]) -> Directive:
        return Schedule("job.over", seconds(60), signal.data)

    @on("job.over")
    def over(self, state: AgentState, signal: Signal[Any]) -> Directive:
        return Emit("job.done", signal.data)

    @on("job.now")
    def now(self, state: AgentState, signal: Signal[Any], context: Any) -> Directive:
        return Emit("job.done", [signal.data, context.agent_id])


def test_a_member_with_a_timer_ends_after_it_fired() -> None:
    """A member beyond the size lingers until its timers have fired, and what they set off is written."""
    harness = harness_of(Patient)
    harness.send("job.wait", 7, subject="patient_4")
    harness.resize("patient", 1)
    assert harness.agents() == ["patient_1", "patient_4"]
    harness.advance(seconds(59))
    assert not harness.emitted("job.done")
    harness.advance(seconds(1))
    assert [signal.data for signal in harness.emitted("job.done")] == [7]
    assert harness.agents() == ["patient_1"]


def test_a_member_whose_pool_grows_again_lives_on() -> None:
    """A member that lingers when its pool grows again is not started anew, and does not end."""
    harness = harness_of(Patient)
    harness.send("job.wait", 7, subject="patient_4")
    harness.resize("patient", 1)
    harness.resize("patient", 4)
    harness.advance(seconds(61))
    assert len(harness.agents()) == 4
    assert [signal.data for signal in harness.emitted("patient.started")].count("patient_4") == 1
    assert "patient_4" not in [signal.data for signal in harness.emitted("patient.stopped")]


def test_a_signal_about_a_member_that_has_ended_is_handled_by_it() -> None:
    """What is meant for a member that is gone brings it back for just as long as it needs; nothing is lost."""
    harness = harness_of(Patient)
    harness.resize("patient", 1)
    harness.send("job.now", "late", subject="patient_3")
    assert [signal.data for signal in harness.emitted("job.done")] == [["late", "patient_3"]]
    assert harness.agents() == ["patient_1"]
    harness.send("job.wait", "later", subject="patient_2")
    assert harness.agents() == ["patient_1", "patient_2"]
    harness.advance(seconds(60))
    assert harness.agents() == ["patient_1"]


def test_a_member_that_ends_handles_first_what_it_held() -> None:
    """A paused member beyond the new size goes on with what it held, in order and before it ends; nothing is lost."""
    harness = harness_of(Patient)
    harness.pause("patient_4")
    for n in range(5):
        harness.send("job.now", n, subject="patient_4")
    assert not harness.emitted("job.done")
    harness.resize("patient", 3)
    assert [signal.data for signal in harness.emitted("job.done")] == [[n, "patient_4"] for n in range(5)]
    assert harness.agents() == ["patient_1", "patient_2", "patient_3"]
    assert not harness.dead_letters


def test_a_smaller_maximum_ends_the_members_beyond_it() -> None:
    """Members that an earlier version of the class could have end at the start, and those of other classes do not."""
    harness = harness_of(Worker, Boss)
    harness.resize("worker", 8)

    class Smaller(Worker):
        name = "worker"
        addressing = Pool(size=2, max=3)

    later = harness_of(Smaller, Boss)
    for key, group in harness._groups.items():
        later._groups[key] = later._group(key)
        later._groups[key].restore(list(group.all_records()))
        later._groups[key].restored()
    later._begin()
    assert later.agents() == ["the_boss", "worker_1", "worker_2"]


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


@pytest.mark.parametrize("pool", [Pool(size=0), Pool(size=5, max=4)])
def test_a_pool_without_room_for_its_size_is_refused(pool: Pool) -> None:
    """A class whose pool is empty or larger than its own maximum is a configuration error that says how to write it."""

    class Odd(Worker):
        addressing = pool

    with pytest.raises(ConfigError, match="a pool cannot have a size of"):
        harness_of(Odd)
