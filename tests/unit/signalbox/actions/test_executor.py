"""The executor alone, with a journal in memory: limits, order, time and everything that an action may do wrong."""

import asyncio
import gc
import threading
import time
import weakref
from datetime import timedelta

import pytest

from signalbox.actions import Action, ActionContext, ActionError, Breaker, Dependency, Retry, action
from signalbox.clock import SystemClock
from signalbox.errors import ConfigError
from tests.support.action_bench import Bench, MakeBench, Params
from tests.support.eventually import eventually


@action()
async def double(params: Params) -> int:
    """Twice the value."""
    return params.value * 2


@action()
def double_in_a_thread(params: Params) -> int:
    """The same, not in the loop's thread."""
    assert threading.current_thread().name.startswith("action")
    return params.value * 2


@pytest.mark.parametrize("name", ["double", "double_in_a_thread"])
def test_an_outcome_tells_of_the_result(bench: MakeBench, name: str) -> None:
    """The outcome has the result, one attempt, the time spent, and what the agent wanted back."""
    made = bench(double, double_in_a_thread)
    outcome = made.outcome(made.start(name, context={"back": [1]}))
    assert (outcome["type"], outcome["result"], outcome["attempts"]) == ("action.completed", 2, 1)
    assert (outcome["agent_id"], outcome["action"], outcome["context"]) == ("a", name, {"back": [1]})
    assert outcome["duration_ms"] >= 0
    eventually(lambda: made.executor.in_flight == 0, timeout_s=5)


@pytest.mark.parametrize("name", ["double", "double_in_a_thread"])
def test_an_ended_action_leaves_nothing_to_the_garbage_collector(bench: MakeBench, name: str) -> None:
    """All of it is freed at its end: were it to wait for the collector, thousands would stop the process for long."""
    made = bench(double, double_in_a_thread)
    gc.collect()
    gc.disable()
    try:
        instruction = made.instruction(name)
        request = weakref.ref(instruction.request)
        made.executor.start(instruction)
        del instruction
        eventually(lambda: request() is None, timeout_s=5)
    finally:
        gc.enable()


class Escape(BaseException):
    """Not an `Exception`."""


