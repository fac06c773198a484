"""What happens to an action whose process ended, or drained, in the middle of it; and steps, which are not repeated."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from schemas.payloads.actions import ActionStepEnded
from signalbox.actions import Action, ActionContext, ActionError, Retry, action
from signalbox.clock import SystemClock
from signalbox.errors import ConfigError
from tests.support.action_bench import MakeBench, Params
from tests.support.eventually import eventually


class World:
    """Counts what is done to it, by idempotency key."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.asked: list[str] = []
        self.known: dict[str, int] = {}

    def charge(self, on_unknown: Any, **policy: Any) -> Action:
        """An action on this world."""

        async def reconcile(params: Params, context: ActionContext) -> int | None:
            self.asked.append(context.idempotency_key)
            return self.known.get(context.idempotency_key)

        async def refund(params: Params, context: ActionContext) -> None:
            self.asked.append(context.idempotency_key)
            if params.value < 0:
                msg = "no"
                raise ActionError(msg, type="frozen")

        @action(on_unknown=on_unknown, reconcile=reconcile, compensation=refund, **policy)
        async def charge(params: Params, context: ActionContext) -> int:
            """Leaves a trace."""
            self.done.append(context.idempotency_key)
            return params.value

        return charge


@pytest.fixture
def world() -> World:
    return World()


def test_rerun_is_an_attempt_with_the_same_key(bench: MakeBench, world: World) -> None:
    """Whether or not the first attempt began, the action is run once more under its own idempotency key."""
    made = bench(world.charge("rerun"))
    id = made.start("charge", recovered=True)
    assert made.outcome(id)["attempts"] == 2
    assert world.done == [id]


@pytest.mark.parametrize("policy", ["fail", "compensate", "reconcile"])
def test_what_had_not_begun_is_run(bench: MakeBench, world: World, policy: str) -> None:
    """Without a record of an attempt there is nothing unknown; the attempt is noted before it begins."""
    made = bench(world.charge(policy))
    id = made.start("charge", recovered=True)
    assert (made.outcome(id)["type"], made.outcome(id)["attempts"]) == ("action.completed", 1)
    assert (world.done, world.asked) == ([id], [])
    assert [one.data["reason"] for one in made.journal.records if one.type == "action.attempted"] == ["start"]


def test_fail_leaves_it_at_that(bench: MakeBench, world: World) -> None:
    """With `on_unknown="fail"` an attempt that was cut short is the last."""
    made = bench(world.charge("fail"))
    outcome = made.outcome(made.start("charge", recovered=True, attempts=1))
    assert (outcome["error"]["type"], outcome["attempts"], world.done) == ("unknown_outcome", 1, [])


def test_compensate_undoes_it(bench: MakeBench, world: World) -> None:
    """The compensation runs under a key of its own, and the outcome says what came of it."""
    made = bench(world.charge("compensate"))
    id = made.start("charge", recovered=True, attempts=1)
    assert made.outcome(id)["error"]["type"] == "compensated"
    assert (world.asked, world.done) == ([f"{id}:undo"], [])
    frozen = made.outcome(made.start("charge", recovered=True, attempts=1, params={"value": -1}))
    assert frozen["error"]["type"] == "compensation_failed"
    assert "frozen" in frozen["error"]["message"]


def test_reconcile_finds_the_outcome_or_runs_it_again(bench: MakeBench, world: World) -> None:
    """What the other side knows is the result, without another call; else the action is run."""
    made = bench(world.charge("reconcile"))
    instruction = made.instruction("charge")
    instruction.is_recovered, instruction.attempts = True, 1
    world.known[instruction.id] = 77
    made.executor.start(instruction)
    assert made.outcome(instruction.id)["result"] == 77
    assert world.done == []
    unknown = made.start("charge", recovered=True, attempts=1)
    assert made.outcome(unknown)["result"] == 2
    assert (world.asked, world.done) == ([instruction.id, unknown], [unknown])


