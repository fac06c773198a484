"""The coordinator: who gets a task, and how each task is answered once, whatever becomes of the agents."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from schemas.signal import decode
from signalbox.actions.distribute_task import COORDINATOR
from signalbox.agents import Agent, Pool, on, seconds
from signalbox.agents.coordinator_agent import CoordinatorAgent
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.testing import Harness
from tests.unit.signalbox.agents.coordination import (
    answer_of,
    answers,
    coordinated,
    coordinator_state,
    delegations,
    register,
    report,
    submit,
)
from tests.unit.signalbox.agents.examples import Groups, make_signal


def test_agents_that_take_tasks_are_known_from_the_start() -> None:
    """Pools and singletons with a handler of delegated tasks are managed; others, and keyed agents, are not."""
    managed = coordinator_state(coordinated()).managed_agents
    kinds = Counter(agent_id.rpartition("_")[0] for agent_id in managed)
    assert kinds == {"press": 3, "task_agent": 5, "translator": 3, "the": 1}
    assert managed["the_archive"].capabilities == {"archiving"}


def test_a_task_is_done_by_an_agent_that_can_and_answered_once() -> None:
    """A distributed task gets one answer about its own subject, with the result and the agent that did it."""
    harness = coordinated()
    task = submit(harness, capability="translation", action="translate", params={"text": "chat"}, subject="order-7")
    answer = answer_of(harness)
    assert (answer.type, answer.subject, answer.correlationid) == ("task.completed", "order-7", task.id)
    assert answer.source == f"agent/{COORDINATOR}"
    assert answer.data["result"] == "le chat"
    assert answer.data["agent_id"] == delegations(harness)[0][1] == "translator_1"
    state = coordinator_state(harness)
    assert (state.active_tasks, state.distributed, state.completed) == ({}, 1, 1)
    harness.advance(timedelta(days=2))
    assert len(answers(harness)) == 1


def test_all_capabilities_that_are_named_are_needed() -> None:
    """A list of capabilities means an agent that has each of them."""
    harness = coordinated()
    submit(harness, "t1", ["french", "translation"], params={"text": "a"})
    submit(harness, "t2", ["translation", "printing"])
    assert delegations(harness) == [("t1", "translator_1", 1)]
    assert list(coordinator_state(harness).active_tasks) == ["t2"]


def test_tasks_go_round() -> None:
    """By default the agents take turns, whatever is distributed to others in between."""
    harness = coordinated()
    for number in range(6):
        submit(harness, f"p{number}")
        submit(harness, f"x{number}", "translation", params={"text": "a"})
    tally = Counter(agent for _, agent, _ in delegations(harness))
    assert set(tally.values()) == {2}
    assert len(tally) == 6


def test_the_strategy_can_be_set_and_named() -> None:
    """A task's own strategy goes before the coordinator's."""
    harness = coordinated(coordination_strategy="least_loaded")
    for number in range(3):
        submit(harness, f"t{number}")
    report(harness, "t1", "press_2")
    submit(harness, "t3")
    submit(harness, "t4", distribution={"strategy": "round_robin"})
    assert [agent for _, agent, _ in delegations(harness)] == ["press_1", "press_2", "press_3", "press_2", "press_1"]


def test_a_deadline_fails_the_task() -> None:
    """A task whose agent does not report in time fails at its deadline, and a later report changes nothing."""
    harness = coordinated()
    submit(harness, deadline=harness.clock.now() + seconds(10))
    harness.advance(seconds(9.9))
    assert answers(harness) == []
    harness.advance(seconds(0.2))
    answer = answer_of(harness)
    assert (answer.type, answer.subject, answer.data["error"]["type"]) == (
        "task.failed",
        "order-1",
        "deadline_exceeded",
    )
    report(harness, "t1", "press_1")
    assert len(answers(harness)) == 1
    assert coordinator_state(harness).ignored_reports == 1


def test_a_task_without_a_deadline_ends_too() -> None:
    """An agent that never reports cannot keep a task open for ever."""
    harness = coordinated(longest_s=100)
    submit(harness)
    harness.advance(seconds(101))
    assert answer_of(harness).data["error"]["message"] == "press_1 has not reported within 100 s"


def test_without_an_agent_a_task_fails_after_a_while() -> None:
    """A task without a deadline that nobody can do fails as `no_agent` after `no_agent_s`."""
    harness = coordinated()
    submit(harness, capability="flying")
    harness.advance(seconds(29))
    assert answers(harness) == []
    harness.advance(seconds(2))
    error = answer_of(harness).data["error"]
    assert (error["type"], error["retryable"]) == ("no_agent", True)
    assert error["message"] == "within 30 s there was no agent that offers flying"


def test_with_a_deadline_a_task_waits_for_an_agent_until_then() -> None:
    """A task that nobody can do yet waits until its deadline, and not only for `no_agent_s`."""
    harness = coordinated()
    submit(harness, capability="flying", deadline=harness.clock.now() + seconds(60))
    harness.advance(seconds(59))
    assert answers(harness) == []
    harness.advance(seconds(2))
    assert answer_of(harness).data["error"]["type"] == "deadline_exceeded"


def test_a_task_that_waits_goes_to_the_agent_that_comes() -> None:
    """An agent that registers gets the tasks that have waited for one like it, in their order, and no others."""
    harness = coordinated()
    for task_id, capability in (("t1", "flying"), ("t2", "diving"), ("t3", "flying")):
        submit(harness, task_id, capability)
    register(harness, "kite", "flying")
    assert delegations(harness) == [("t1", "kite", 1), ("t3", "kite", 1)]
    harness.advance(seconds(31))
    assert [answer.data["task_id"] for answer in answers(harness)] == ["t2"]


@pytest.mark.parametrize("change", [{"kind": "keyed"}, {"metadata": {}}, {"metadata": {"takes_tasks": "yes"}}])
def test_who_cannot_be_addressed_or_takes_no_tasks_is_not_managed(change: Any) -> None:
    """Keyed agents, and those that do not say that they take tasks, get none."""
    harness = coordinated()
    register(harness, "kite", "flying", **change)
    assert "kite" not in coordinator_state(harness).managed_agents


def test_a_record_of_the_registry_that_comes_again_changes_nothing() -> None:
    """Agents register at every start; whose turn it is stays as it was."""
    harness = coordinated()
    submit(harness, "t1")
    before = coordinator_state(harness).managed_agents
    harness.restart()
    assert coordinator_state(harness).managed_agents == before
    submit(harness, "t2")
    assert delegations(harness)[1:] == [("t2", "press_2", 1)]


def test_tasks_of_an_agent_that_stops_go_to_others() -> None:
    """Its tasks are delegated anew with the next attempt, and only the new agent's report counts."""
    harness = coordinated()
    for number in range(4):
        submit(harness, f"t{number}")
    [old] = [signal for signal in harness.emitted("task.delegated") if signal.data["task_id"] == "t0"]
    harness.stop("press_1")
    assert delegations(harness)[4:] == [("t0", "press_2", 2), ("t3", "press_3", 2)]
    late = {name: old.data[name] for name in ("task_id", "delegation_id", "attempt")}
    harness.send(
        "task.delegated.finished",
        {**late, "agent_id": "press_1", "result": "late", "duration_ms": 1, "attempts": 1},
        subject=COORDINATOR,
    )
    assert answers(harness) == []
    report(harness, "t0", "press_2")
    assert answer_of(harness).data["result"] == "t0 printed"
    state = coordinator_state(harness)
    assert (state.ignored_reports, state.redelegated, state.completed) == (1, 2, 1)


