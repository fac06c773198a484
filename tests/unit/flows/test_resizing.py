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

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Pool, Schedule, on, seconds
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

    @on("work.now")
    def now(self, state: AgentState, signal: Signal[int], context: Any) -> Directive:
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
    for _ in range(EPOCHS_TO_REST):
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

    @rule(partition=parts, wanted=st.lists(st.tuples(subjects, types), min_size=1, max_size=6), done=st.booleans())
    def put(self, partition: int, wanted: list[tuple[str | None, str]], done: bool) -> None:
        for subject, type in wanted:
            self._put(partition, subject, type)
        if done:
            self.engine.poll(partition, 100)
            self.engine.deliver(partition, 100)

    @rule(partition=parts, size=st.integers(1, MOST))
    def resize(self, partition: int, size: int) -> None:
        self.engine.resize(partition, {"worker": size})

    @rule(partition=parts, most=counts)
    def poll(self, partition: int, most: int) -> None:
        self.engine.poll(partition, most)

    @rule(partition=parts, most=st.integers(1, 40))
    def deliver(self, partition: int, most: int) -> None:
        self.engine.deliver(partition, most)

    @rule(partition=parts)
    def end_epoch(self, partition: int) -> None:
        self.engine.end_epoch(partition)

    @rule()
    def settle(self) -> None:
        self.engine.settle()

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


def test_no_mix_of_resizes_and_crashes_loses_doubles_or_reorders() -> None:
    """Each signal is answered once, by the same member in every repetition, and those of a subject in their order."""
    run_state_machine_as_test(
        ResizingMachine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
    )
