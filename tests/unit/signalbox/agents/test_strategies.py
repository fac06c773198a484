"""How a coordinator chooses: each strategy does what it says, and decides alike whatever the order of candidates."""

import random
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.payloads.tasks import Strategy
from signalbox.agents.strategies import (
    STRATEGIES,
    Candidate,
    capability_match,
    least_loaded,
    rendezvous,
    round_robin,
)

_IDS = st.text(min_size=1, max_size=8)


def _candidate(agent_id: str, capabilities: str = "a", active: int = 0, turn: int = 0) -> Candidate:
    return Candidate(agent_id=agent_id, capabilities=frozenset(capabilities), active=active, turn=turn)


def _pool(size: int) -> list[Candidate]:
    return [_candidate(f"worker_{number}") for number in range(1, size + 1)]


_CANDIDATES = st.lists(
    st.builds(_candidate, _IDS, st.text("abc", max_size=3), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.agent_id,
)


def test_every_strategy_that_a_task_may_name_exists() -> None:
    """The words of the payload are the strategies that there are."""
    assert set(STRATEGIES) == set(get_args(Strategy))


@pytest.mark.parametrize("name", STRATEGIES)
@given(candidates=_CANDIDATES, task_id=_IDS, seed=st.integers())
def test_the_order_of_candidates_does_not_matter(
    name: Strategy, candidates: list[Candidate], task_id: str, seed: int
) -> None:
    """Whoever is chosen is one of the candidates, and the same one when they come in another order."""
    chosen = STRATEGIES[name](candidates, task_id)
    shuffled = random.Random(seed).sample(candidates, len(candidates))
    assert chosen in candidates
    assert STRATEGIES[name](shuffled, task_id) == chosen


def test_round_robin_takes_whoever_waited_longest() -> None:
    """The agent whose last turn is longest ago is next; among those that never had one, the first by id."""
    assert round_robin([_candidate("a", turn=3), _candidate("b", turn=1), _candidate("c", turn=2)], "t").agent_id == "b"
    assert round_robin([_candidate("a", turn=3), _candidate("c"), _candidate("b")], "t").agent_id == "b"


def test_least_loaded_counts_active_tasks() -> None:
    """The agent with the fewest active tasks is next, whatever else; among equals the first by id."""
    assert least_loaded([_candidate("a", active=2), _candidate("b", active=1, turn=9)], "t").agent_id == "b"
    assert least_loaded([_candidate("b"), _candidate("a")], "t").agent_id == "a"


def test_capability_match_spares_the_versatile() -> None:
    """The agent with the fewest other capabilities is next, however busy; among equally specific the least loaded."""
    assert capability_match([_candidate("a", "abc"), _candidate("b", "ab", active=5)], "t").agent_id == "b"
    assert capability_match([_candidate("a", "ab", active=1), _candidate("b", "ac")], "t").agent_id == "b"


@pytest.mark.parametrize("name", ["random", "rendezvous"])
def test_tasks_spread_evenly_by_their_id(name: Strategy) -> None:
    """Over many tasks each of the agents gets about its share."""
    tally = Counter(STRATEGIES[name](_pool(5), f"task-{number}").agent_id for number in range(5000))
    assert len(tally) == 5
    assert max(tally.values()) < 1.2 * min(tally.values())


@given(size=st.integers(2, 12), gone=st.integers(0, 11), numbers=st.lists(st.integers(), min_size=1, max_size=30))
def test_rendezvous_moves_only_the_tasks_of_the_agent_that_went(size: int, gone: int, numbers: list[int]) -> None:
    """When an agent goes, a task that another one would have got still goes to that other one."""
    before = _pool(size)
    after = [one for index, one in enumerate(before) if index != gone % size]
    for number in numbers:
        chosen = rendezvous(before, f"task-{number}")
        if chosen in after:
            assert rendezvous(after, f"task-{number}") == chosen
