"""Tasks go into a node, faults happen, and answers are taken down: what the chaos tests of tasks have in common."""

import random
from array import array
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from typing import Any

from signalbox.ids import stable_hash
from tests.support.chaos import PATIENCE_S, Chaos, Fault, MortalBroker, MortalNode, recoveries_s
from tests.support.chaos_check import TaskLedger, TopicLog
from tests.support.chaos_load import OpenLoop, task_subjects, tasks
from tests.support.eventually import eventually

_SUBJECTS = 500
_AGENTS = 5
#: The next strike comes so soon after the last that it falls into the recovery, or after answers flow again.
_OVERLAP, _OVERLAP_S, _WELL_S = 0.35, 0.8, 2.0


class TaskRun:
    """Tasks go in, faults happen, answers are taken down."""

    def __init__(
        self, node: MortalNode, broker: MortalBroker | None, rng: random.Random, stack: ExitStack, *, rate: float
    ):
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
        self.answers_flow()
        for number, fault in enumerate(faults, 1):
            self.chaos.strike(fault)
            if self._rng.random() < _OVERLAP:
                self.load.run_for(self._rng.uniform(0, _OVERLAP_S))
            else:
                self.answers_flow()
                self.load.run_for(self._rng.uniform(0, _WELL_S))
            self.take_down()
            print(f"round {number}: {self.load.sent} submitted, {self.ledger.distinct()} answered", flush=True)
            self.ledger.check()

    def finish(self) -> int:
        """Stop the load, and wait until all tasks are answered; returns how many there were."""
        submitted = self.load.finish()

        def all_answered() -> bool:
            self.take_down()
            self.ledger.check()
            assert self.ledger.distinct() >= submitted, f"{submitted - self.ledger.distinct()} tasks wait for an answer"
            return True

        eventually(all_answered, timeout_s=PATIENCE_S)
        return submitted

    def end(self, submitted: int) -> None:
        """Drain the node, and check that nothing more came and nothing is missing."""
        self.node.drain()
        self.take_down()
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

    def take_down(self) -> None:
        for written in self._results.read_on(timeout_s=PATIENCE_S):
            self.ledger.add(written)

    def answers_flow(self) -> None:
        """Wait until some of what is submitted from now on is answered."""
        goal = self.load.sent

        def newly_answered() -> bool:
            self.load.check()
            self.take_down()
            return self.ledger.newest > goal

        eventually(newly_answered, timeout_s=PATIENCE_S)


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.1f}/{ordered[-1]:.1f}"


def expected_state(source: str, submitted: int) -> dict[str, int]:
    """What a run without faults would have counted: the oracle."""
    subjects = islice(task_subjects(_SUBJECTS, source=source), submitted)
    return dict(Counter(f"task_agent_{1 + stable_hash(subject) % _AGENTS}" for subject in subjects))
