"""What actions share with each other: places, rates, threads; and how one is cancelled, watched and stood in for."""

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from schemas.payloads.base import ErrorInfo
from signalbox.actions import ActionContext, ActionError, Breaker, Dependency, Rate, Retry, action
from signalbox.errors import ConfigError
from tests.support.action_bench import Bench, MakeBench, Params
from tests.support.eventually import eventually


class Crowd:
    """Counts who runs at the same time."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def stay(self, name: str) -> None:
        self.inside[name] += 1
        self.most[name] = max(self.most[name], self.inside[name])
        await asyncio.sleep(0.02)
        self.inside[name] -= 1


def test_a_bulkhead_is_shared_by_all_that_name_the_dependency(bench: MakeBench) -> None:
    """Two actions on one dependency have its places together; another action does not wait for them."""
    crowd, bank = Crowd(), Dependency("bank", limit=3)

    @action(uses=bank)
    async def pay(params: Params) -> None:
        """At the bank."""
        await crowd.stay("bank")

    @action(uses=lambda params: bank)
    async def save(params: Params) -> None:
        """There, too, as the parameters tell."""
        await crowd.stay("bank")

    @action()
    async def walk(params: Params) -> None:
        """Elsewhere."""
        await crowd.stay("park")

    made = bench(pay, save, walk)
    ids = [made.start(name) for name in ("pay", "save", "walk") * 10]
    assert {made.outcome(id)["type"] for id in ids} == {"action.completed"}
    assert crowd.most == {"bank": 3, "park": 10}


def test_no_agent_takes_all_places(bench: MakeBench) -> None:
    """At most `actions.max_running_per_agent` run for one agent, however many it asked for."""
    crowd = Crowd()

    @action()
    async def work(params: Params, context: ActionContext) -> None:
        """Counted per agent."""
        await crowd.stay(context.agent_id)

    made = bench(work, max_running_per_agent=2)
    ids = [made.start("work", agent_id=agent) for agent in ("greedy", "greedy", "greedy", "modest") * 4]
    for id in ids:
        made.outcome(id)
    assert crowd.most == {"greedy": 2, "modest": 2}


def test_members_of_a_pool_share_their_places(bench: MakeBench) -> None:
    """What one member was asked for runs in the places of all; those that come take over what waits."""
    members, crowd = {"worker": 2}, Crowd()

    @action()
    async def work(params: Params, context: ActionContext) -> None:
        """Counted per agent."""
        await crowd.stay(context.agent_id)

    made = bench(work, max_running_per_agent=1, members=members)
    ids = [made.start("work", agent_id="worker_1", subject=f"s{number}") for number in range(30)]
    made.outcome(ids[3])
    assert crowd.most == {"worker_1": 2}
    members["worker"] = 20
    made.executor.resized("worker")
    for id in ids:
        made.outcome(id)
    assert crowd.most["worker_1"] > 10


def test_what_concerns_one_subject_runs_no_more_at_once_than_with_one_member(bench: MakeBench) -> None:
    """So it stays in order, where an agent does one thing after the other."""
    order: list[int] = []

    @action()
    async def work(params: Params) -> None:
        """The first takes longest."""
        await asyncio.sleep(0.02 / params.value)
        order.append(params.value)

    made = bench(work, max_running_per_agent=1, members={"worker": 9})
    for id in [made.start("work", agent_id=f"worker_{number % 3}", subject="same") for number in range(9)]:
        made.outcome(id)
    assert order == sorted(order)


def test_a_rate_spreads_calls(bench: MakeBench) -> None:
    """A burst goes at once, the rest at the rate; what has another dependency does not wait."""
    calls: list[float] = []

    @action(uses=Dependency("sms", rate=Rate(per_s=50, burst=5)))
    async def send(params: Params) -> None:
        """Metered."""
        calls.append(time.monotonic())

    @action()
    async def walk(params: Params) -> None:
        """Not metered."""

    made = bench(send, walk)
    ids = [made.start("send") for _ in range(15)]
    made.outcome(made.start("walk"))
    assert len(calls) < 15
    for id in ids:
        made.outcome(id)
    assert calls[14] - calls[0] >= 10 / 50 - 0.02


def test_tokens_of_a_pool_are_held_for_an_attempt(bench: MakeBench) -> None:
    """No more run at once than the pool has tokens; what asks for more than there are at all is not tried again."""
    crowd = Crowd()

    @action(resources={"heavy_computation": 2})
    async def work(params: Params) -> None:
        """Takes half of the pool."""
        await crowd.stay("pool")

    @action(resources={"heavy_computation": 5}, retry=Retry(max_attempts=3, first_s=0.001))
    async def overdo(params: Params) -> None:
        """Never to be had."""

    made = bench(work, overdo)
    for id in [made.start("work") for _ in range(8)]:
        assert made.outcome(id)["type"] == "action.completed"
    assert crowd.most == {"pool": 2}
    refused = made.outcome(made.start("overdo"))
    assert (refused["error"]["type"], refused["error"]["retryable"]) == ("insufficient_resources", False)


def test_an_action_names_pools_that_there_are() -> None:
    """Tokens of an unknown pool are a configuration error, before anything runs."""

    @action(resources={"nothing": 1})
    async def work(params: Params) -> None:
        """Cannot run."""

    with pytest.raises(ConfigError, match="nothing"):
        Bench(work)


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_lets_something_through(per_s: float, burst: int) -> None:
    """A rate that would hold up everything for ever is a configuration error."""
    with pytest.raises(ConfigError, match="lets nothing through"):
        Rate(per_s, burst)


def test_actions_that_block_for_ever_do_not_use_up_the_threads(bench: MakeBench) -> None:
    """A plain function that does not come back loses its thread and not its place; others go on with new ones."""
    release, begun = threading.Event(), Counter[str]()

    @action(timeout_s=0.05)
    def block(params: Params) -> None:
        """Does not come back."""
        begun["block"] += 1
        release.wait()

    @action()
    def work(params: Params) -> int:
        """Comes back."""
        return params.value

    made = bench(block, work, threads=2)

    def lose(threads: int) -> None:
        # On a busy machine the time of one may be over before its thread has begun.
        while begun["block"] < threads:
            assert made.outcome(made.start("block"))["error"]["type"] == "TimeoutError"
        eventually(lambda: made.executor.lost_threads == threads, timeout_s=5)

    lose(6)
    assert made.outcome(made.start("work", params={"value": 7}))["result"] == 7
    lose(8)
    assert made.outcome(made.start("work"))["error"]["type"] == "threads_exhausted"
    release.set()
    eventually(lambda: made.executor.lost_threads == 0, timeout_s=5)
    assert made.outcome(made.start("work"))["type"] == "action.completed"


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("blocking", [False, True])
def test_a_cancelled_action_fails_as_such(bench: MakeBench, waiting: bool, blocking: bool) -> None:
    """Whether it runs or still waits for its place, it ends at once, and gives its place to the next."""
    release = threading.Event()

    if blocking:

        @action("stay", limit=1)
        def stay(params: Params) -> None:
            """As long as it is let."""
            release.wait(10)
    else:

        @action("stay", limit=1)
        async def stay(params: Params) -> None:
            """For ever."""
            await asyncio.sleep(60)

    @action()
    async def walk(params: Params) -> None:
        """Ends."""

    made = bench(stay, walk)
    first, second = made.instruction("stay"), made.instruction("stay")
    made.executor.start(first)
    made.executor.start(second)
    eventually(lambda: made.executor.attempts["stay"] == 1, timeout_s=5)
    cancelled = second if waiting else first
    cancelled.is_cancelled = True
    made.executor.cancel(cancelled)
    outcome = made.outcome(cancelled.id)
    assert (outcome["type"], outcome["error"]["type"]) == ("action.failed", "cancelled")
    assert outcome["attempts"] == (0 if waiting else 1)
    if not waiting:
        eventually(lambda: made.executor.attempts["stay"] == 2, timeout_s=5)
    release.set()
    made.executor.cancel(made.instruction("walk"))  # not under way: nothing happens


def test_one_that_is_cancelled_as_soon_as_it_is_asked_for_has_its_outcome(bench: MakeBench) -> None:
    """The wish may reach the actions' loop together with the request, before anything of the action has run."""
    asleep, awake = threading.Event(), threading.Event()

    @action()
    async def hold_up(params: Params) -> None:
        """Keep the loop from looking at what comes."""
        asleep.set()
        awake.wait(5)

    @action()
    async def work(params: Params) -> None:
        """Not to be run."""
        pytest.fail("it was cancelled")

    made = bench(hold_up, work)
    made.start("hold_up")
    assert asleep.wait(5)
    instruction = made.instruction("work")
    made.executor.start(instruction)
    instruction.is_cancelled = True
    made.executor.cancel(instruction)
    awake.set()
    assert made.outcome(instruction.id)["error"]["type"] == "cancelled"