def _raising(error: BaseException, *, blocking: bool) -> Action:
    if blocking:

        @action("raises")
        def raises(params: Params) -> None:
            raise error

        return raises

    @action("raises")
    async def raises_soon(params: Params) -> None:
        await asyncio.sleep(0)
        raise error

    return raises_soon


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize(
    ("error", "type"),
    [
        (ValueError("no"), "ValueError"),
        (ActionError("no", type="too_poor"), "too_poor"),
        (SystemExit(1), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Escape("no"), "Escape"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_whatever_an_action_raises_is_its_outcome(
    bench: MakeBench, error: BaseException, type: str, blocking: bool
) -> None:
    """Not even what is meant to end a process ends the executor; others go on."""
    made = bench(_raising(error, blocking=blocking), double)
    outcome = made.outcome(made.start("raises"))
    assert (outcome["type"], outcome["error"]["type"], outcome["attempts"]) == ("action.failed", type, 1)
    assert made.outcome(made.start("double"))["result"] == 4


def test_an_unknown_action_and_invalid_params_are_not_attempted(bench: MakeBench) -> None:
    """What cannot be run fails with why, after no attempt."""
    made = bench(double)
    unknown, invalid = made.outcome(made.start("treble")), made.outcome(made.start("double", params={"value": "x"}))
    assert (unknown["error"]["type"], unknown["attempts"]) == ("unknown_action", 0)
    assert (invalid["error"]["type"], invalid["attempts"]) == ("invalid_params", 0)
    assert invalid["error"]["message"].startswith("value: ")


def test_results_that_cannot_be_sent_fail_the_action(bench: MakeBench) -> None:
    """A result without a JSON form, or one that is too large, is an error that says so."""

    @action()
    async def strange(params: Params) -> object:
        """No JSON form."""
        return object()

    @action()
    async def large(params: Params) -> str:
        """A lot."""
        return "x" * 2000

    made = bench(strange, large, result_bytes=1000)
    assert made.outcome(made.start("strange"))["error"]["type"] == "invalid_result"
    assert made.outcome(made.start("large"))["error"]["type"] == "result_too_large"


def test_time_is_limited_by_the_action_and_by_the_deadline(bench: MakeBench) -> None:
    """An attempt that takes longer than its action allows, or than the deadline leaves, ends there."""

    @action(timeout_s=0.05)
    async def slow(params: Params) -> None:
        """Too slow for itself."""
        await asyncio.sleep(30)

    @action()
    async def patient(params: Params) -> None:
        """Without a limit of its own."""
        await asyncio.sleep(30)

    made = bench(slow, patient)
    soon = SystemClock().now() + timedelta(seconds=0.1)
    past = SystemClock().now() - timedelta(seconds=1)
    assert made.outcome(made.start("slow"))["error"]["type"] == "TimeoutError"
    assert made.outcome(made.start("patient", deadline=soon))["error"]["type"] == "TimeoutError"
    assert made.outcome(made.start("patient", deadline=past))["error"]["type"] == "deadline_exceeded"


def test_attempts_are_written_down_before_they_begin(bench: MakeBench) -> None:
    """A retry leaves a record with its number and reason; every attempt has the same idempotency key."""
    seen: list[tuple[str, int, list[str]]] = []

    @action(retry=Retry(max_attempts=3, first_s=0.001))
    async def flaky(params: Params, context: ActionContext) -> str:
        """Works the third time."""
        seen.append((context.idempotency_key, context.attempt, [one.type for one in made.journal.records]))
        if context.attempt < 3:
            raise ConnectionError
        return "done"

    made = bench(flaky)
    id = made.start("flaky")
    assert made.outcome(id)["attempts"] == 3
    attempted = ["action.attempted"]
    assert seen == [(id, 1, []), (id, 2, attempted), (id, 3, attempted * 2)]
    assert [one.data["reason"] for one in made.journal.records[:2]] == ["retry", "retry"]


def test_an_instruction_that_outlived_its_process_is_attempted_again_within_bounds(bench: MakeBench) -> None:
    """A restart is an attempt of its own; one too many gives the instruction up without another call."""
    made = bench(double, max_restarts=2)
    assert made.outcome(made.start("double", recovered=True, restarts=1))["attempts"] == 2
    assert made.journal.records[0].data["reason"] == "restart"
    poisoned = made.outcome(made.start("double", recovered=True, attempts=3, restarts=2))
    assert (poisoned["error"]["type"], poisoned["attempts"]) == ("poisoned", 3)


def test_limits_hold_and_the_urgent_go_first(bench: MakeBench) -> None:
    """At most so many run at once, in all and of one action; what waits is taken by priority, then by age."""
    running: list[str] = []
    order: list[int] = []
    most: list[int] = []
    gate = asyncio.Event()

    async def stay(params: Params, name: str) -> None:
        running.append(name)
        order.append(params.value)
        most.append(len(running))
        await gate.wait()
        running.remove(name)

    @action(limit=1)
    async def narrow(params: Params) -> None:
        """One at a time."""
        assert "narrow" not in running
        await stay(params, "narrow")

    @action()
    async def wide(params: Params) -> None:
        """Any number."""
        await stay(params, "wide")

    made = bench(narrow, wide, max_running=3, max_in_flight=9)
    ids = [made.start("narrow"), made.start("narrow"), made.start("wide"), made.start("wide")]
    eventually(lambda: len(order) == 3, timeout_s=5)
    assert order == [1, 3, 4]
    ids += [made.start("wide"), made.start("wide", priority=5)]
    assert made.executor.in_flight == 6
    assert not made.executor.is_full()
    ids += [made.start("wide") for _ in range(3)]
    assert made.executor.is_full()
    made.executor._loop.call_soon_threadsafe(gate.set)
    for id in ids:
        made.outcome(id)
    assert order[3] == 6
    assert order[4:] == sorted(order[4:])
    assert max(most) == 3


def test_a_stop_leaves_what_does_not_end_in_time(bench: MakeBench) -> None:
    """Within the grace period outcomes are written; after it what still runs gets none, and is not waited for."""

    @action()
    async def sleep(params: Params) -> None:
        """Short for odd numbers."""
        await asyncio.sleep(0.1 if params.value % 2 else 60)

    made = bench(sleep)
    short, long = made.start("sleep"), made.start("sleep")
    began = time.monotonic()
    eventually(lambda: made.executor.in_flight == 2, timeout_s=5)
    made.executor.stop(0.5)
    assert time.monotonic() - began < 5
    assert made.journal.closed
    assert short in made.journal.outcomes()
    assert long not in made.journal.outcomes()


def test_a_failing_dependency_is_left_alone_and_everything_ends_well(bench: MakeBench) -> None:
    """With its breaker open, actions wait instead of calling; when the dependency is back, all of them succeed."""
    calls: list[float] = []
    back = threading.Event()

    @action(
        retry=Retry(max_attempts=50, first_s=0.001, max_s=0.01),
        uses=Dependency("bank", breaker=Breaker(open_s=0.1, probes=2)),
    )
    async def pay(params: Params) -> str:
        """Works when the bank is back."""
        calls.append(time.monotonic())
        if not back.is_set():
            raise ConnectionError
        return "paid"

    made = bench(pay)
    ids = [made.start("pay") for _ in range(40)]
    eventually(lambda: made.executor.breakers["bank"].state == "open", timeout_s=5)
    called = len(calls)
    eventually(lambda: len(calls) >= called + 4, timeout_s=5)  # the probes of two half-open times at least
    assert calls[called + 3] - calls[called - 1] >= 0.1
    back.set()
    assert {made.outcome(id)["result"] for id in ids} == {"paid"}
    eventually(lambda: made.executor.breakers["bank"].state == "closed", timeout_s=5)


def test_who_does_not_try_again_is_told_at_once(bench: MakeBench) -> None:
    """Without a retry policy an open breaker is an error that may pass, after no further call."""
    calls: list[int] = []

    @action(uses=Dependency("bank", breaker=Breaker(min_calls=2, open_s=60)))
    async def pay(params: Params) -> None:
        """Never works."""
        calls.append(params.value)
        raise TimeoutError

    made = bench(pay)
    for _ in range(2):
        made.outcome(made.start("pay"))
    refused = made.outcome(made.start("pay"))
    assert (refused["error"]["type"], refused["error"]["retryable"]) == ("breaker_open", True)
    assert len(calls) == 2


def test_a_definite_answer_does_not_open_a_breaker(bench: MakeBench) -> None:
    """A refusal that will not pass shows that the dependency works."""

    @action(uses=Dependency("bank", breaker=Breaker(min_calls=2)))
    async def pay(params: Params) -> None:
        """Too poor."""
        msg = "no"
        raise ActionError(msg, type="too_poor")

    made = bench(pay)
    assert [made.outcome(made.start("pay"))["error"]["type"] for _ in range(9)] == ["too_poor"] * 9
    assert made.executor.breakers["bank"].state == "closed"


def test_one_dependency_has_one_description() -> None:
    """Two actions that describe one dependency differently are a configuration error."""

    @action(uses=Dependency("bank", limit=1))
    async def one(params: Params) -> None:
        """One."""

    @action(uses=Dependency("bank", limit=2))
    async def other(params: Params) -> None:
        """Other."""

    with pytest.raises(ConfigError, match="bank"):
        Bench(one, other)
