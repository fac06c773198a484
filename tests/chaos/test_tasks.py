"""Tasks under fire: whatever is killed, every task is answered exactly once and the agents' state counts each once."""

import random
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pytest

from signalbox.ids import stable_hash
from tests.support.chaos import PATIENCE_S, Chaos, Fault, MortalBroker, MortalNode, plan_faults, recoveries_s
from tests.support.chaos_check import TaskLedger, TopicLog, doubled_ids
from tests.support.chaos_load import OpenLoop, task_subjects, tasks
from tests.support.eventually import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

_SUBJECTS = 500
_AGENTS = 5
#: The next strike comes so soon after the last that it falls into the recovery, or after answers flow again.
_OVERLAP, _OVERLAP_S, _WELL_S = 0.35, 0.8, 2.0


class _Run:
    """Tasks go in, faults happen, answers are taken down."""

    def __init__(self, node: MortalNode, broker: MortalBroker, rng: random.Random, stack: ExitStack, *, rate: float):
        self.source = f"load-{rng.randrange(1 << 32):08x}"
        self.node = node
        self.ledger = TaskLedger()
        self._results = self._log("results", stack)
        self._stack = stack
        self._rng = rng
        topic = f"{node.prefix}signals"
        self.load = OpenLoop(node.bootstrap, topic, tasks(_SUBJECTS, source=self.source), rate=rate)
        stack.callback(self.load.close)
        self.chaos = Chaos(rng, node, self.load, broker)

    def strike(self, faults: list[Fault]) -> None:
        """Let the faults happen one after another, some of them before the last is overcome."""
        self.load.start()
        self._answers_flow()
        for number, fault in enumerate(faults, 1):
            self.chaos.strike(fault)
            if self._rng.random() < _OVERLAP:
                self.load.run_for(self._rng.uniform(0, _OVERLAP_S))
            else:
                self._answers_flow()
                self.load.run_for(self._rng.uniform(0, _WELL_S))
            self._take_down()
            print(f"round {number}: {self.load.sent} submitted, {self.ledger.distinct()} answered", flush=True)
            self.ledger.check()

    def finish(self) -> int:
        """Stop the load, and wait until all tasks are answered; returns how many there were."""
        submitted = self.load.finish()

        def all_answered() -> bool:
            self._take_down()
            self.ledger.check()
            assert self.ledger.distinct() >= submitted, f"{submitted - self.ledger.distinct()} tasks wait for an answer"
            return True

        eventually(all_answered, timeout_s=PATIENCE_S)
        return submitted

    def end(self, submitted: int) -> None:
        """Drain the node, and check that nothing more came and nothing is missing."""
        self.node.drain()
        self._take_down()
        self.ledger.check(submitted)
        assert not self.node.orphans()

    def read(self, topic: str, *, uncommitted: bool = False) -> list[Any]:
        """All of a topic."""
        return list(self._log(topic, self._stack, uncommitted=uncommitted).read_on(timeout_s=PATIENCE_S))

    def state(self) -> dict[str, int]:
        """What each task agent has counted."""
        agents = [f"task_agent_{number}" for number in range(1, _AGENTS + 1)]
        return {agent: self.node.get(f"/api/v1/agents/{agent}")["state"]["processed_count"] for agent in agents}

    def report(self, name: str, submitted: int) -> str:
        """One line on the run."""
        found = recoveries_s(self.chaos.strikes, array("q", sorted(self.ledger.times_ms)))
        times = " ".join(f"{fault}={_spread(took)}" for fault, took in found.items())
        lost, doubled = len(self.ledger.lost(submitted)), len(self.ledger.problems["duplicated"])
        return (
            f"{name}: {len(self.chaos.strikes)} strikes ({self.chaos.count()}), {submitted} tasks, lost {lost}, "
            f"duplicated {doubled}; seconds until answers flowed again, median/slowest: {times}"
        )

    def _log(self, topic: str, stack: ExitStack, *, uncommitted: bool = False) -> TopicLog:
        log = TopicLog(self.node.bootstrap, f"{self.node.prefix}{topic}", uncommitted=uncommitted)
        stack.callback(log.close)
        return log

    def _take_down(self) -> None:
        for written in self._results.read_on(timeout_s=PATIENCE_S):
            self.ledger.add(written)

    def _answers_flow(self) -> None:
        """Wait until some of what is submitted from now on is answered."""
        goal = self.load.sent

        def newly_answered() -> bool:
            self.load.check()
            self._take_down()
            return self.ledger.newest > goal

        eventually(newly_answered, timeout_s=PATIENCE_S)


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.1f}/{ordered[-1]:.1f}"


def _expected_state(source: str, submitted: int) -> dict[str, int]:
    """What a run without faults would have counted: the oracle."""
    subjects = islice(task_subjects(_SUBJECTS, source=source), submitted)
    return dict(Counter(f"task_agent_{1 + stable_hash(subject) % _AGENTS}" for subject in subjects))


def test_every_task_is_answered_once_whatever_is_killed(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """At 2,000 tasks per second, kills of worker, node and broker, freezes and drains lose and double nothing."""
    node = make_node(settings={"telemetry.actions": "false"})
    run = _Run(node, broker, rng, closing, rate=2_000)
    run.strike(plan_faults(rng, rounds, broker=2 if rounds >= 10 else 1))
    submitted = run.finish()
    summarize(run.report("one worker", submitted))
    assert run.state() == dict(run.ledger.per_agent) == _expected_state(run.source, submitted)
    run.end(submitted)
    assert run.read("dead-letters") == []


def test_two_workers_answer_every_task_once_and_tell_of_each_action_once(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """A cluster of two, killed one worker at a time or whole, doubles neither answers nor telemetry."""
    node = make_node(workers=2)
    run = _Run(node, broker, rng, closing, rate=500)
    run.strike(plan_faults(rng, max(2, rounds // 2), broker=1 if rounds >= 10 else 0))
    submitted = run.finish()
    summarize(run.report("two workers", submitted))
    assert run.state() == dict(run.ledger.per_agent) == _expected_state(run.source, submitted)
    run.end(submitted)
    assert run.read("dead-letters") == []
    telemetry = run.read("telemetry")
    assert doubled_ids(telemetry) == []
    actions = Counter((one.signal.type, one.signal.data["action"]) for one in telemetry)
    names = ("validate_task", "process_task", "complete_task")
    assert actions == {(f"agent.action.{when}", name): submitted for when in ("starting", "finished") for name in names}


@pytest.mark.parametrize(("workers", "rate"), [(1, 2_000), (2, 500)])
def test_transactions_show_every_answer_once_and_never_what_was_taken_back(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
    workers: int,
    rate: float,
) -> None:
    """With `exactly_once`, readers of what is committed see each answer once; others also see what was undone."""
    settings = {"flows.agents.delivery": "exactly_once", "telemetry.actions": "false"}
    node = make_node(workers=workers, settings=settings)
    run = _Run(node, broker, rng, closing, rate=rate)
    run.strike(plan_faults(rng, max(2, rounds // 2), broker=1 if rounds >= 10 else 0))
    submitted = run.finish()
    undone = len(run.read("results", uncommitted=True)) - submitted
    summarize(run.report(f"exactly once, {workers} workers, {undone} answers written and undone", submitted))
    assert run.state() == dict(run.ledger.per_agent) == _expected_state(run.source, submitted)
    run.end(submitted)
    assert undone > 0
    for topic in ("dead-letters", "telemetry"):
        assert doubled_ids(run.read(topic)) == []
