"""The task pool: every task is answered once, whatever it asks for, and the agents count what they did."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.payloads.agents import ActionFinished, ActionStarting
from schemas.payloads.tasks import TaskCompleted, TaskFailed
from schemas.signal import Signal
from signalbox.actions import ActionError, action
from signalbox.app import App
from signalbox.config import Settings
from signalbox.testing import Harness
from tests.support.signals import json_objects


class Params(BaseModel):
    value: Any = None
    count: int = 1


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@action(effect=False)
def give(params: Params) -> Any:
    """Return a thing that is not plain JSON, by name."""
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    things = {
        "object": object(), "surrogate": "\ud800", "deep": deep, "large": "x" * 2_000_000, "bytes": b"\xff\xfe",
        "set": {1}, "moment": timedelta(seconds=1), "nan": float("nan"), "huge": 2**100, "none": None, "model": params,
        "nested": {"inner": Params(value=2)}, "almost": "x" * 890_000,
    }  # fmt: skip
    return things[params.value]


@action(effect=False)
def fail(params: Params) -> None:
    """Raise a thing, by name."""
    errors: dict[str, BaseException] = {
        "refused": ActionError("not now", type="busy", retryable=True),
        "nameless": ActionError("x", type=""),
        "long": ActionError("x" * 10_000, type="y" * 1000),
        "value": ValueError("wrong"),
        "exit": SystemExit(1),
        "mute": _Mute(),
    }
    raise errors[params.value]


def _harness(**settings: Any) -> Harness:
    return Harness(App(actions=[give, fail]), Settings.model_validate(settings))


def _answer(harness: Harness) -> Signal[Any]:
    """The one answer there is."""
    (answer,) = harness.emitted("task.*", topic="results")
    return answer


def _submit(harness: Harness, action: str, params: dict[str, Any] | None = None, **more: Any) -> Signal[Any]:
    attributes = {name: more.pop(name) for name in ("subject", "deadline") if name in more}
    return harness.send(
        "task.submitted", {"task_id": "t1", "action": action, "params": params or {}, **more}, **attributes
    )


def _totals(harness: Harness) -> Counter[str]:
    states = [harness.state(one) for one in harness.agents() if one.startswith("task_agent_")]
    return Counter(
        processed=sum(state.processed_count for state in states), errors=sum(state.error_count for state in states)
    )


def test_a_task_is_done_and_answered() -> None:
    """A task gets one `task.completed` with the action's result, about the same subject, from the agent that did it."""
    harness = _harness()
    task = _submit(harness, "echo", {"value": 7, "more": [1]}, subject="order-1")
    answer = _answer(harness)
    assert (answer.type, answer.subject, answer.causationid) == ("task.completed", "order-1", task.id)
    completed = TaskCompleted.model_validate(answer.data)
    assert (completed.task_id, completed.result, completed.attempts) == ("t1", {"value": 7, "more": [1]}, 1)
    assert answer.source == f"agent/{completed.agent_id}"
    state = harness.state(completed.agent_id)
    assert (state.processed_count, state.error_count) == (1, 0)
    assert state.last_task == {"task_id": "t1", "action": "echo", "status": "completed"}


@pytest.mark.parametrize(
    ("action_name", "params", "type", "message", "attempts"),
    [
        ("nonsense", {}, "unknown_action", "there is no action 'nonsense'; there are: ", 0),
        ("give", {"count": "many"}, "invalid_params", "count: ", 0),
        ("fail", {"value": "refused"}, "busy", "not now", 1),
        ("fail", {"value": "nameless"}, "ActionError", "x", 1),
        ("fail", {"value": "long"}, "y" * 256, "xxx", 1),
        ("fail", {"value": "value"}, "ValueError", "wrong", 1),
        ("fail", {"value": "exit"}, "SystemExit", "1", 1),
        ("fail", {"value": "mute"}, "_Mute", "no readable message", 1),
        ("give", {"value": "object"}, "invalid_result", "object", 1),
        ("give", {"value": "surrogate"}, "UnicodeEncodeError", "surrogates", 1),
        ("give", {"value": "deep"}, "invalid_result", "", 1),
        ("give", {"value": "bytes"}, "invalid_result", "utf-8", 1),
        ("give", {"value": "large"}, "result_too_large", "limits.output_bytes", 1),
    ],
)
def test_a_task_that_fails_is_answered_with_why(
    action_name: str, params: dict[str, Any], type: str, message: str, attempts: int
) -> None:
    """Whatever goes wrong, a task gets exactly one `task.failed` with a stable word, a sentence and the attempts."""
    harness = _harness()
    _submit(harness, action_name, params)
    failed = TaskFailed.model_validate(_answer(harness).data)
    assert (failed.task_id, failed.error.type, failed.attempts) == ("t1", type, attempts)
    assert message in failed.error.message
    assert failed.error.retryable is (type == "busy")
    assert _totals(harness) == Counter(processed=1, errors=1)
    assert harness.state(failed.agent_id).last_task["status"] == "failed"
    assert harness.dead_letters == []


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("set", [1]), ("moment", "PT1S"), ("nan", None), ("huge", 2**100), ("none", None),
        ("model", {"value": "model", "count": 1}), ("nested", {"inner": {"value": 2, "count": 1}}),
    ],
)  # fmt: skip
def test_results_are_sent_as_json_values(value: str, result: Any) -> None:
    """A result of Python types that JSON has a form for is sent in that form, however nested."""
    harness = _harness()
    _submit(harness, "give", {"value": value})
    assert TaskCompleted.model_validate(_answer(harness).data).result == result


