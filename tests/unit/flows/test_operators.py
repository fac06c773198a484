"""A key group inside the engine: bases and changes in real files, against a plain dictionary as the oracle."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.kafka.placement import Placement
from connectors.kafka.source import CaughtUp
from connectors.segments import SegmentStore
from flows import operators
from flows.intake import Pulse
from flows.operators import GroupLogic, Inputs, Runtime
from schemas.signal import Signal, decode
from signalbox.agents import Agent, AgentState, Context, Directive, Emit, Stop, minutes, on, seconds
from signalbox.agents.plan import Plan, topic_router
from signalbox.agents.stats import Stats
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.config import TOPICS, Settings
from signalbox.errors import StateDamaged
from signalbox.ids import key_group
from signalbox.ports import Outgoing

GROUP = "7"
#: Subjects whose agents live in the one group that is tested.
SUBJECTS = [f"s{n}" for n in range(20_000) if str(key_group(f"box:s{n}")) == GROUP][:12]


class Box(Agent):
    """Keeps what it is given."""

    idle_ttl = minutes(10)

    class State(AgentState):
        items: list[str] = []  # noqa: RUF012

    @on("box.put")
    def put(self, state: State, signal: Signal[str]) -> Directive:
        state.items.append(signal.data or "")
        return Emit("alert.put", len(state.items))

    def stopped(self, state: State, context: Context) -> Directive:
        return Emit("alert.emptied", len(state.items))

    @on("box.stop")
    def stop(self, state: State, signal: Signal[Any]) -> Directive:
        return Stop()


class Engine:
    """What the engine does with one group: batches, snapshots, crashes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = VirtualClock()
        self.logic = self._logic(None)
        self._offset = 0

    def _logic(self, snapshot: bytes | None, inputs: frozenset[str] = frozenset()) -> GroupLogic:
        configured = Settings()
        self.runtime = Runtime(
            settings=configured,
            plan=Plan(App(agents=[Box], builtins=False), configured),
            topics=topic_router(configured.kafka.routes),
            placement=Placement(dict.fromkeys(TOPICS, 4)),
            store=SegmentStore(self.directory),
            clock=self.clock,
            stats=Stats(),
            inputs=inputs,
        )
        return GroupLogic(self.runtime, snapshot)

    def send(self, *signals: Signal[Any]) -> list[Outgoing]:
        self._offset += 1
        deliveries = [(signal.subject, signal, self._offset) for signal in signals]
        placed, discard = self.logic.on_batch([(GROUP, (("signals", 0), [(0, deliveries)]))])
        assert not discard
        return [record for part, records in placed for record in records]

    def wake(self) -> list[Outgoing]:
        if (due := self.logic.notify_at()) is None or due > self.clock.now():
            return []
        placed, _ = self.logic.on_notify()
        return [record for part, records in placed for record in records]

    def restart(self, snapshot: bytes | None, *inputs: str) -> None:
        """A new process goes on from a snapshot."""
        self.logic = self._logic(snapshot, frozenset(inputs))

    def catch_up(self, part: str) -> None:
        self.logic.on_batch([(GROUP, CaughtUp(part))])

    def items(self) -> dict[str, list[str]]:
        group = self.runtime.groups.get(GROUP)
        if group is None:
            return {}
        found = {agent_id: group.get(agent_id) for agent_id in group}
        return {agent_id.removeprefix("box:"): one.committed().items for agent_id, one in found.items() if one}  # type: ignore[attr-defined]

    def pieces(self, snapshot: bytes) -> list[Any]:
        pieces: list[Any] = msgspec.msgpack.decode(snapshot)[2]
        return pieces


def _signal(type: str, subject: str, data: Any, number: int) -> Signal[Any]:
    return Signal(id=f"n{number}", source="test", type=type, subject=subject, data=data)