def test_a_policy_needs_what_carries_it_out() -> None:
    """Compensating without a compensation is a configuration error, and so is reconciling without asking."""
    for policy in ("compensate", "reconcile"):
        with pytest.raises(ConfigError, match=policy):

            @action(on_unknown=policy)  # type: ignore[arg-type]
            async def charge(params: Params) -> None:
                """Nothing undoes it."""


def test_a_drain_leaves_word_and_is_no_strike(bench: MakeBench) -> None:
    """An attempt that a drain cuts short is noted as such, and goes on later without counting as a death."""

    @action()
    async def long(params: Params) -> None:
        """Longer than a drain waits."""
        await asyncio.sleep(60)

    made = bench(long)
    made.start("long")
    eventually(lambda: made.executor.attempts["long"] == 1, timeout_s=5)
    made.executor.stop(0.05)
    assert [one.data["reason"] for one in made.journal.records] == ["drain"]

    @action()
    async def short(params: Params) -> None:
        """Ends."""

    made = bench(short, max_restarts=1)
    outcome = made.outcome(made.start("short", recovered=True, drained=True, attempts=1))
    assert (outcome["type"], outcome["attempts"]) == ("action.completed", 2)
    assert [one.data["reason"] for one in made.journal.records if one.type == "action.attempted"] == ["retry"]


class Shop:
    """An action of two steps, each of which counts its runs."""

    def __init__(self, *, retry: Retry | None = None) -> None:
        self.runs: list[tuple[str, str, int]] = []
        self.fails: dict[str, ActionError] = {}
        shop = self

        @action(retry=Retry(max_attempts=2, first_s=0.001))
        async def step(params: Params, context: ActionContext) -> int:
            """Counts itself."""
            shop.runs.append((context.idempotency_key, context.agent_id, context.attempt))
            name = context.idempotency_key.rpartition(":")[2]
            if name in shop.fails:
                raise shop.fails[name]
            return params.value * 10

        @action(retry=retry or Retry(max_attempts=1))
        async def order(params: Params, context: ActionContext) -> list[int]:
            """Two steps."""
            return [
                await context.call("step", {"value": 1}, key="reserve"),
                await context.call("step", {"value": 2}, key="charge"),
            ]

        self.actions = (order, step)


def test_steps_are_journaled_and_not_repeated(bench: MakeBench) -> None:
    """Each step has a key of its own; after a crash those that ended come from the journal."""
    shop = Shop()
    made = bench(*shop.actions)
    id = made.start("order")
    assert made.outcome(id)["result"] == [10, 20]
    assert [key for key, _, _ in shop.runs] == [f"{id}:reserve", f"{id}:charge"]
    ended = [one.data for one in made.journal.records if one.type == "action.step.ended"]
    assert [(one["key"], one["result"]) for one in ended] == [("reserve", 10), ("charge", 20)]

    again = made.instruction("order")
    again.is_recovered = True
    again.steps["reserve"] = ActionStepEnded(instruction_id=again.id, key="reserve", action="step", result=99)
    made.executor.start(again)
    assert made.outcome(again.id)["result"] == [99, 20]
    assert [key for key, _, _ in shop.runs[2:]] == [f"{again.id}:charge"]


def test_a_step_that_fails_raises_with_its_type(bench: MakeBench) -> None:
    """It has its own retries, its failure is journaled, and the action can tell what it was."""
    shop = Shop()
    shop.fails["charge"] = ActionError("no", type="too_poor", retryable=True)
    made = bench(*shop.actions)
    id = made.start("order")
    assert made.outcome(id)["error"]["type"] == "too_poor"
    assert [attempt for _, _, attempt in shop.runs] == [1, 1, 2]
    ended = [one.data for one in made.journal.records if one.type == "action.step.ended"]
    assert ended[1]["error"]["type"] == "too_poor"


def test_attempts_do_not_multiply(bench: MakeBench) -> None:
    """Under an action with retries a step has none, and what ended well is not run again by the next attempt."""
    shop = Shop(retry=Retry(max_attempts=3, first_s=0.001))
    shop.fails["charge"] = ActionError("no", type="busy", retryable=True)
    made = bench(*shop.actions)
    id = made.start("order")
    assert made.outcome(id)["attempts"] == 3
    assert [key.rpartition(":")[2] for key, _, _ in shop.runs] == ["reserve", "charge", "charge", "charge"]