def test_an_agent_that_comes_back_is_managed_again() -> None:
    """A pool's member that was stopped exists again with its next signal, and then it gets tasks again."""
    harness = coordinated()
    harness.stop("press_1")
    assert "press_1" not in coordinator_state(harness).managed_agents
    harness.send("press.done", "nothing", subject="press_1")
    assert "press_1" in coordinator_state(harness).managed_agents


def test_a_task_whose_agents_stop_again_and_again_is_given_up() -> None:
    """After three agents that stopped under it a task fails as `agent_lost`."""
    harness = coordinated()
    submit(harness)
    for number in (1, 2, 3):
        assert answers(harness) == []
        harness.stop(f"press_{number}")
    answer = answer_of(harness)
    assert (answer.data["error"]["type"], answer.data["attempts"]) == ("agent_lost", 3)
    assert coordinator_state(harness).active_tasks == {}


def test_without_another_agent_a_lost_task_waits() -> None:
    """A task whose only agent stops waits for another one, as if it had just come."""
    harness = coordinated()
    register(harness, "kite", "flying")
    submit(harness, capability="flying")
    harness.advance(seconds(100))
    harness.send("agent.stopped", {"agent_id": "kite", "stopped_at": "2026-01-01T00:00:00Z"}, subject="kite")
    harness.advance(seconds(29))
    assert answers(harness) == []
    register(harness, "kite_2", "flying")
    assert delegations(harness) == [("t1", "kite", 1), ("t1", "kite_2", 2)]


