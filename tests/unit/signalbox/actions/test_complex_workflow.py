"""Workflows of actions: what runs, what is undone when a step fails, and what is refused before anything runs."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from signalbox.actions import ActionContext, ActionError, action
from signalbox.actions.complex_workflow import (
    ComplexWorkflowParams,
    WorkflowFailed,
    WorkflowReport,
    complex_workflow,
)
from signalbox.app import App
from signalbox.testing import Harness


class FakeCalls:
    """Stands in for `ActionContext.call`: notes each call, and fails those whose key it is told to."""

    def __init__(self, *failing: str, results: Mapping[str, Any] | None = None) -> None:
        self.made: list[tuple[str, str, Mapping[str, Any]]] = []
        self._failing = failing
        self._results = results or {}

    @property
    def keys(self) -> list[str]:
        return [key for key, _, _ in self.made]

    async def __call__(self, action: str, params: Mapping[str, Any], *, key: str, cleanup: bool = False) -> Any:
        assert cleanup == key.startswith("undo:"), "what undoes is not bound by the deadline, and all else is"
        self.made.append((key, action, params))
        if key in self._failing:
            raise ActionError(f"{key} went wrong", type="broken", retryable=True)
        return self._results.get(key, {"of": key})


def _step(name: str, *, undo: bool = False, **params: Any) -> dict[str, Any]:
    step: dict[str, Any] = {"name": name, "action": f"do_{name}", "params": params}
    return step | ({"compensation": {"action": f"undo_{name}", "params": {"step": name}}} if undo else {})


def _run(steps: list[dict[str, Any]], calls: FakeCalls, **options: Any) -> WorkflowReport:
    context = ActionContext(
        idempotency_key="i1",
        agent_id="a1",
        attempt=1,
        deadline=None,
        correlation_id=None,
        log=logging.LoggerAdapter(logging.getLogger("test")),
        services=cast("Any", None),
        call=calls,
    )
    params = complex_workflow.validated({"steps": steps, **options})
    return cast("WorkflowReport", asyncio.run(complex_workflow.run(params, context)))


def _failure(steps: list[dict[str, Any]], calls: FakeCalls, **options: Any) -> WorkflowFailed:
    with pytest.raises(WorkflowFailed) as failure:
        _run(steps, calls, **options)
    return failure.value


def _statuses(report: WorkflowReport) -> dict[str, str]:
    return {step.name: step.status for step in report.steps}


def test_steps_run_in_order_with_the_results_of_earlier_ones() -> None:
    """Each step runs under its name once, with what it refers to in place, and the report has every result."""
    calls = FakeCalls(results={"reserve": {"id": 7}})
    report = _run([_step("reserve"), _step("pay", order={"$ref": "steps.reserve.result.id"})], calls)
    assert calls.made == [("reserve", "do_reserve", {}), ("pay", "do_pay", {"order": 7})]
    assert report.status == "completed"
    assert [step.model_dump() for step in report.steps] == [
        {"name": "reserve", "status": "completed", "result": {"id": 7}, "error": None},
        {"name": "pay", "status": "completed", "result": {"of": "pay"}, "error": None},
    ]


def test_a_failed_step_undoes_those_before_it() -> None:
    """The compensations of completed steps run in reverse; the failed step, and those after it, are left alone."""
    calls = FakeCalls("c")
    failure = _failure([_step(name, undo=True) for name in "abcd"], calls)
    assert calls.keys == ["a", "b", "c", "undo:b", "undo:a"]
    assert (failure.type, failure.retryable, str(failure)) == (
        "rolled_back",
        False,
        "the step 'c' failed: c went wrong",
    )
    assert {step["name"]: step["status"] for step in failure.details["steps"]} == {
        "a": "compensated",
        "b": "compensated",
        "c": "failed",
        "d": "skipped",
    }
    assert failure.details["steps"][2]["error"] == {"type": "broken", "message": "c went wrong", "retryable": True}


def test_a_compensation_that_fails_keeps_no_other_from_running() -> None:
    """All compensations are attempted; the failure says which steps could not be undone, and why."""
    calls = FakeCalls("c", "undo:b")
    failure = _failure([_step(name, undo=True) for name in "abc"], calls)
    assert calls.keys == ["a", "b", "c", "undo:b", "undo:a"]
    assert failure.type == "rollback_failed"
    assert "could not be undone: b" in str(failure)
    stuck = failure.details["steps"][1]
    assert (stuck["status"], stuck["error"]["message"]) == ("compensation_failed", "undo:b went wrong")


def test_a_compensation_may_refer_to_results() -> None:
    """A compensation gets its own parameters, with the result of the step that it undoes in place."""
    step = {"name": "reserve", "action": "reserve"} | {
        "compensation": {"action": "release", "params": {"id": {"$ref": "steps.reserve.result.of"}}}
    }
    calls = FakeCalls("pay")
    _failure([step, _step("pay")], calls)
    assert calls.made[-1] == ("undo:reserve", "release", {"id": "reserve"})


def test_without_rollback_what_was_done_stays() -> None:
    """With `rollback_on_error=false` a failed step ends the workflow, and the report says what is left."""
    calls = FakeCalls("b")
    report = _run([_step(name, undo=True) for name in "abc"], calls, rollback_on_error=False)
    assert calls.keys == ["a", "b"]
    assert (report.status, _statuses(report)) == ("partial", {"a": "completed", "b": "failed", "c": "skipped"})


def test_a_partial_failure_can_be_gone_past() -> None:
    """Later steps go on, except those that need a result that is missing; nothing is undone."""
    calls = FakeCalls("b")
    steps = [
        _step("a", undo=True),
        _step("b"),
        _step("c", x={"$ref": "steps.b.result"}),
        _step("d", x={"$ref": "steps.c.result"}),
        _step("e", x={"$ref": "steps.a.result.of"}),
    ]
    report = _run(steps, calls, continue_on_partial_failure=True)
    assert calls.keys == ["a", "b", "e"]
    assert report.status == "partial"
    assert _statuses(report) == {"a": "completed", "b": "failed", "c": "skipped", "d": "skipped", "e": "completed"}
    assert report.steps[2].error is not None
    assert (report.steps[2].error.type, report.steps[2].error.message) == ("missing_result", "there is no result of b")


def test_a_result_without_what_is_referred_to_fails_the_step() -> None:
    """A reference into a result that lacks it is an error of the step, which is not run, and undoes the others."""
    calls = FakeCalls()
    failure = _failure([_step("a", undo=True), _step("b", x={"$ref": "steps.a.result.id"})], calls)
    assert calls.keys == ["a", "undo:a"]
    assert failure.details["steps"][1]["error"]["type"] == "invalid_reference"
    assert "there is no 'id' in steps.a.result" in str(failure)


def test_results_cannot_be_multiplied_without_end() -> None:
    """Parameters that grow too large by what they refer to fail their step."""
    calls = FakeCalls(results={"a": "x" * 50_000})
    failure = _failure([_step("a"), _step("b", x=[{"$ref": "steps.a.result"}] * 10)], calls)
    assert calls.keys == ["a"]
    assert failure.details["steps"][1]["error"]["type"] == "params_too_large"


def test_a_report_of_failures_stays_small() -> None:
    """Error messages are cut, so that the report of a hundred failed steps can be sent."""
    names = [f"s{number}" for number in range(100)]

    class Verbose(FakeCalls):
        async def __call__(self, action: str, params: Mapping[str, Any], *, key: str, cleanup: bool = False) -> Any:
            raise ActionError("€" * 100_000)

    report = _run([_step(name) for name in names], Verbose(), continue_on_partial_failure=True)
    assert len(report.model_dump_json().encode()) < 150_000


def test_a_workflow_that_is_cut_short_undoes_nothing() -> None:
    """A cancelled workflow, as by a drain, stops where it is: whoever takes it up again goes on from there."""

    class Endless(FakeCalls):
        async def __call__(self, action: str, params: Mapping[str, Any], *, key: str, cleanup: bool = False) -> Any:
            if key == "b":
                raise asyncio.CancelledError
            return await super().__call__(action, params, key=key, cleanup=cleanup)

    calls = Endless()
    with pytest.raises(asyncio.CancelledError):
        _run([_step("a", undo=True), _step("b")], calls)
    assert calls.keys == ["a"]


@given(data=st.data(), count=st.integers(1, 8))
def test_what_is_undone_is_what_was_done(data: st.DataObject, count: int) -> None:
    """Whatever fails where, undone are exactly the completed steps that have a compensation, the latest first."""
    names = [f"s{number}" for number in range(count)]
    undoable = data.draw(st.sets(st.sampled_from(names)))
    failing = data.draw(st.sets(st.sampled_from([*names, *(f"undo:{name}" for name in names)])))
    calls = FakeCalls(*failing)
    steps = [_step(name, undo=name in undoable) for name in names]
    first = next((at for at, name in enumerate(names) if name in failing), None)
    if first is None:
        assert _run(steps, calls).status == "completed"
        assert calls.keys == names
        return
    failure = _failure(steps, calls)
    undone = [f"undo:{name}" for name in reversed(names[:first]) if name in undoable]
    assert calls.keys == [*names[: first + 1], *undone]
    assert failure.type == ("rollback_failed" if failing & set(undone) else "rolled_back")
    statuses = {step["name"]: step["status"] for step in failure.details["steps"]}
    for at, name in enumerate(names):
        tried = f"undo:{name}" in undone
        done = ("compensation_failed" if f"undo:{name}" in failing else "compensated") if tried else "completed"
        assert statuses[name] == (done if at < first else "failed" if at == first else "skipped")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "at least 1 item"),
        ([_step(f"s{number}") for number in range(101)], "at most 100 items"),
        ([_step("a"), _step("a")], "two steps called 'a'"),
        ([_step("a:b")], "should match pattern"),
        ([_step("a", x={"$ref": "steps.a.result"})], "no step 'a' before it"),
        ([_step("a", x={"$ref": "steps.b.result"}), _step("b")], "the step 'a' refers to 'steps.b.result'"),
        ([_step("a", x={"$ref": "a.result"})], "is no reference"),
        (
            [{**_step("a"), "compensation": {"action": "x", "params": {"y": {"$ref": "steps.b.result"}}}}, _step("b")],
            "the compensation of 'a' refers to",
        ),
        ([{"name": "a", "action": "complex_workflow"}], "'complex_workflow' cannot be a step"),
        ([{"name": "a", "action": "distribute_task"}], "'distribute_task' cannot be a step"),
        ([{**_step("a"), "compensation": {"action": "complex_workflow"}}], "cannot be a step"),
    ],
)
def test_what_cannot_run_is_refused_at_once(steps: list[dict[str, Any]], message: str) -> None:
    """Names, references and actions that cannot be right are errors of the parameters: nothing runs."""
    with pytest.raises(ValidationError, match=message):
        ComplexWorkflowParams.model_validate({"steps": steps})


class Seats(BaseModel):
    count: int


@action()
async def reserve(params: Seats) -> dict[str, int]:
    """Reserve seats, of which there are two."""
    if params.count > 2:
        raise ActionError("there are two seats", type="sold_out")
    return {"reserved": params.count}


def _submitted(steps: list[dict[str, Any]]) -> Any:
    harness = Harness(App(actions=[reserve]))
    params = {"steps": steps}
    harness.send("task.submitted", {"task_id": "t1", "action": "complex_workflow", "params": params}, subject="t1")
    [answer] = harness.emitted("task.*", topic="results")
    return answer


def test_a_task_can_be_a_workflow() -> None:
    """The steps of a submitted workflow are the app's actions, and the answer is its report."""
    first = {"name": "first", "action": "reserve", "params": {"count": 1}}
    second = {"name": "second", "action": "reserve", "params": {"count": {"$ref": "steps.first.result.reserved"}}}
    answer = _submitted([first, second])
    assert answer.type == "task.completed"
    assert answer.data["result"]["status"] == "completed"
    assert answer.data["result"]["steps"][1]["result"] == {"reserved": 1}


def test_a_step_that_no_action_can_do_fails_the_task_before_anything_runs() -> None:
    """An unknown action in any step or compensation is found when the task comes in."""
    answer = _submitted(
        [
            {"name": "a", "action": "reserve", "params": {"count": 1}},
            {"name": "b", "action": "reserve", "params": {"count": 1}, "compensation": {"action": "nonsense"}},
        ]
    )
    assert (answer.type, answer.data["error"]["type"], answer.data["attempts"]) == ("task.failed", "unknown_action", 0)
    assert "'nonsense'" in answer.data["error"]["message"]


def test_a_workflow_that_was_rolled_back_fails_its_task() -> None:
    """A step's failure fails the task as `rolled_back`."""
    answer = _submitted([{"name": "a", "action": "reserve", "params": {"count": 3}}])
    assert (answer.type, answer.data["error"]["type"]) == ("task.failed", "rolled_back")
    assert answer.data["error"]["message"] == "the step 'a' failed: there are two seats"
