"""Timers: when they fire, how often, in which order, and that they outlive the process."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import Signal, decode
from signalbox.agents import (
    Agent,
    AgentState,
    CancelTimer,
    Context,
    Directive,
    Emit,
    Schedule,
    Stop,
    minutes,
    on,
    seconds,
)
from signalbox.app import App
from signalbox.clock import VirtualClock
from tests.unit.signalbox.agents.examples import Counter, Groups, group_of, harness_of, make_signal


def test_a_timer_fires_once_at_its_time() -> None:
    """A scheduled signal comes exactly after its time, once, and not a millisecond before."""
    harness = harness_of(Counter)
    start = harness.clock.now()
    harness.send("counter.later", {"ms": 1500}, subject="a")
    harness.advance(timedelta(milliseconds=1499))
    assert not harness.emitted("counter.fired")
    harness.advance(timedelta(milliseconds=1))
    (fired,) = harness.emitted("counter.fired")
    assert fired.time == start + timedelta(milliseconds=1500)
    harness.advance(minutes(60))
    assert len(harness.emitted("counter.fired")) == 1


@given(st.integers(1, 10**7), st.integers(0, 10**7))
def test_a_timer_is_never_early(after_us: int, start_us: int) -> None:
    """Whatever fraction of a millisecond the clock shows, a timer waits at least its time and at most 1 ms more."""
    clock = VirtualClock()
    clock.advance(timedelta(microseconds=start_us // 1000 * 1000))
    groups = Groups(App(agents=[_Alarm], builtins=False), clock)
    groups.deliver([(0, make_signal("alarm.set", {"us": after_us}))])
    (due_ms,) = [due for group in groups.groups.values() if (due := group.next_due_ms()) is not None]
    waited_us = due_ms * 1000 - clock.now_ms() * 1000
    assert max(1000, after_us) <= waited_us < max(1000, after_us) + 1000


class _Alarm(Agent):
    name = "alarm"

    class State(AgentState):
        rung: list[str] = []  # noqa: RUF012

    @on("alarm.set")
    def set(self, state: State, signal: Signal[dict[str, Any]]) -> Iterator[Directive]:
        wanted = signal.data or {}
        for timer in wanted.get("timers", [None]):
            yield Schedule("alarm.ring", timedelta(microseconds=wanted["us"]), {"timer": timer}, timer=timer)

    @on("alarm.ring")
    def ring(self, state: State, signal: Signal[dict[str, Any]]) -> Iterator[Directive]:
        timer = (signal.data or {})["timer"]
        state.rung.append(timer)
        yield Emit("alarm.rang", timer)
        if timer == "canceller":
            yield CancelTimer("victim")
        elif timer == "mover":
            yield Schedule("alarm.ring", minutes(5), {"timer": "victim"}, timer="victim")
        elif timer == "killer":
            yield Stop()
        elif timer == "breaker":
            msg = "broken"
            raise RuntimeError(msg)


def test_timers_fire_in_the_order_of_their_times() -> None:
    """Timers of an agent fire by time, however they were set; each at its own instant."""
    harness = harness_of(Counter)
    for number, ms in enumerate([300, 100, 200]):
        harness.send("counter.later", {"ms": ms, "amount": ms, "timer": f"t{number}"}, subject="a")
    start = harness.clock.now()
    harness.advance(seconds(1))
    fired = [(signal.data["count"], signal.time - start) for signal in harness.emitted("counter.fired")]
    assert fired == [(count, timedelta(milliseconds=at)) for count, at in ((100, 100), (300, 200), (600, 300))]


def test_scheduling_again_moves_the_timer() -> None:
    """A second schedule under the same name replaces the first, earlier or later."""
    harness = harness_of(Counter)
    for ms, amount in ((1000, 1), (5000, 2), (2000, 3)):
        harness.send("counter.later", {"ms": ms, "amount": amount}, subject="a")
    harness.advance(timedelta(milliseconds=1999))
    assert harness.state("counter:a").count == 0
    harness.advance(timedelta(milliseconds=1))
    assert harness.state("counter:a").count == 3
    harness.advance(minutes(10))
    assert harness.state("counter:a").count == 3


def test_a_cancelled_timer_does_not_fire() -> None:
    """Cancelling forgets a pending timer; cancelling one that is not pending changes nothing."""
    harness = harness_of(Counter)
    harness.send("counter.forget", subject="a")
    harness.send("counter.later", {"ms": 1000}, subject="a")
    harness.send("counter.forget", subject="a")
    harness.advance(minutes(10))
    assert not harness.emitted("counter.fired")


def test_a_handler_of_one_timer_can_cancel_another_that_is_due() -> None:
    """Of timers due at the same instant, one that an earlier one cancels does not fire."""
    harness = harness_of(_Alarm)
    harness.send("alarm.set", {"us": 1_000_000, "timers": ["canceller", "victim"]}, subject="a")
    harness.advance(minutes(1))
    assert harness.state("alarm:a").rung == ["canceller"]


def test_a_handler_of_one_timer_can_move_another_that_is_due() -> None:
    """Of timers due at the same instant, one that an earlier one moves fires at its new time only."""
    harness = harness_of(_Alarm)
    harness.send("alarm.set", {"us": 1_000_000, "timers": ["mover", "victim"]}, subject="a")
    harness.advance(minutes(1))
    assert harness.state("alarm:a").rung == ["mover"]
    harness.advance(minutes(5))
    assert harness.state("alarm:a").rung == ["mover", "victim"]


def test_an_agent_that_a_timer_stops_gets_no_further_ones() -> None:
    """When a timer's handler stops its agent, the other timers go with it, also those due at the same instant."""
    harness = harness_of(_Alarm)
    harness.send("alarm.set", {"us": 1_000_000, "timers": ["killer", "later"]}, subject="a")
    harness.advance(minutes(1))
    assert harness.agents() == []
    harness.send("alarm.set", {"us": 1, "timers": []}, subject="a")
    assert harness.state("alarm:a").rung == []