def test_who_was_stopped_cannot_answer_for_a_task_that_waits() -> None:
    """A late report on a task that has no agent any more is ignored, and the task goes on waiting."""
    harness = coordinated()
    register(harness, "kite", "flying")
    submit(harness, capability="flying")
    [delegated] = harness.emitted("task.delegated")
    harness.send("agent.stopped", {"agent_id": "kite", "stopped_at": "2026-01-01T00:00:00Z"}, subject="kite")
    late = {name: delegated.data[name] for name in ("task_id", "delegation_id", "attempt")}
    late |= {"agent_id": "kite", "duration_ms": 1, "attempts": 1}
    harness.send("task.delegated.finished", late, subject=COORDINATOR)
    assert answers(harness) == []
    assert coordinator_state(harness).ignored_reports == 1


def test_nothing_is_kept_of_a_task_that_is_answered() -> None:
    """With its answer a task's timer is gone as well."""
    groups = Groups(App(agents=[CoordinatorAgent], builtins=False), VirtualClock())
    task = {"task_id": "t1", "action": "do", "params": {}, "required_capability": ["x"]}
    record = {"agent_id": "a", "agent_type": "a", "kind": "pool", "capabilities": ["x"], "node": "n", "version": "1"}
    record |= {"started_at": "2026-01-01T00:00:00Z"}
    for id, type, data in (("1", "coordinator.agent.registered", record), ("2", "task.distribute", task)):
        groups.deliver([(1, make_signal(type, data, subject=COORDINATOR, id=id))])
    assert groups.states()[COORDINATOR][3].keys() == {"task.t1"}
    delegated = decode(groups.outgoing[-1].value).data
    done = {name: delegated[name] for name in ("task_id", "delegation_id", "attempt")}
    done |= {"agent_id": "a", "duration_ms": 1, "attempts": 1}
    groups.deliver([(2, make_signal("task.delegated.finished", done, subject=COORDINATOR, id="3"))])
    state, _, _, timers = groups.states()[COORDINATOR]
    assert (state.active_tasks, timers) == ({}, {})


def test_a_report_counts_once() -> None:
    """A report that comes again, or that nobody asked for, is counted and changes nothing."""
    harness = coordinated()
    submit(harness, capability="translation", params={"text": "chat"})
    [report] = harness.emitted("task.delegated.finished")
    harness.send(report.type, report.data, subject=COORDINATOR)
    harness.send(report.type, report.data | {"task_id": "t9"}, subject=COORDINATOR)
    assert len(answers(harness)) == 1
    assert coordinator_state(harness).ignored_reports == 2


