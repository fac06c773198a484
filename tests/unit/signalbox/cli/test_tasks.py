"""`task submit`, with and without waiting."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from schemas.payloads.tasks import TaskCompleted, TaskFailed, TaskRejected
from schemas.signal import Signal, new_signal
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli

Answer = Callable[[dict[str, Any]], tuple[str, Any] | None]


def completed(task: dict[str, Any]) -> tuple[str, Any]:
    payload = TaskCompleted(task_id=task["task_id"], agent_id="a", result=task["params"], duration_ms=1.5, attempts=1)
    return "task.completed", payload.model_dump(mode="json")


def failed(task: dict[str, Any]) -> tuple[str, Any]:
    error = {"type": "ValueError", "message": "no", "retryable": False}
    payload = TaskFailed(task_id=task["task_id"], agent_id="a", error=error, attempts=1)
    return "task.failed", payload.model_dump(mode="json")


def rejected(task: dict[str, Any]) -> tuple[str, Any]:
    payload = TaskRejected(task_id=task["task_id"], agent_id="a", reason="unknown_action", message="what?")
    return "task.rejected", payload.model_dump(mode="json")


def answer_with(broker: MemoryBroker, answer: Answer) -> None:
    """Let every submitted task be answered so, along with an answer to somebody else's task."""

    def react(_topic: str, signal: Signal[Any]) -> Sequence[tuple[str, Signal[Any]]]:
        answers = [completed({"task_id": "another", "params": {}}), answer(signal.data)]
        return [("results", new_signal(one[0], one[1], source="test")) for one in answers if one]

    broker.react = react


def test_submit_publishes_a_task_and_prints_its_id(cli: Cli, broker: MemoryBroker) -> None:
    """The task is on `signals` under its own id, which is printed."""
    result = cli("task", "submit", "--action", "echo", "--params", '{"value": 1}')
    [signal] = broker.signals("signals")
    task_id = result.stdout.strip()
    assert (result.exit_code, signal.type, signal.subject) == (0, "task.submitted", task_id)
    assert signal.data == {"task_id": task_id, "action": "echo", "params": {"value": 1}}


def test_count_submits_many_and_numbers_their_parameters(cli: Cli, broker: MemoryBroker) -> None:
    """With --count, {i} in the parameters is each task's number; ids are all different."""
    result = cli("task", "submit", "--action", "echo", "--params", '{"n": {i}, "text": "task {i}"}', "--count", "3")
    params = [signal.data["params"] for signal in broker.signals("signals")]
    assert sorted(one["n"] for one in params) == [0, 1, 2]
    assert {one["text"] for one in params} == {"task 0", "task 1", "task 2"}
    assert len(set(result.stdout.split())) == 3


def test_a_single_task_keeps_its_braces(cli: Cli, broker: MemoryBroker) -> None:
    """Without --count, parameters are taken as they are."""
    cli("task", "submit", "--action", "echo", "--params", '{"text": "{i}"}')
    assert broker.signals("signals")[0].data["params"] == {"text": "{i}"}


@pytest.mark.parametrize("params", ["{", "[1]", "1"])
def test_parameters_are_a_json_object(cli: Cli, broker: MemoryBroker, params: str) -> None:
    """Other parameters are refused with 2, and nothing is sent."""
    result = cli("task", "submit", "--action", "echo", "--params", params)
    assert (result.exit_code, broker.records("signals")) == (2, [])


def test_wait_prints_every_answer(cli: Cli, broker: MemoryBroker) -> None:
    """With --wait the answers to these tasks, and to no others, are printed; all completed is exit 0."""
    answer_with(broker, completed)
    words = ("--params", '{"n": {i}}', "--count", "20", "--wait", "-o", "jsonl")
    result = cli("task", "submit", "--action", "echo", *words)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(rows)) == (0, 20)
    assert {row["task_id"] for row in rows} == {signal.subject for signal in broker.signals("signals")}
    assert sorted(row["result"]["n"] for row in rows) == list(range(20))
    assert {(row["status"], row["agent_id"], row["duration_ms"]) for row in rows} == {("completed", "a", 1.5)}


@pytest.mark.parametrize(("answer", "error"), [(failed, "ValueError"), (rejected, "unknown_action")])
def test_wait_ends_with_1_if_a_task_was_not_completed(
    cli: Cli, broker: MemoryBroker, answer: Answer, error: str
) -> None:
    """A failed and a rejected task are printed with their error, and the exit code is 1."""
    answer_with(broker, answer)
    result = cli("task", "submit", "--action", "echo", "--wait", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)[0]["error"]["type"]) == (1, error)


def test_wait_ends_with_124_if_answers_are_missing(cli: Cli, broker: MemoryBroker) -> None:
    """What was answered is printed, and missing answers end with 124."""
    answer_with(broker, lambda task: completed(task) if task["params"]["n"] else None)
    words = ("--params", '{"n": {i}}', "--count", "3", "--wait", "--timeout", "0.1", "-o", "jsonl")
    result = cli("task", "submit", "--action", "echo", *words)
    assert (result.exit_code, len(result.stdout.splitlines())) == (124, 2)
    assert "1 of 3 tasks have no answer after 0.1 s" in result.stderr


def test_an_answer_given_twice_counts_once(cli: Cli, broker: MemoryBroker) -> None:
    """A second answer to the same task is not printed again and does not stand in for another's."""
    answer_with(broker, completed)
    react = broker.react
    broker.react = lambda topic, signal: [*react(topic, signal), *react(topic, signal)]
    result = cli("task", "submit", "--action", "echo", "--count", "2", "--wait", "-o", "jsonl")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_progress_is_only_for_terminals(cli: Cli, broker: MemoryBroker) -> None:
    """Off a terminal no bar is drawn; stderr has two plain lines, and none with -q."""
    answer_with(broker, completed)
    loud = cli("task", "submit", "--action", "echo", "--wait")
    assert loud.stderr == "submitted 1\ncompleted 1, failed 0, without answer 0\n"
    assert cli("-q", "task", "submit", "--action", "echo", "--wait").stderr == ""
