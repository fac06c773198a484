"""Tasks under fire: whatever is killed, every task is answered exactly once and the agents' state counts each once."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.support.chaos import MortalBroker, MortalNode, plan_faults
from tests.support.chaos_check import doubled_ids
from tests.support.chaos_run import TaskRun, expected_state

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]


def test_every_task_is_answered_once_whatever_is_killed(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """At 2,000 tasks per second, kills of worker, node and broker, freezes and drains lose and double nothing."""
    node = make_node(settings={"telemetry.actions": "false"})
    run = TaskRun(node, broker, rng, closing, rate=2_000)
    run.strike(plan_faults(rng, rounds, broker=2 if rounds >= 10 else 1))
    submitted = run.finish()
    summarize(run.report("one worker", submitted))
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)
    assert run.read("dead-letters") == []


def test_two_workers_answer_every_task_once_and_tell_of_each_action_once(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """A cluster of two, killed one worker at a time or whole, doubles neither answers nor telemetry."""
    node = make_node(workers=2)
    run = TaskRun(node, broker, rng, closing, rate=500)
    run.strike(plan_faults(rng, max(2, rounds // 2), broker=1 if rounds >= 10 else 0))
    submitted = run.finish()
    summarize(run.report("two workers", submitted))
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)
    assert run.read("dead-letters") == []
    telemetry = run.read("telemetry")
    assert doubled_ids(telemetry) == []
    actions = Counter((one.signal.type, one.signal.data["action"]) for one in telemetry)
    names = ("validate_task", "process_task", "complete_task")
    assert actions == {(f"agent.action.{when}", name): submitted for when in ("starting", "finished") for name in names}


@pytest.mark.parametrize(("workers", "rate"), [(1, 2_000), (2, 500)])
def test_transactions_show_every_answer_once_and_never_what_was_taken_back(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
    workers: int,
    rate: float,
) -> None:
    """With `exactly_once`, readers of what is committed see each answer once; others also see what was undone."""
    settings = {"flows.agents.delivery": "exactly_once", "telemetry.actions": "false"}
    node = make_node(workers=workers, settings=settings)
    run = TaskRun(node, broker, rng, closing, rate=rate)
    run.strike(plan_faults(rng, max(2, rounds // 2), broker=1 if rounds >= 10 else 0))
    submitted = run.finish()
    undone = len(run.read("results", uncommitted=True)) - submitted
    summarize(run.report(f"exactly once, {workers} workers, {undone} answers written and undone", submitted))
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)
    assert undone > 0 or rounds < 10, "of so many strikes, none came in the middle of a transaction"
    for topic in ("dead-letters", "telemetry"):
        assert doubled_ids(run.read(topic)) == []
