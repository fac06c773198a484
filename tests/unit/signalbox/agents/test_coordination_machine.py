"""The coordinator under any interleaving: agents come and go, reports are late or doubled, time passes, it restarts."""

from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.payloads.tasks import Strategy
from schemas.signal import Signal
from signalbox.actions.distribute_task import COORDINATOR
from signalbox.agents.coordinator_agent import MOST_ATTEMPTS, CoordinatorAgent
from signalbox.agents.strategies import STRATEGIES
from signalbox.app import App
from signalbox.config import Settings
from signalbox.testing import Harness

_BOUNDS = {"max_active": 6, "max_waiting": 2, "max_agents": 4, "longest_s": 50.0}
_SETTINGS = Settings.model_validate({"agents": {"coordinator_agent": {"state": _BOUNDS}}})
_TASKS = st.sampled_from([f"t{number}" for number in range(9)])
_AGENTS = st.sampled_from([f"a{number}" for number in range(5)])
_CAPABILITIES = st.sets(st.sampled_from("xyz"), min_size=1)


class Coordination(RuleBasedStateMachine):
    """Tells the coordinator everything that it could hear, in any order, and counts its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(App(agents=[CoordinatorAgent], builtins=False), _SETTINGS)
        self.expected: Counter[str] = Counter()
        """Answers that each task is to get in the end."""
        self.registered: dict[str, set[str]] = {}

    def answers(self) -> list[Signal[Any]]:
        return self.harness.emitted("task.*", topic="results")

    def answered(self) -> Counter[str]:
        return Counter(answer.data["task_id"] for answer in self.answers())

    def delegations(self) -> list[Signal[Any]]:
        return self.harness.emitted("task.delegated")

    @property
    def state(self) -> CoordinatorAgent.State:
        state = self.harness.state(COORDINATOR)
        assert isinstance(state, CoordinatorAgent.State)
        return state

    @rule(
        task_id=_TASKS,
        required=_CAPABILITIES,
        strategy=st.none() | st.sampled_from(sorted(STRATEGIES)),
        deadline_s=st.none() | st.integers(-1, 60),
    )
    def submit(self, task_id: str, required: set[str], strategy: Strategy | None, deadline_s: int | None) -> None:
        if self.answered()[task_id] == self.expected[task_id]:  # else it is the same task again
            self.expected[task_id] += 1
        deadline = None if deadline_s is None else self.harness.clock.now() + timedelta(seconds=deadline_s)
        task = {"task_id": task_id, "action": "do", "params": {}, "required_capability": sorted(required)}
        self.harness.send("task.distribute", task | {"strategy": strategy, "deadline": deadline}, subject=COORDINATOR)

    @rule(agent_id=_AGENTS, capabilities=_CAPABILITIES)
    def register(self, agent_id: str, capabilities: set[str]) -> None:
        record = {"agent_id": agent_id, "agent_type": "a", "kind": "pool", "capabilities": sorted(capabilities)}
        record |= {"metadata": {"takes_tasks": True}, "node": "n", "version": "1", "started_at": "2026-01-01T00:00:00Z"}
        if agent_id in self.registered or len(self.registered) < _BOUNDS["max_agents"]:
            self.registered[agent_id] = capabilities
        self.harness.send("agent.registered", record, subject=agent_id)

    @rule(agent_id=_AGENTS)
    def stop(self, agent_id: str) -> None:
        self.registered.pop(agent_id, None)
        self.harness.send("agent.stopped", {"agent_id": agent_id, "stopped_at": "2026-01-01T00:00:00Z"})

    @precondition(lambda self: self.delegations())
    @rule(data=st.data(), failed=st.booleans())
    def report(self, data: st.DataObject, failed: bool) -> None:
        delegations = self.delegations()
        # Counted from the latest, which are the ones that may be current; others are late, or reported on already.
        delegated = delegations[-1 - data.draw(st.integers(0, len(delegations) - 1), label="back")]
        told = delegated.data
        latest = [one.data["delegation_id"] for one in delegations if one.data["task_id"] == told["task_id"]][-1]
        is_open = self.answered()[told["task_id"]] < self.expected[told["task_id"]]
        waits = is_open and not self.state.active_tasks[told["task_id"]].agent_id
        report = {name: told[name] for name in ("task_id", "delegation_id", "attempt")}
        report |= {"agent_id": delegated.subject, "duration_ms": 1, "attempts": 1, "result": told["delegation_id"]}
        if failed:
            report["error"] = {"type": "broken", "message": told["delegation_id"]}
        before, ignored = len(self.answers()), self.state.ignored_reports
        self.harness.send("task.delegated.finished", report, subject=COORDINATOR)
        counts = is_open and not waits and told["delegation_id"] == latest
        assert len(self.answers()) == before + counts
        assert self.state.ignored_reports == ignored + (not counts)

    @rule(passing_s=st.integers(1, 40))
    def wait(self, passing_s: int) -> None:
        self.harness.advance(timedelta(seconds=passing_s))

    @rule()
    def restart(self) -> None:
        self.harness.restart()

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        """What is under way is what has not been answered, and no more."""
        assert Counter(self.state.active_tasks.keys()) == self.expected - self.answered()
        assert not self.answered() - self.expected
        assert not self.harness.dead_letters

    @invariant()
    def tasks_are_with_agents_that_can_do_them(self) -> None:
        """A task is with an agent that is there, or waits because there is none for it."""
        state = self.state
        assert {one: set(agent.capabilities) for one, agent in state.managed_agents.items()} == self.registered
        for task in state.active_tasks.values():
            able = {one for one, capabilities in self.registered.items() if task.required <= capabilities}
            assert task.attempt <= MOST_ATTEMPTS
            assert task.agent_id in self.registered if task.agent_id else not able

    def teardown(self) -> None:
        """In the end everything is answered once, though no agent reports any more."""
        self.harness.advance(timedelta(seconds=120))
        assert self.answered() == self.expected
        assert self.state.active_tasks == {}


TestCoordination = Coordination.TestCase
TestCoordination.__doc__ = "However signals, timers and restarts interleave, each task is answered exactly once."
TestCoordination.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