def test_a_report_on_an_earlier_task_of_the_same_id_does_not_answer_the_next() -> None:
    """A task that is sent again after its answer is a new one, which the old agent's late report does not touch."""
    harness = coordinated()
    submit(harness, deadline=harness.clock.now() + seconds(1))
    harness.advance(seconds(2))
    submit(harness)
    report(harness, "t1", "press_1")
    assert [answer.type for answer in answers(harness)] == ["task.failed"]
    report(harness, "t1", "press_2")
    assert [answer.type for answer in answers(harness)] == ["task.failed", "task.completed"]


def test_a_task_that_comes_again_while_it_is_under_way_is_answered_once() -> None:
    """The same id again means the same task until it is answered."""
    harness = coordinated()
    submit(harness)
    submit(harness)
    report(harness, "t1", "press_1")
    assert answer_of(harness).type == "task.completed"
    assert coordinator_state(harness).duplicates == 1


@pytest.mark.parametrize(
    ("state", "capability", "params"),
    [
        ({"max_active": 2}, "printing", {}),
        ({"max_waiting": 2}, "flying", {}),
        ({"max_params_characters": 250}, "printing", {"x": "y" * 100}),
    ],
)
def test_more_than_can_be_kept_is_rejected(state: Any, capability: str, params: Any) -> None:
    """Tasks under way, those that wait, and their parameters are bounded; what is beyond is rejected at once."""
    harness = coordinated(**state)
    for number in range(3):
        submit(harness, f"t{number}", capability, params=params)
    answer = answer_of(harness)
    assert (answer.type, answer.subject) == ("task.rejected", "order-1")
    assert (answer.data["task_id"], answer.data["reason"]) == ("t2", "coordinator_full")
    assert (len(coordinator_state(harness).active_tasks), coordinator_state(harness).rejected) == (2, 1)


def test_tasks_that_wait_keep_no_others_back() -> None:
    """With as many tasks waiting as may, one that can be done at once still is."""
    harness = coordinated(max_waiting=1)
    submit(harness, "t1", "flying")
    submit(harness, "t2", "translation", params={"text": "chat"})
    assert answer_of(harness).data["result"] == "le chat"


def test_agents_beyond_the_limit_are_counted_and_left_out() -> None:
    """So many agents are managed; of others the coordinator keeps no more than their number."""
    harness = coordinated(max_agents=12)
    assert coordinator_state(harness).agents_left_out == 0
    register(harness, "kite", "flying")
    assert "kite" not in coordinator_state(harness).managed_agents
    assert coordinator_state(harness).agents_left_out == 1
    harness.stop("press_1")
    register(harness, "kite", "flying")
    assert "kite" in coordinator_state(harness).managed_agents


def test_a_restart_keeps_tasks_and_agents() -> None:
    """After a restart reports and deadlines still answer the tasks of before."""
    harness = coordinated()
    submit(harness, "t1")
    submit(harness, "t2", deadline=harness.clock.now() + seconds(10))
    harness.restart()
    report(harness, "t1", "press_1")
    harness.advance(seconds(11))
    assert [(answer.data["task_id"], answer.type) for answer in answers(harness)] == [
        ("t1", "task.completed"),
        ("t2", "task.failed"),
    ]


def test_a_coordinator_that_is_stopped_answers_what_is_under_way() -> None:
    """No task is left without an answer when an operator stops the coordinator."""
    harness = coordinated()
    submit(harness, "t1")
    submit(harness, "t2", "flying")
    harness.stop(COORDINATOR)
    errors = [(answer.data["task_id"], answer.data["error"]["type"]) for answer in answers(harness)]
    assert errors == [("t1", "coordinator_stopped"), ("t2", "coordinator_stopped")]


def test_an_agent_that_is_no_foundation_agent_is_not_registered() -> None:
    """The registry is how the coordinator knows agents, and plain agents do not appear in it."""

    class Plain(Agent):
        addressing = Pool(size=1)
        capabilities = ("plain",)

        @on("task.delegated")
        def take(self, state: Any, signal: Any) -> None: ...

    harness = Harness(App(agents=[Plain]))
    assert "plain_1" not in coordinator_state(harness).managed_agents