def test_one_that_was_cancelled_before_a_restart_is_not_run(bench: MakeBench) -> None:
    """The wish outlives the process that it was meant for."""

    @action()
    async def work(params: Params) -> None:
        """Not to be run."""
        pytest.fail("it was cancelled")

    made = bench(work)
    instruction = made.instruction("work")
    instruction.is_recovered = instruction.is_cancelled = True
    made.executor.start(instruction)
    assert made.outcome(instruction.id)["error"]["type"] == "cancelled"


def test_signs_of_life_keep_an_attempt_going(bench: MakeBench) -> None:
    """An attempt may go on as long as it is heard of in time, and no longer; the whole limit holds all the same."""

    @action(heartbeat_s=1)
    def hum(params: Params, context: ActionContext) -> str:
        """Heard of in time."""
        for _ in range(6):
            time.sleep(0.2)
            context.heartbeat()
        return "done"

    @action(heartbeat_s=0.05)
    async def silent(params: Params, context: ActionContext) -> None:
        """Never heard of."""
        await asyncio.sleep(60)

    @action(heartbeat_s=10, timeout_s=0.15)
    async def endless(params: Params, context: ActionContext) -> None:
        """Heard of for ever."""
        while True:
            await asyncio.sleep(0.01)
            context.heartbeat()

    made = bench(hum, silent, endless)
    hums, silents, endlesses = made.start("hum"), made.start("silent"), made.start("endless")
    assert made.outcome(hums)["result"] == "done"
    assert "no sign of life" in made.outcome(silents)["error"]["message"]
    assert "longer than 0.15 s" in made.outcome(endlesses)["error"]["message"]