def test_a_failing_timer_is_spent_and_reported() -> None:
    """A timer whose handler raises is reported as an agent's error, is not repeated, and has no record to set aside."""
    harness = harness_of(_Alarm)
    harness.send("alarm.set", {"us": 1_000_000, "timers": ["breaker", "other"]}, subject="a")
    harness.advance(minutes(1))
    (error,) = harness.emitted("agent.error", topic="telemetry")
    assert error.data["signal_type"] == "alarm.ring"
    assert harness.dead_letters == []
    assert harness.state("alarm:a").rung == ["other"]


@pytest.mark.parametrize("after", [timedelta(0), timedelta(microseconds=1), timedelta(days=-1)])
def test_a_timer_without_delay_does_not_spin(after: timedelta) -> None:
    """A handler that schedules itself at once runs at most once per millisecond."""

    class Eager(Agent):
        class State(AgentState):
            runs: int = 0

        @on("eager.go")
        def go(self, state: State, signal: Signal[Any]) -> Directive:
            state.runs += 1
            return Schedule("eager.go", after)

    harness = harness_of(Eager)
    harness.send("eager.go", subject="a")
    assert harness.state("eager:a").runs == 1
    harness.advance(timedelta(milliseconds=10))
    assert harness.state("eager:a").runs == 11


def test_timers_survive_a_restart() -> None:
    """A timer that was saved fires at its time after a restart, with its data, id and conversation, and fires once."""
    seen: list[Signal[Any]] = []

    class Patient(Agent):
        @on("patient.wait")
        def wait(self, state: Any, signal: Signal[Any]) -> Directive:
            return Schedule("patient.done", minutes(5), {"text": "ü", "n": [1, 2.5, None]})

        @on("patient.done")
        def done(self, state: Any, signal: Signal[Any], context: Context) -> Directive:
            seen.append(signal)
            return Emit("patient.told", context.now.isoformat())

    harness = harness_of(Patient)
    cause = harness.send("patient.wait", subject="a")
    harness.advance(minutes(4))
    harness.restart()
    harness.restart()
    harness.advance(seconds(59))
    assert not seen
    harness.advance(seconds(1))
    harness.restart()
    harness.advance(minutes(60))
    (signal,) = seen
    assert signal.data == {"text": "ü", "n": [1, 2.5, None]}
    assert (signal.subject, signal.correlationid) == ("a", cause.id)
    assert [told.data for told in harness.emitted("patient.told")] == ["2026-01-01T00:05:00+00:00"]


def test_timers_that_came_due_while_nobody_ran_fire_at_once_after_a_start() -> None:
    """What became due between two runs fires in the order of its times as soon as the agents are back."""
    clock = VirtualClock()
    app = App(agents=[_Alarm], builtins=False)
    before = Groups(app, clock)
    for us, timer in ((3_000_000, "third"), (1_000_000, "first"), (2_000_000, "second"), (10**9, "much later")):
        before.deliver([(0, make_signal("alarm.set", {"us": us, "timers": [timer]}, id=timer))])
    clock.advance(minutes(5))
    after = Groups(app, clock)
    after.restore(before.saved())
    after.fire_due()
    assert after.states()["alarm:s"][0].rung == ["first", "second", "third"]
    after.fire_due()
    assert after.states()["alarm:s"][0].rung == ["first", "second", "third"]


def test_a_timer_outlives_a_change_of_the_idle_time() -> None:
    """A timer saved under one idle time fires under another, shorter, longer or none."""
    for before_s, after_s in ((None, 1.0), (None, 1e6), (1.0, None), (1e6, 1.0), (30.0, 90.0)):
        clock = VirtualClock()
        app = App(agents=[_Alarm], builtins=False)
        before = Groups(app, clock, agents={"alarm": {"idle_ttl_s": before_s}})
        before.deliver([(0, make_signal("alarm.set", {"us": 60_000_000, "timers": ["t"]}))])
        after = Groups(app, clock, agents={"alarm": {"idle_ttl_s": after_s}})
        after.restore(before.saved())
        after.deliver([(1, make_signal("alarm.set", {"us": 1, "timers": []}, id="2"))])
        after.deliver([(2, make_signal("alarm.set", {"us": 61_000_000, "timers": ["u"]}, id="3"))])
        for _ in range(65):
            clock.advance(seconds(1))
            after.fire_due()
        rang = [decode(out.value).data for out in after.outgoing if out.type == "alarm.rang"]
        assert rang == ["t", "u"], (before_s, after_s)


def test_next_due_is_what_the_engine_needs() -> None:
    """A group with nothing to wait for says so, and otherwise names the earliest time of all its agents."""
    clock = VirtualClock()
    groups = Groups(App(agents=[Counter], builtins=False), clock)
    names = [f"s{n}" for n in range(2000) if group_of(f"counter:s{n}") == "7"][:3]
    for offset, (subject, ms) in enumerate(zip(names, (900, 300, 600), strict=True)):
        groups.deliver([(offset, make_signal("counter.later", {"ms": ms}, subject=subject, id=subject))])
    group = groups.group("7")
    assert group.next_due_ms() == clock.now_ms() + 300
    clock.advance(timedelta(milliseconds=700))
    group.fire_due()
    assert group.next_due_ms() == clock.now_ms() + 200
    clock.advance(timedelta(milliseconds=200))
    group.fire_due()
    assert group.next_due_ms() is None