@pytest.mark.parametrize(
    ("name", "params", "type"),
    [("nothing", {}, "unknown_action"), ("step", {"value": "x"}, "invalid_params"), ("nested", {}, "nested_step")],
)
def test_a_step_that_cannot_be_run_says_why(bench: MakeBench, name: str, params: dict[str, Any], type: str) -> None:
    """An unknown action, wrong parameters and steps of steps are errors of the step."""

    @action()
    async def outer(_: Params, context: ActionContext) -> Any:
        """One step."""
        return await context.call(name, params, key="one")

    @action()
    async def nested(_: Params, context: ActionContext) -> Any:
        """A step with a step."""
        return await context.call("step", {}, key="two")

    made = bench(outer, nested, *Shop().actions)
    assert made.outcome(made.start("outer"))["error"]["type"] == type


def test_steps_do_not_wait_for_the_place_of_their_action(bench: MakeBench) -> None:
    """With every place taken by actions that run steps, the steps run nevertheless."""
    shop = Shop()
    made = bench(*shop.actions, max_running=2)
    ids = [made.start("order") for _ in range(6)]
    assert [made.outcome(id)["result"] for id in ids] == [[10, 20]] * 6


class Trip:
    """An action that books, waits, and gives back what it booked when that does not end well."""

    def __init__(self) -> None:
        self.done: list[str] = []
        trip = self

        @action()
        async def book(params: Params) -> None:
            """At once."""
            trip.done.append("booked")

        @action()
        async def wait(params: Params) -> None:
            """For ever."""
            await asyncio.sleep(60)

        @action()
        async def give_back(params: Params) -> None:
            """Takes a moment."""
            await asyncio.sleep(0.01)
            trip.done.append("given back")

        @action(ends_itself=True)
        async def travel(params: Params, context: ActionContext) -> None:
            """Books, and waits."""
            try:
                await context.call("book", {}, key="book")
                await context.call("wait", {}, key="wait")
            except ActionError as error:
                await context.call("give_back", {}, key="undo", cleanup=True)
                msg = f"not travelled: {error.type}"
                raise ActionError(msg, type="rolled_back", details={"because": error.type}) from error

        self.actions = (travel, book, wait, give_back)


def test_what_ends_itself_cleans_up_after_its_deadline(bench: MakeBench) -> None:
    """The deadline ends the step that is under way; what cleans up is not bound by it."""
    trip = Trip()
    made = bench(*trip.actions)
    soon = SystemClock().now() + timedelta(seconds=0.1)
    outcome = made.outcome(made.start("travel", deadline=soon))
    assert outcome["error"]["details"] == {"because": "TimeoutError"}
    assert trip.done == ["booked", "given back"]


def test_what_ends_itself_cleans_up_when_it_is_cancelled(bench: MakeBench) -> None:
    """A wish to cancel ends the step that is under way, and no other begins but what cleans up."""
    trip = Trip()
    made = bench(*trip.actions)
    instruction = made.instruction("travel")
    made.executor.start(instruction)
    eventually(lambda: made.executor.attempts["wait"] == 1, timeout_s=5)
    instruction.is_cancelled = True
    made.executor.cancel(instruction)
    assert made.outcome(instruction.id)["error"]["details"] == {"because": "cancelled"}
    assert trip.done == ["booked", "given back"]


def test_cleaning_up_goes_on_after_a_crash(bench: MakeBench) -> None:
    """One that was cancelled, or late, and died while it cleaned up, cleans up: its steps tell how far it came."""
    trip = Trip()
    made = bench(*trip.actions)
    instruction = made.instruction("travel", deadline=SystemClock().now() - timedelta(seconds=1))
    instruction.is_recovered = instruction.is_cancelled = True
    instruction.steps["book"] = ActionStepEnded(instruction_id=instruction.id, key="book", action="book")
    made.executor.start(instruction)
    assert made.outcome(instruction.id)["error"]["type"] == "rolled_back"
    assert trip.done == ["given back"]
