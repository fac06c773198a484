"""Pools that are resized while a flow runs: source, intake and groups together, over crashes, against a model."""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from connectors.kafka import source
from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Pool, Schedule, on, seconds
from signalbox.agents.pools import PoolSizes
from signalbox.app import App
from signalbox.ids import key_group
from tests.support.engine import Engine

MOST = 5
MEMBERS = [f"worker_{number}" for number in range(1, MOST + 1)]
GROUPS = {str(key_group(member)) for member in MEMBERS}
SUBJECTS = [*(f"s{number}" for number in range(8)), "worker_4", None]
PARTITIONS = 2
EPOCHS_TO_REST = 4


class Worker(Agent):
    """Answers each signal once: at once, or a minute later."""

    addressing = Pool(size=2, max=MOST)

    class State(AgentState):
        done: int = 0

    @on("work.now")
    def now(self, state: State, signal: Signal[int], context: Any) -> Directive:
        state.done += 1
        return Emit("alert.done", {"number": signal.data, "by": context.agent_id})

    @on("work.later")
    def later(self, state: AgentState, signal: Signal[int], context: Any) -> Directive:
        return Schedule("work.due", seconds(60), signal.data, timer=f"t{signal.data}")

    @on("work.due")
    def due(self, state: AgentState, signal: Signal[int]) -> Directive:
        return Emit("alert.late", {"number": signal.data})

    def stopped(self, state: AgentState, context: Any) -> Directive:
        return Emit("alert.stopped", {"by": context.agent_id})


def make_engine(directory: Path) -> Engine:
    app = App(agents=[Worker], builtins=False)
    return Engine(app, directory, partitions=PARTITIONS, keep=GROUPS.__contains__)


def rest(engine: Engine) -> None:
    """Let everything be read, processed, due and saved."""
    epochs = 0
    while epochs < EPOCHS_TO_REST:
        behind = [one for one, log in zip(engine.parts, engine.logs, strict=True) if one.position < len(log.values)]
        epochs = 0 if behind else epochs + 1
        for partition in range(PARTITIONS):
            engine.poll(partition, 10_000)
        engine.settle()
        engine.wait(seconds(61))


def answers(engine: Engine, type: str) -> list[Any]:
    return [signal.data for signal in engine.written.values() if signal.type == type]


def living(engine: Engine) -> list[str]:
    return sorted(agent_id for group in engine.runtime.groups.values() for agent_id in group)


parts = st.integers(0, PARTITIONS - 1)
counts = st.integers(1, 12)
subjects = st.sampled_from(SUBJECTS)
types = st.sampled_from(["work.now", "work.now", "work.later"])
signals = st.lists(st.tuples(subjects, types), min_size=1, max_size=6)


