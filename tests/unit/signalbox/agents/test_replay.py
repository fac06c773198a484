"""The promise that delivery rests on: repeating work from a snapshot leads to the same states and the same ids."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Context, Directive, Emit, Pool, Reply, Schedule, Spawn, Stop, on
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.ports import Outgoing
from tests.unit.signalbox.agents.examples import Groups, make_signal

MINUTE = timedelta(minutes=1)


class Account(Agent):
    """Keyed, with everything a handler can ask for."""

    class State(AgentState):
        balance: int = 0
        history: list[int] = []  # noqa: RUF012
        notes: dict[str, int] = {}  # noqa: RUF012

    def started(self, state: State, context: Context) -> Iterator[Directive]:
        state.history.append(-1)
        yield Emit("account.opened")

    def stopped(self, state: State, context: Context) -> Iterator[Directive]:
        yield Emit("account.closed", state.balance)

    @on("account.**", priority=-1)
    def note(self, state: State, signal: Signal[Any]) -> None:
        state.notes[signal.type] = state.notes.get(signal.type, 0) + 1

    @on("account.put")
    def put(self, state: State, signal: Signal[int]) -> Iterator[Directive]:
        amount = signal.data or 0
        state.balance += amount
        state.history.append(amount)
        for _ in range(amount % 3):
            yield Emit("account.changed", state.balance)
        yield Reply("alert.balance", state.balance)

    @on("account.fail")
    def fail(self, state: State, signal: Signal[int]) -> Iterator[Directive]:
        state.balance = 10**6
        yield Emit("account.never")
        raise ArithmeticError

    @on("account.close")
    def close(self, state: State, signal: Signal[int]) -> Directive:
        return Stop()

    @on("account.plan")
    def plan(self, state: State, signal: Signal[int]) -> Iterator[Directive]:
        yield Schedule("account.put", MINUTE * (1 + (signal.data or 0) % 4), signal.data, timer=f"t{signal.data}")
        yield Spawn("account", f"child-{signal.data}")


class Clerk(Agent):
    """A pool."""

    addressing = Pool(size=3)

    class State(AgentState):
        handled: int = 0

    @on("account.*")
    def handle(self, state: State, signal: Signal[Any]) -> Directive:
        state.handled += 1
        return Emit("clerk.handled", topic="telemetry")


APP = App(agents=[Account, Clerk], builtins=False)
verbs = st.sampled_from(["put", "put", "put", "fail", "close", "plan"])
signals = st.lists(st.tuples(verbs, st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=25)


def _signals(drawn: list[tuple[str, str, int]]) -> list[tuple[int, Signal[Any]]]:
    return [
        (n, make_signal(f"account.{verb}", number, subject=subject, id=f"in-{n}"))
        for n, (verb, subject, number) in enumerate(drawn)
    ]


def _run(groups: Groups, inputs: list[tuple[int, Signal[Any]]], cuts: list[int]) -> None:
    """Deliver in polls of the sizes given, then one by one; timers stay pending, since time stands still."""
    rest = list(inputs)
    for cut in cuts:
        groups.deliver(rest[:cut])
        rest = rest[cut:]
    for one in rest:
        groups.deliver([one])


def _ids(outgoing: list[Outgoing]) -> list[tuple[str, str, str]]:
    return sorted((out.topic, out.id, out.key) for out in outgoing)


@settings(max_examples=60)
@given(signals, st.lists(st.integers(0, 6), max_size=8), st.lists(st.integers(0, 6), max_size=8), st.data())
def test_a_replay_from_a_snapshot_repeats_states_and_ids(
    drawn: list[tuple[str, str, int]], first_cuts: list[int], second_cuts: list[int], data: st.DataObject
) -> None:
    """From a snapshot taken anywhere, the same signals in other batches and at another time give the same again."""
    inputs = _signals(drawn)
    at = data.draw(st.integers(0, len(inputs)), label="snapshot after")
    once = Groups(APP, VirtualClock())
    _run(once, inputs, first_cuts)

    crashed = Groups(APP, VirtualClock())
    _run(crashed, inputs[:at], first_cuts)
    before = list(crashed.outgoing)
    saved = crashed.saved()
    _run(crashed, inputs[at:], first_cuts)

    later = VirtualClock()
    later.advance(timedelta(seconds=30))
    again = Groups(APP, later)
    again.restore(saved)
    _run(again, inputs[at:], second_cuts)

    assert _ids(before + again.outgoing) == _ids(once.outgoing) == _ids(crashed.outgoing)
    assert _timeless(again) == _timeless(once)


def _timeless(groups: Groups) -> dict[str, Any]:
    """States and counters, and what is known of timers besides when they are due."""
    return {
        agent_id: (state, processed, errors, {name: (timer.id, timer.data) for name, timer in timers.items()})
        for agent_id, (state, processed, errors, timers) in groups.states().items()
    }


@settings(max_examples=40)
@given(signals, st.data())
def test_changes_since_a_snapshot_rebuild_the_same_groups(
    drawn: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    """Restoring the changes taken at any moments, one after the other, gives the groups as they are."""
    groups = Groups(APP, VirtualClock())
    rebuilt = Groups(APP, VirtualClock())
    rest = _signals(drawn)
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        groups.deliver(rest[:cut])
        rest = rest[cut:]
        for key, group in groups.groups.items():
            rebuilt.group(key).restore(group.take_changes())
    for group in rebuilt.groups.values():
        group.restored()
    assert rebuilt.states() == groups.states()


@settings(max_examples=30)
@given(signals)
def test_timers_of_a_replay_have_the_same_ids_and_effects(drawn: list[tuple[str, str, int]]) -> None:
    """What timers set off after a restore has the ids that it would have had without one."""
    inputs = _signals([("plan", subject, number) for _, subject, number in drawn])
    clock, other = VirtualClock(), VirtualClock()
    once, again = Groups(APP, clock), Groups(APP, other)
    _run(once, inputs, [])
    again.restore(once.saved())
    once.outgoing.clear()
    for groups, time in ((once, clock), (again, other)):
        for _ in range(6):
            time.advance(MINUTE)
            groups.fire_due()
    assert _ids(once.outgoing) == _ids(again.outgoing) != []
    assert once.states() == again.states()


def test_no_two_effects_share_an_id() -> None:
    """Every signal written has an id of its own, across agents, handlers, topics and repeated types."""
    groups = Groups(APP, VirtualClock())
    _run(
        groups,
        _signals([(verb, subject, n) for n in range(9) for verb in ("put", "plan", "fail") for subject in "ab"]),
        [7],
    )
    ids = [out.id for out in groups.outgoing]
    assert len(set(ids)) == len(ids) > 100


def test_answers_keep_their_ids_whether_telemetry_is_on_or_off() -> None:
    """The id of an output does not depend on how many records went to other topics before it."""
    ids = []
    for actions in (True, False):
        groups = Groups(App(), VirtualClock(), telemetry={"actions": actions})
        task = {"task_id": "t", "action": "echo", "params": {}}
        groups.deliver([(0, make_signal("task.submitted", task))])
        ids.append([out.id for out in groups.outgoing if out.topic == "results"])
    assert ids[0] == ids[1] != []


def test_ids_of_different_causes_never_run_together() -> None:
    """Sources and ids that would read the same when written one after the other still give different ids."""
    ids = set()
    for source, id, subject in (("a|b", "c", "s"), ("a", "b|c", "s"), ("a", "b", "c|s"), ("a", "b|account:s", "s")):
        groups = Groups(APP, VirtualClock())
        signal = make_signal("account.put", 0, subject=subject, id=id)
        signal.source = source
        groups.deliver([(0, signal)])
        ids |= {out.id for out in groups.outgoing if out.type == "alert.balance"}
    assert len(ids) == 4
