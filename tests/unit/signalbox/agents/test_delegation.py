"""Handing tasks over and taking delegated ones: what agents do with them, and what they report."""

from typing import Any

import pytest

from signalbox.actions.distribute_task import COORDINATOR, DistributeTaskParams, distribute_task
from signalbox.agents import seconds
from tests.unit.signalbox.agents.coordination import answer_of, answers, coordinated, coordinator_state, submit


def test_a_singleton_can_do_tasks() -> None:
    """A task for what only one agent offers goes to that one."""
    harness = coordinated()
    submit(harness, capability="archiving")
    assert (answer_of(harness).data["agent_id"], answer_of(harness).data["result"]) == ("the_archive", "stored")


@pytest.mark.parametrize(
    ("text", "type", "message"),
    [
        ("refused", "rude", "not polite"),
        ("odd", "PydanticSerializationError", "object"),
        ("large", "result_too_large", "limits.signal_bytes leaves"),
    ],
)
def test_an_error_of_the_agent_is_the_answer(text: str, type: str, message: str) -> None:
    """What goes wrong at the agent, or cannot be sent, fails the task with its own word."""
    harness = coordinated()
    submit(harness, capability="translation", params={"text": text})
    answer = answer_of(harness)
    assert (answer.type, answer.data["error"]["type"], answer.data["agent_id"]) == ("task.failed", type, "translator_1")
    assert message in answer.data["error"]["message"]
    assert not harness.dead_letters


@pytest.mark.parametrize(
    ("action_name", "params", "type", "error"),
    [
        ("echo", {"value": 3}, "task.completed", None),
        ("work", {}, "task.completed", None),
        ("work", {"fails": True}, "task.failed", "broken"),
        ("work", {"fails": "?"}, "task.failed", "invalid_params"),
        ("nonsense", {}, "task.failed", "unknown_action"),
        ("pass_on", {}, "task.failed", "delegated_already"),
    ],
)
def test_the_task_pool_does_delegated_tasks(action_name: str, params: Any, type: str, error: str | None) -> None:
    """A task agent runs the named action, with an effect or without, and the coordinator alone answers."""
    harness = coordinated()
    submit(harness, capability="task_processing", action=action_name, params=params)
    answer = answer_of(harness)
    assert (answer.type, answer.source) == (type, f"agent/{COORDINATOR}")
    assert answer.data["agent_id"] == "task_agent_1"
    assert (answer.data["error"]["type"] if error else None) == error
    assert coordinator_state(harness).ignored_reports == 0


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"required_capability": []}, "required_capability"),
        ({"required_capability": ""}, "required_capability"),
        ({"strategy": "best"}, "strategy"),
        ({"task": {"action": "distribute_task"}}, "cannot be distributed again"),
        ({"deadline": "tomorrow"}, "deadline"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_the_task_agent(distribution: Any, message: str) -> None:
    """The task agent that gets the task answers at once, and the coordinator never hears of it."""
    harness = coordinated()
    submit(harness, distribution=distribution)
    answer = answer_of(harness)
    assert (answer.data["error"]["type"], answer.data["attempts"]) == ("invalid_params", 0)
    assert message in answer.data["error"]["message"]
    assert not harness.emitted("task.distribute")


def test_a_task_that_is_too_large_to_be_handed_over_is_answered_so() -> None:
    """A task whose hand-over nobody would read fails as `task_too_large`."""
    harness = coordinated()
    submit(harness, params={"text": "x" * 261_000})
    assert answer_of(harness).data["error"]["type"] == "task_too_large"
    assert not harness.dead_letters


def test_any_pure_action_can_hand_its_task_over() -> None:
    """The signal has what the action said and what belongs to the task, and the task agent gives no answer."""
    harness = coordinated()
    data = {"task_id": "t1", "action": "pass_on", "params": {}, "priority": 3}
    harness.send("task.submitted", data, subject="order-1")
    [signal] = harness.emitted("work.passed_on")
    task = {"task_id": "t1", "subject": "order-1", "deadline": None, "priority": 3}
    assert (signal.subject, signal.data) == ("somebody", {"fails": False, **task})
    assert answers(harness) == []
    states = [harness.state(f"task_agent_{number}") for number in range(1, 6)]
    assert [state.last_task["status"] for state in states if state.processed_count] == ["handed_over"]


def test_the_earliest_deadline_holds() -> None:
    """Of the deadlines of the task, of its distribution and of its signal the earliest is handed on."""
    harness = coordinated()
    now = harness.clock.now()
    late, early = now + seconds(60), now + seconds(20)
    submit(harness, "t1", deadline=late, distribution={"deadline": early.isoformat()})
    submit(harness, "t2", deadline=early, distribution={"deadline": late.isoformat()})
    assert {task.deadline for task in coordinator_state(harness).active_tasks.values()} == {early}


def test_only_the_agent_that_is_addressed_does_the_task() -> None:
    """Agents of several classes see the delegation; one of them works on it."""
    harness = coordinated()
    submit(harness, capability="archiving")
    assert [signal.data["agent_id"] for signal in harness.emitted("task.delegated.finished")] == ["the_archive"]


def test_one_capability_may_be_written_as_text() -> None:
    """A single capability and a list of one mean the same."""
    task = {"action": "echo"}
    one = DistributeTaskParams.model_validate({"required_capability": "x", "task": task})
    assert one == DistributeTaskParams.model_validate({"required_capability": ["x"], "task": task})
    assert distribute_task.run(one).subject == COORDINATOR