class SnapshotMachine(RuleBasedStateMachine):
    """Any mix of signals, snapshots, evictions, crashes and restores, against what a dictionary would hold."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(_DIRECTORIES.pop())
        self.engine = Engine(self.directory)
        self.oracle: dict[str, list[str]] = {}
        self.snapshots: list[tuple[bytes | None, dict[str, list[str]]]] = [(None, {})]
        self.number = 0
        self.evicted: set[str] = set()

    def _next(self) -> int:
        self.number += 1
        return self.number

    @rule(subject=st.sampled_from(SUBJECTS), size=st.sampled_from([1, 3000, 9000]), count=st.integers(1, 4))
    def put(self, subject: str, size: int, count: int) -> None:
        for _ in range(count):
            number = self._next()
            item = f"{number}".ljust(size, "x")
            written = self.engine.send(_signal("box.put", subject, item, number))
            self.oracle[subject] = [*self.oracle.get(subject, []), item]
            if subject not in self.evicted:  # else it waits for a snapshot that holds the eviction
                assert decode(written[-1].value).data == len(self.oracle[subject])

    @rule(subject=st.sampled_from(SUBJECTS))
    def stop(self, subject: str) -> None:
        self.engine.send(_signal("box.stop", subject, None, self._next()))
        self.oracle.pop(subject, None)

    @rule()
    def evict_all(self) -> None:
        self.engine.clock.advance(minutes(11))
        self.engine.wake()
        self.evicted.update(self.oracle)
        self.oracle.clear()

    @precondition(lambda self: self.engine.runtime.groups)
    @rule()
    def snapshot(self) -> None:
        taken = self.engine.logic.snapshot()
        self.evicted.clear()
        self.snapshots.append((taken, {subject: list(items) for subject, items in self.oracle.items()}))

    @rule(back=st.integers(1, 3))
    def crash(self, back: int) -> None:
        """The engine goes on from the latest snapshot, or from one of the two before if no later one was committed."""
        back = min(back, len(self.snapshots))
        del self.snapshots[len(self.snapshots) - back + 1 :]
        saved, oracle = self.snapshots[-1]
        self.engine.restart(saved)
        self.evicted.clear()
        self.oracle = {subject: list(items) for subject, items in oracle.items()}

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "engine"):
            assert self.engine.items() == self.oracle

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory, ignore_errors=True)


_DIRECTORIES: list[str] = []


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path) -> Iterator[None]:
    _DIRECTORIES[:] = [str(tmp_path / f"run-{n}") for n in range(3000)]
    yield
    _DIRECTORIES.clear()


def test_no_snapshot_is_ever_lost_or_mixed_up() -> None:
    """Whatever happens between snapshots, each of the last three gives back exactly the state it was taken of."""
    run = settings(max_examples=100, stateful_step_count=30, deadline=None)
    from hypothesis.stateful import run_state_machine_as_test  # noqa: PLC0415 - used here only

    run_state_machine_as_test(SnapshotMachine, settings=run)


def _fill(engine: Engine, rounds: int, size: int = 3000) -> list[bytes]:
    snapshots = []
    for number in range(rounds):
        engine.send(_signal("box.put", SUBJECTS[number % len(SUBJECTS)], "x" * size, number))
        snapshots.append(engine.logic.snapshot())
    return snapshots


def test_an_epoch_writes_what_was_touched(tmp_path: Path) -> None:
    """A snapshot after one agent was touched writes that agent and not the group."""
    engine = Engine(tmp_path)
    engine.send(*(_signal("box.put", subject, "x" * 5000, n) for n, subject in enumerate(SUBJECTS)))
    engine.logic.snapshot()
    written = engine.runtime.stats.snapshot_bytes
    assert written > 5000 * len(SUBJECTS)
    engine.send(_signal("box.put", SUBJECTS[0], "y", 99))
    engine.logic.snapshot()
    assert engine.runtime.stats.snapshot_bytes - written < 2 * 5000 + 200


def test_an_epoch_without_changes_writes_nothing(tmp_path: Path) -> None:
    """A snapshot of an untouched group names the same pieces and writes no bytes."""
    engine = Engine(tmp_path)
    _fill(engine, 3)
    before = engine.runtime.stats.snapshot_bytes
    assert engine.logic.snapshot() == engine.logic.snapshot()
    assert engine.runtime.stats.snapshot_bytes == before


def test_changes_are_gathered_into_a_base_and_old_files_go(tmp_path: Path) -> None:
    """Changes that outgrow their base become a new one; soon after, files that nothing can need are gone."""
    engine = Engine(tmp_path)
    last = _fill(engine, 400)[-1]
    files = sorted(path.name for path in (tmp_path / GROUP).glob("*.seg"))
    needed = {piece[0] for piece in engine.pieces(last)}
    assert needed <= set(files)
    assert len(files) <= 3
    size = sum(path.stat().st_size for path in (tmp_path / GROUP).glob("*.seg"))
    state = sum(len(item) for items in engine.items().values() for item in items)
    assert size < 5 * state
    assert len(engine.pieces(last)) <= operators._MOST_PIECES


def test_many_small_changes_stay_few_pieces(tmp_path: Path) -> None:
    """However small the changes are, a snapshot never names more than a bounded number of pieces."""
    engine = Engine(tmp_path)
    engine.send(*(_signal("box.put", subject, "x" * 50_000, n) for n, subject in enumerate(SUBJECTS[1:])))
    counts = [len(engine.pieces(one)) for one in _fill_small(engine, 300)]
    assert max(counts) <= operators._MOST_PIECES
    assert min(counts[100:]) < 10


def _fill_small(engine: Engine, rounds: int) -> list[bytes]:
    taken = []
    for number in range(rounds):
        engine.send(_signal("box.stop", SUBJECTS[0], None, 2 * number))
        engine.send(_signal("box.put", SUBJECTS[0], "y", 2 * number + 1))
        taken.append(engine.logic.snapshot())
    return taken


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_state_stops_the_start(tmp_path: Path, damage: str) -> None:
    """A group whose files are missing, cut or changed does not start with part of its agents; it raises."""
    engine = Engine(tmp_path)
    last = _fill(engine, 5)[-1]
    path = tmp_path / GROUP / engine.pieces(last)[-1][0]
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if damage == "cut" else content[:-3] + b"???")
    with pytest.raises(StateDamaged):
        engine.restart(last)


def test_a_snapshot_of_another_version_is_refused(tmp_path: Path) -> None:
    """A snapshot that a later version wrote is refused with both versions, and not read as something else."""
    engine = Engine(tmp_path)
    version, *rest = msgspec.msgpack.decode(_fill(engine, 1)[0])
    with pytest.raises(ValueError, match=f"version {version + 1}"):
        engine.restart(msgspec.msgpack.encode([version + 1, *rest]))


def test_snapshots_are_plain_data(tmp_path: Path) -> None:
    """What the engine keeps of a group is msgpack of file names and numbers, and nothing that names a class."""
    engine = Engine(tmp_path)
    snapshot = _fill(engine, 2)[-1]
    assert all(word not in snapshot for word in (b"Box", b"Piece", b"connectors", b"xxx"))


def test_a_restored_group_wakes_by_itself(tmp_path: Path) -> None:
    """After a restore the engine is told when the group wants to be woken, before any signal comes."""
    engine = Engine(tmp_path)
    snapshot = _fill(engine, 1)[-1]
    engine.restart(snapshot)
    assert engine.logic.notify_at() == engine.clock.now() + minutes(10)
    engine.clock.advance(minutes(10) - seconds(0.001))
    engine.wake()
    assert engine.items()
    assert engine.runtime.groups[GROUP].census == {"box": 1}
    engine.clock.advance(seconds(0.001))
    engine.wake()
    assert engine.items() == {}


def test_timers_wait_for_what_the_inputs_held_at_the_start(tmp_path: Path) -> None:
    """After a start no timer fires before every input has handed over what may be the repetition of a crashed run."""
    engine = Engine(tmp_path)
    snapshot = _fill(engine, 1)[-1]
    engine.clock.advance(minutes(11))
    engine.restart(snapshot, "signals-0", "signals-1")
    engine.catch_up("signals-1")
    assert engine.logic.notify_at() is None
    engine.send(_signal("box.put", SUBJECTS[0], "y", 2))
    engine.catch_up("signals-0")
    engine.wake()
    assert engine.items() == {SUBJECTS[0]: ["x" * 3000, "y"]}


def test_what_a_timer_sets_off_is_written_once_its_firing_is_committed(tmp_path: Path) -> None:
    """Output of a timer leaves with the first record after a snapshot, for then the engine has committed that one."""
    engine = Engine(tmp_path)
    _fill(engine, 1)
    engine.clock.advance(minutes(10))
    assert engine.wake() == []
    assert [one.type for one in engine.send(_signal("box.put", SUBJECTS[1], "y", 2))] == ["alert.put"]
    engine.logic.snapshot()
    written = engine.send(_signal("box.put", SUBJECTS[0], "z", 3))
    assert [(one.type, one.key) for one in written] == [("alert.emptied", SUBJECTS[0]), ("alert.put", SUBJECTS[0])]


def test_without_records_what_a_timer_set_off_is_written_two_snapshots_later(tmp_path: Path) -> None:
    """A group that no record reaches looks now and then, and writes what its timers set off after a second snapshot."""
    engine = Engine(tmp_path)
    _fill(engine, 1)
    engine.clock.advance(minutes(10))
    engine.wake()
    for _ in range(2):
        assert engine.logic.notify_at() == engine.clock.now() + seconds(0.05)
        assert engine.logic.on_notify()[0] == []
        engine.logic.snapshot()
    ((_, written),) = engine.logic.on_notify()[0]
    assert [one.type for one in written] == ["alert.emptied"]
    assert engine.logic.notify_at() is None


def test_what_a_snapshot_kept_is_written_after_a_crash(tmp_path: Path) -> None:
    """A run that goes on from a snapshot writes what it kept at once; a snapshot from then on no longer has it."""
    engine = Engine(tmp_path)
    _fill(engine, 1)
    engine.clock.advance(minutes(10))
    engine.wake()
    engine.restart(engine.logic.snapshot())
    assert [one.type for one in engine.send()] == ["alert.emptied"]
    engine.restart(engine.logic.snapshot())
    assert engine.send() == []


def test_an_endless_idle_time_is_no_trouble(tmp_path: Path) -> None:
    """A time to wake that no calendar has is moved to the last one that it has."""
    engine = Engine(tmp_path)
    _fill(engine, 1)
    group = engine.runtime.groups[GROUP]
    group._due[:] = [(10**18, "box:never")]
    due = engine.logic.notify_at()
    assert due is not None
    assert due.year == 9999


def test_ready_records_pass_through_in_order(tmp_path: Path) -> None:
    """Dead letters made by the intake pass a group on their way to the partitions of their keys."""
    engine = Engine(tmp_path)
    records = [Outgoing("dead-letters", f"k{n % 3}", f"id{n}", "t", b"v") for n in range(9)]
    placed, _ = engine.logic.on_batch([(GROUP, records[:5]), (GROUP, records[5:])])
    part = engine.runtime.placement.part
    assert {name: [one.id for one in some] for name, some in placed} == {
        part("dead-letters", key): [
            one.id for one in records if part("dead-letters", one.key) == part("dead-letters", key)
        ]
        for key in ("k0", "k1", "k2")
    }
    assert engine.logic.notify_at() is None


def test_the_pulse_starts_once_and_ends_with_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pulse partition emits START once, soon after the worker began, then BEAT now and then, until it drains."""
    import threading  # noqa: PLC0415 - used here only

    clock = VirtualClock()
    monkeypatch.setattr("flows.operators.time.monotonic", clock.monotonic)

    drain = threading.Event()

    class NoRecords:
        def list_parts(self) -> list[str]:
            return ["signals-0"]

    inputs = Inputs(NoRecords(), drain)  # type: ignore[arg-type]
    assert inputs.list_parts() == ["signals-0", "pulse"]
    part = inputs.build_part("inputs", "pulse", None)
    said = []
    for _ in range(120):
        said += part.next_batch()
        clock.advance(timedelta(seconds=0.1))
    assert said == [Pulse.START, Pulse.BEAT, Pulse.BEAT]
    assert part.snapshot() is None
    drain.set()
    with pytest.raises(StopIteration):
        part.next_batch()