def test_a_large_result_is_answered_even_if_the_tasks_own_attributes_are_large() -> None:
    """A result that fits by itself, but not beside a long subject, fails the task and not its answer."""
    harness = _harness()
    _submit(harness, "give", {"value": "almost"}, subject="s" * 50_000)
    assert TaskFailed.model_validate(_answer(harness).data).error.type == "result_too_large"
    harness = _harness()
    _submit(harness, "give", {"value": "almost"}, subject="s")
    assert _answer(harness).type == "task.completed"


@pytest.mark.parametrize("where", ["task", "envelope"])
def test_a_task_past_its_deadline_is_not_run(where: str) -> None:
    """A deadline that has come, in the task or the envelope, fails the task before its action; a later one does not."""
    harness = _harness()
    now = harness.clock.now()
    for deadline in (now, now + timedelta(milliseconds=1)):
        data = {"deadline": deadline.isoformat()} if where == "task" else {}
        envelope = {"deadline": deadline} if where == "envelope" else {}
        _submit(harness, "echo", **data, **envelope)
    late, timely = harness.emitted("task.*", topic="results")
    assert (late.type, late.data["error"]["type"], late.data["attempts"]) == ("task.failed", "deadline_exceeded", 0)
    assert timely.type == "task.completed"


def test_the_smaller_of_two_deadlines_counts() -> None:
    """With a deadline in the task and one in the envelope, the earlier decides."""
    harness = _harness()
    now = harness.clock.now()
    _submit(harness, "echo", deadline=now - timedelta(seconds=1))
    data = {"task_id": "t1", "action": "echo", "params": {}, "deadline": (now + timedelta(days=1)).isoformat()}
    harness.send("task.submitted", data, deadline=now)
    assert [answer.data["error"]["type"] for answer in harness.emitted("task.*", topic="results")] == [
        "deadline_exceeded"
    ] * 2


def test_each_action_is_reported_before_and_after() -> None:
    """Telemetry has a start and an end of each of the three actions, paired by their instruction id, in order."""
    harness = _harness()
    _submit(harness, "echo")
    signals = harness.emitted("agent.action.*", topic="telemetry")
    starts = [ActionStarting.model_validate(one.data) for one in signals if one.type.endswith("starting")]
    ends = [ActionFinished.model_validate(one.data) for one in signals if one.type.endswith("finished")]
    assert [one.type.rpartition(".")[2] for one in signals] == ["starting", "finished"] * 3
    assert [one.action for one in starts] == ["validate_task", "process_task", "complete_task"]
    assert [one.instruction_id for one in starts] == [one.instruction_id for one in ends]
    assert len({one.instruction_id for one in starts}) == 3
    assert {one.status for one in ends} == {"completed"}


def test_a_failed_action_is_reported_as_failed() -> None:
    """The action that failed says so with its error; what does not run is not reported; completion always is."""
    harness = _harness()
    _submit(harness, "fail", {"value": "refused"})
    _submit(harness, "nonsense")
    ends = [
        ActionFinished.model_validate(one.data) for one in harness.emitted("agent.action.finished", topic="telemetry")
    ]
    assert [(one.action, one.status, one.error and one.error.type) for one in ends] == [
        ("validate_task", "completed", None),
        ("process_task", "failed", "busy"),
        ("complete_task", "completed", None),
        ("validate_task", "failed", "unknown_action"),
        ("complete_task", "completed", None),
    ]


def test_telemetry_of_actions_can_be_turned_off() -> None:
    """Without `telemetry.actions` nothing is told about actions, and the answers are the same."""
    harness = _harness(telemetry={"actions": False})
    _submit(harness, "echo")
    assert not harness.emitted("agent.action.*", topic="telemetry")
    assert _answer(harness).type == "task.completed"


@pytest.mark.parametrize(
    "data", [None, {}, {"task_id": "", "action": "echo", "params": {}}, {"task_id": "t", "params": {}}]
)
def test_what_is_no_task_is_set_aside(data: Any) -> None:
    """A `task.submitted` without what a task needs becomes `invalid_payload`: there is no task to answer."""
    harness = _harness()
    harness.send("task.submitted", data)
    assert [letter["reason"] for letter in harness.dead_letters] == ["invalid_payload"]
    assert _totals(harness) == Counter(processed=0, errors=0)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["echo", "give", "fail", "nonsense"]),
            json_objects
            | st.fixed_dictionaries({"value": st.sampled_from(["set", "object", "refused", "value", "none"])}),
            st.sampled_from([None, "a", "b"]),
        ),
        max_size=10,
    )
)
def test_every_task_gets_exactly_one_answer(tasks: list[tuple[str, dict[str, Any], str | None]]) -> None:
    """Any mix of tasks is answered one to one, and the agents' counters add up to the answers."""
    harness = _harness()
    for number, (name, params, subject) in enumerate(tasks):
        harness.send("task.submitted", {"task_id": f"t{number}", "action": name, "params": params}, subject=subject)
    answers = harness.emitted("task.*", topic="results")
    assert sorted(answer.data["task_id"] for answer in answers) == sorted(f"t{n}" for n in range(len(tasks)))
    errors = sum(answer.type == "task.failed" for answer in answers)
    assert _totals(harness) == Counter(processed=len(tasks), errors=errors)
    assert harness.dead_letters == []
