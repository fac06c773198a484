"""The checker itself: it is silent when all is well, and names each fault that it is there to find."""

import random
from collections import Counter
from typing import Any

import pytest

from schemas.signal import Signal
from tests.support.chaos import Fault, Strike, plan_faults, recoveries_s
from tests.support.chaos_check import AlertLedger, TaskLedger, Written, doubled_ids


def _answer(number: int, offset: int, *, subject: str = "s", partition: int = 0, **data: Any) -> Written:
    body = {"task_id": str(number), "agent_id": "task_agent_1", "result": {"value": number}, **data}
    signal: Signal[Any] = Signal(id=f"id-{number}", source="x", type="task.completed", subject=subject, data=body)
    return Written(partition, offset, offset, signal)


def _alert(news: str, alert: str, offset: int) -> Written:
    data = {"dedup_key": "k", "alert_id": alert, "state": news, "subject": "s"}
    signal: Signal[Any] = Signal(id=f"id-{offset}", source="x", type=f"alert.{news}", subject="s", data=data)
    return Written(0, offset, offset, signal)


def _ledger(*answers: Written) -> TaskLedger:
    ledger = TaskLedger()
    for answer in answers:
        ledger.add(answer)
    return ledger


def test_answers_without_fault_pass() -> None:
    """Each task once, in order within its subject, whatever the order across subjects."""
    ledger = _ledger(_answer(1, 0, subject="b", partition=1), _answer(0, 0), _answer(2, 1))
    ledger.check(3)
    assert ledger.distinct() == 3
    assert ledger.newest == 2


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([_answer(0, 0), _answer(2, 1)], "lost: 1\n  1"),
        ([_answer(0, 0), _answer(1, 1), _answer(1, 7), _answer(2, 8)], "duplicated: 1\n  task 1 of s at 0@1 and 0@7"),
        ([_answer(0, 0), _answer(2, 1), _answer(1, 2)], "reordered: 1\n  task 1 of s at 0@2, after task 2"),
        ([_answer(0, 0), _answer(1, 0, partition=1), _answer(2, 1, partition=1)], "reordered: 1"),
        ([_answer(0, 0), _answer(1, 1), _answer(2, 2), _answer(3, 3)], "never submitted: 1\n  3"),
        ([_answer(0, 0), _answer(1, 1), _answer(2, 2, task_id="x")], "unknown: 1"),
        ([_answer(0, 0), _answer(1, 1), _answer(2, 2, result={"value": 1})], "wrong: 1"),
    ],
)
def test_each_fault_in_answers_is_named(answers: list[Written], found: str) -> None:
    """The message counts the offenders and says where the first of them lie."""
    with pytest.raises(AssertionError) as failed:
        _ledger(*answers).check(3)
    assert found in str(failed.value)


def test_two_answers_with_one_id_are_found() -> None:
    """Signal ids are unique although the tasks differ."""
    twin = _answer(1, 1)
    twin.signal.id = "id-0"
    with pytest.raises(AssertionError, match="same id: 1"):
        _ledger(_answer(0, 0), twin).check()
    assert len(doubled_ids([_answer(0, 0), twin])) == 1


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("raised a, escalated a, resolved a, raised a, resolved a, raised b", None),
        ("raised a, raised b", "two open at once"),
        ("raised a, raised a", "raised twice"),
        ("raised a, resolved a, resolved a", "resolved while not open"),
        ("raised a, resolved b", "resolved while not open"),
        ("escalated a", "escalated while not open"),
    ],
)
def test_each_fault_in_the_life_of_an_alert_is_named(told: str, found: str | None) -> None:
    """An alert is raised first, and no second one of its key is open meanwhile."""
    ledger = AlertLedger()
    for offset, one in enumerate(told.split(", ")):
        news, alert = one.split(" ")
        ledger.add(_alert(news, alert, offset))
    if found is None:
        ledger.check()
        assert ledger.open == {"k": "b"}
    else:
        with pytest.raises(AssertionError, match=found):
            ledger.check()


@pytest.mark.parametrize("rounds", [1, 2, 5, 50])
def test_a_plan_has_all_kinds_of_faults(rounds: int) -> None:
    """A run makes as many faults as asked, the broker's as often as asked, and each other kind if there is room."""
    broker = 2 if rounds >= 10 else 0
    faults = Counter(plan_faults(random.Random(7), rounds, broker=broker))
    assert faults.total() == rounds
    assert faults[Fault.BROKER] == broker
    assert len(faults) == min(rounds, 4) + (broker > 0)


def test_a_recovery_ends_with_the_pause_that_a_fault_caused() -> None:
    """Answers of the moment after the fault do not count as recovered, and the next fault's pause is its own."""
    strikes = [Strike(Fault.WORKER, 1.0, ""), Strike(Fault.NODE, 5.0, "")]
    times = [*range(0, 1050, 10), *range(3000, 5000, 10), *range(9000, 12000, 10)]
    assert recoveries_s(strikes, times) == {Fault.WORKER: [2.0], Fault.NODE: [4.0]}