def test_what_takes_no_notice_of_its_end_is_late_all_the_same(bench: MakeBench) -> None:
    """A result that comes after the time is over is not one."""

    @action(timeout_s=0.02)
    async def deaf(params: Params) -> str:
        """Goes on when it is told to end."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
        return "late"

    made = bench(deaf)
    assert made.outcome(made.start("deaf"))["error"]["type"] == "TimeoutError"


class Price(BaseModel):
    """What is promised."""

    cents: int


def test_a_result_keeps_what_its_annotation_promises(bench: MakeBench) -> None:
    """A result that fits is given as JSON values of its type; one that does not is an error, and is not tried again."""
    calls: list[int] = []

    @action()
    async def right(params: Params) -> Price:
        """As a model or as what makes one."""
        return {"cents": 5}  # type: ignore[return-value]

    @action(retry=Retry(max_attempts=3, first_s=0.001))
    async def wrong(params: Params) -> Price:
        """Not what was promised."""
        calls.append(1)
        return {"cents": "many"}  # type: ignore[return-value]

    made = bench(right, wrong)
    assert made.outcome(made.start("right"))["result"] == {"cents": 5}
    broken = made.outcome(made.start("wrong"))
    assert (broken["error"]["type"], broken["attempts"], len(calls)) == ("invalid_result", 1, 1)
    assert broken["error"]["message"].startswith("result.cents: ")


def test_a_fallback_stands_in_for_what_may_pass(bench: MakeBench) -> None:
    """When attempts are used up it gives the result, unless it has none; a definite refusal stands."""

    def instead(params: Params, error: ErrorInfo) -> Any:
        return {"instead_of": error.type} if params.value < 10 else None

    @action(retry=Retry(max_attempts=2, first_s=0.001), fallback=instead)
    async def ask(params: Params) -> dict[str, str]:
        """Nobody answers, or the answer is no."""
        if params.value == 5:
            msg = "no"
            raise ActionError(msg, type="refused")
        raise ConnectionError

    made = bench(ask)
    stood_in = made.outcome(made.start("ask", params={"value": 1}))
    assert (stood_in["result"], stood_in["attempts"]) == ({"instead_of": "ConnectionError"}, 2)
    assert made.outcome(made.start("ask", params={"value": 5}))["error"]["type"] == "refused"
    assert made.outcome(made.start("ask", params={"value": 10}))["error"]["type"] == "ConnectionError"


def test_a_fallback_stands_in_even_before_the_first_attempt(bench: MakeBench) -> None:
    """With the breaker open and no time to wait for it, the fallback is the result of no attempt."""

    @action(uses=Dependency("bank", breaker=Breaker(min_calls=2, open_s=60)), fallback=lambda params, error: error.type)
    async def ask(params: Params) -> str:
        """Nobody answers."""
        raise ConnectionError

    made = bench(ask)
    for _ in range(2):
        assert made.outcome(made.start("ask"))["result"] == "ConnectionError"
    refused = made.outcome(made.start("ask"))
    assert (refused["type"], refused["result"], refused["attempts"]) == ("action.completed", "breaker_open", 0)


def test_a_breaker_tells_of_its_changes(bench: MakeBench) -> None:
    """Each change of state is a signal about the dependency on `telemetry`."""

    @action(uses=Dependency("bank", breaker=Breaker(min_calls=2, open_s=60)))
    async def pay(params: Params) -> None:
        """Never works."""
        raise ConnectionError

    made = bench(pay)
    for _ in range(2):
        made.outcome(made.start("pay"))
    eventually(lambda: made.journal.announced, timeout_s=5)
    [(topic, signal)] = made.journal.announced
    assert (topic, signal.type, signal.subject) == ("telemetry", "breaker.changed", "bank")
    assert (signal.data["before"], signal.data["after"]) == ("closed", "open")