class ResizingMachine(RuleBasedStateMachine):
    """Any mix of signals, resizes per worker, epochs that end one by one, late parcels, timers and crashes."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(_DIRECTORIES.pop())
        self.engine = make_engine(self.directory)
        self.number = 0
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.subjects: dict[int, tuple[int, str | None]] = {}

    def _put(self, partition: int, subject: str | None, type: str) -> None:
        self.number += 1
        now = self.engine.clock.now()
        signal: Signal[Any] = Signal(
            id=f"n{self.number}", source="test", type=type, subject=subject, data=self.number, time=now
        )
        self.engine.put(partition, signal)
        self.sent[type].append(self.number)
        self.subjects[self.number] = (partition, subject)

    @rule(partition=parts, wanted=signals)
    def handle(self, partition: int, wanted: list[tuple[str | None, str]]) -> None:
        """Signals come in and are handled, unless the partition waits for the other to end its epoch."""
        self.arrive(partition, wanted)
        self.engine.poll(partition, 100)
        self.engine.deliver(partition, 1000)

    @rule(partition=parts, wanted=signals)
    def arrive(self, partition: int, wanted: list[tuple[str | None, str]]) -> None:
        for subject, type in wanted:
            self._put(partition, subject, type)

    @rule(partition=parts, most=counts, delivered=st.integers(0, 40))
    def poll(self, partition: int, most: int, delivered: int) -> None:
        self.engine.poll(partition, most)
        self.engine.deliver(partition, delivered)

    @rule(sizes=st.lists(st.tuples(parts, st.integers(1, MOST)), min_size=1, max_size=2))
    def resize(self, sizes: list[tuple[int, int]]) -> None:
        """Workers are told of a size: both, the same or not, or one alone."""
        for partition, size in sizes:
            self.engine.resize(partition, {"worker": size})

    @rule(ahead=parts)
    def settle(self, ahead: int) -> None:
        self.engine.end_epoch(ahead)
        self.engine.settle()

    @rule(partition=parts, wanted=signals)
    def advance_one(self, partition: int, wanted: list[tuple[str | None, str]]) -> None:
        """One partition is ahead of the other, which still hands over."""
        self.engine.end_epoch(partition)
        self.handle(1 - partition, wanted)

    @rule(by=st.sampled_from([1, 61]))
    def wait(self, by: int) -> None:
        self.engine.wait(seconds(by))

    @rule(saved_some=st.booleans())
    def crash(self, saved_some: bool) -> None:
        self.engine.crash(saved_some=saved_some)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        rest(self.engine)
        self._check_answers()
        sizes = [pools.wanted()["worker"] for pools in self.engine.pools]
        assert living(self.engine) == MEMBERS[: max(sizes)]
        shutil.rmtree(self.directory, ignore_errors=True)

    def _check_answers(self) -> None:
        done = answers(self.engine, "alert.done")
        assert sorted(one["number"] for one in done) == self.sent["work.now"]
        assert sorted(one["number"] for one in answers(self.engine, "alert.late")) == self.sent["work.later"]
        assert self.engine.differing == [], "a repetition went another way"
        order: dict[Any, list[int]] = defaultdict(list)
        for one in done:
            place = self.subjects[one["number"]]
            if place[1] is not None:
                order[place].append(one["number"])
        assert all(numbers == sorted(numbers) for numbers in order.values())


_DIRECTORIES: list[str] = []


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path) -> Iterator[None]:
    _DIRECTORIES[:] = [str(tmp_path / f"run-{number}") for number in range(3000)]
    yield
    _DIRECTORIES.clear()


@pytest.mark.parametrize("reach", [1_000_000, 6])
def test_no_mix_of_resizes_and_crashes_loses_doubles_or_reorders(monkeypatch: pytest.MonkeyPatch, reach: int) -> None:
    """Each signal is answered once, by the same member in every repetition, and those of a subject in their order."""
    monkeypatch.setattr(source, "_REACH", reach)
    run_state_machine_as_test(
        ResizingMachine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )


def send(engine: Engine, numbers: range, *, partition: int = 0, subject: str = "") -> None:
    """Signals, of eight subjects or of one, that a partition hands over at once."""
    for number in numbers:
        now = engine.clock.now()
        about = subject or f"s{number % 8}"
        signal: Signal[Any] = Signal(
            id=f"n{number}", source="test", type="work.now", subject=about, data=number, time=now
        )
        engine.put(partition, signal)
    take(engine, partition)


def take(engine: Engine, *partitions: int) -> None:
    for partition in partitions:
        engine.poll(partition, 1000)
        engine.deliver(partition, 1000)


def by(engine: Engine) -> dict[int, str]:
    """Who answered which signal."""
    return {one["number"]: one["by"] for one in answers(engine, "alert.done")}


def test_a_size_holds_from_the_next_epoch_on(tmp_path: Path) -> None:
    """What is handed over in the epoch of the order still goes to the members of before, and then to new ones too."""
    engine = make_engine(tmp_path)
    send(engine, range(8))
    engine.resize(0, {"worker": 5})
    send(engine, range(8, 16))
    engine.settle()
    send(engine, range(16, 24))
    found = by(engine)
    assert [found[number] for number in range(8)] == [found[number] for number in range(8, 16)]
    assert {found[number] for number in range(8)} == {"worker_1", "worker_2"}
    assert {found[number] for number in range(16, 24)} > {"worker_1", "worker_2"}


def test_new_members_are_there_before_their_first_signal(tmp_path: Path) -> None:
    """The first partition that uses a larger size brings its members into being."""
    engine = make_engine(tmp_path)
    take(engine, 0, 1)
    assert living(engine) == MEMBERS[:2]
    engine.resize(1, {"worker": 4})
    engine.settle()
    take(engine, 1)
    assert living(engine) == MEMBERS[:4]


def test_members_end_with_the_last_partition_that_counts_on_them(tmp_path: Path) -> None:
    """A member stays as long as one partition of any worker still uses a size that it is within."""
    engine = make_engine(tmp_path)
    take(engine, 0, 1)
    for partition in range(PARTITIONS):
        engine.resize(partition, {"worker": 1})
        assert living(engine) == MEMBERS[:2]
        engine.settle()
        take(engine, partition)
    assert living(engine) == MEMBERS[:1]


def test_after_a_crash_sizes_wait_for_the_repetition(tmp_path: Path) -> None:
    """An epoch that ends before everything is repeated changes no size: the rest goes the way it went before."""
    engine = make_engine(tmp_path)
    send(engine, range(8))
    first = by(engine)
    engine.crash(saved_some=False)
    engine.resize(0, {"worker": 5})
    engine.poll(0, 3)
    engine.settle()
    take(engine, 0)
    assert engine.differing == []
    assert engine.parts[0].told == {"worker": 2}
    engine.settle()
    send(engine, range(8, 16))
    assert {by(engine)[number] for number in range(8, 16)} > set(first.values())


def test_an_epoch_goes_no_further_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the offset that the last snapshot named waits for the next epoch, and is lost in none."""
    monkeypatch.setattr(source, "_REACH", 10)
    engine = make_engine(tmp_path)
    send(engine, range(8))
    for _ in range(3):
        send(engine, range(8, 16))
        assert len(answers(engine, "alert.done")) == 8
    engine.crash(saved_some=False)
    take(engine, 0)
    assert len(answers(engine, "alert.done")) == 8
    engine.settle()
    take(engine, 0)
    assert engine.parts[0].position == len(engine.logs[0].values) == 32


def test_a_drained_partition_changes_its_size_at_once(tmp_path: Path) -> None:
    """After a drain nothing is repeated, so a start with a backlog need not be over before a size changes."""
    engine = make_engine(tmp_path)
    send(engine, range(8))
    engine.settle()
    engine.stop()
    for number in range(8, 16):
        signal: Signal[Any] = Signal(
            id=f"n{number}", source="test", type="work.now", subject=f"s{number}", data=number, time=engine.clock.now()
        )
        engine.put(0, signal)
    engine.resize(0, {"worker": 5})
    engine.poll(0, 3)
    engine.settle()
    engine.poll(0, 3)
    assert engine.parts[0].told == {"worker": 5}


def test_a_crash_before_the_first_snapshot_repeats_with_the_first_sizes(tmp_path: Path) -> None:
    """A directory begins anew with the sizes that it began with, whatever is wanted, or declared, by then."""
    engine = make_engine(tmp_path)
    send(engine, range(8))
    for partition in range(PARTITIONS):
        engine.resize(partition, {"worker": 5})
    engine.told.write_text('{"pools": {"worker": {"size": 4}}}')
    engine.crash(saved_some=True)
    take(engine, 0)
    assert engine.differing == []
    assert engine.parts[0].told == {"worker": 2}


def test_a_member_keeps_its_state_until_all_partitions_have_spoken(tmp_path: Path) -> None:
    """After a start a member is not taken for surplus because the one partition that counts on it comes last."""
    engine = make_engine(tmp_path)
    engine.resize(1, {"worker": 5})
    take(engine, 0, 1)
    engine.settle()
    send(engine, range(3), partition=1, subject="worker_4")
    engine.settle()
    engine.crash(saved_some=False)
    take(engine, 0, 1)
    group = engine.runtime.groups[str(key_group("worker_4"))]
    instance = group.get("worker_4")
    assert instance is not None
    assert instance.processed == 3
    assert answers(engine, "alert.stopped") == []


def test_the_end_of_a_member_is_told_once(tmp_path: Path) -> None:
    """That a member has ended is told when a snapshot holds it; a crash before then does not tell it twice."""
    engine = make_engine(tmp_path)
    take(engine, 0, 1)
    for partition in range(PARTITIONS):
        engine.resize(partition, {"worker": 1})
    engine.settle()
    for saved_some in (False, True):
        take(engine, 0, 1)
        assert living(engine) == MEMBERS[:1]
        assert answers(engine, "alert.stopped") == []
        engine.wait(seconds(1))
        engine.crash(saved_some=saved_some)
    rest(engine)
    assert answers(engine, "alert.stopped") == [{"by": "worker_2"}]


def test_sizes_of_a_larger_pool_are_cut_to_what_there_is(tmp_path: Path) -> None:
    """A snapshot, or a word of the supervisor, that is beyond the pool's maximum of now stops no worker."""
    pools = PoolSizes({"worker": Pool(2, 5)}, told=tmp_path / "scaling.json")
    assert pools.at_start({"worker": 100, "gone": 7}) == {"worker": 5}
    (tmp_path / "scaling.json").write_text(
        '{"pools": {"worker": {"size": 70, "since": 1}, "gone": {"size": 2}}, "x": 1}'
    )
    assert pools.wanted() == {"worker": 5}


@pytest.mark.parametrize("text", ["", "{", '{"pools": []}', '{"pools": {"worker": {"size": "5"}}}'])
def test_a_damaged_word_of_the_supervisor_stops_no_worker(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is said in the log, and the sizes of the settings hold."""
    (tmp_path / "scaling.json").write_text(text)
    assert PoolSizes({"worker": Pool(2, 5)}, told=tmp_path / "scaling.json").wanted() == {"worker": 2}
