"""How a coordinator chooses one among the agents that can do a task.

A strategy is a pure function of the candidates and the task's id, so that work that is repeated after a crash is given
to the same agents. The order of the candidates never matters.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from schemas.payloads.tasks import Strategy
from signalbox.ids import stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An agent that can do the task."""

    agent_id: str
    capabilities: frozenset[str]
    active: int
    """Tasks that it has been given and has not reported on."""
    turn: int
    """When it was last chosen, as a number that grows with each choice; 0 if never."""


Choice: TypeAlias = Callable[[Collection[Candidate], str], Candidate]
"""Chooses among one or more candidates, for the task of an id."""


def round_robin(candidates: Collection[Candidate], task_id: str) -> Candidate:
    """Whoever was chosen longest ago, whichever other agents were chosen for other capabilities in between."""
    return min(candidates, key=lambda one: (one.turn, one.agent_id))


def least_loaded(candidates: Collection[Candidate], task_id: str) -> Candidate:
    """Whoever has the fewest active tasks."""
    return min(candidates, key=lambda one: (one.active, one.agent_id))


def capability_match(candidates: Collection[Candidate], task_id: str) -> Candidate:
    """The most specific: who offers the least besides what is needed, and among those the least loaded."""
    return min(candidates, key=lambda one: (len(one.capabilities), one.active, one.agent_id))


def random(candidates: Collection[Candidate], task_id: str) -> Candidate:
    """Anyone, drawn by the task's id."""
    return sorted(candidates, key=lambda one: one.agent_id)[stable_hash(task_id) % len(candidates)]


def rendezvous(candidates: Collection[Candidate], task_id: str) -> Candidate:
    """The same for the same task id, and another only if that one goes.

    Highest random weight (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
    """
    return max(candidates, key=lambda one: (stable_hash(f"{one.agent_id}\0{task_id}"), one.agent_id))


STRATEGIES: Mapping[Strategy, Choice] = MappingProxyType(
    {
        "round_robin": round_robin,
        "least_loaded": least_loaded,
        "capability_match": capability_match,
        "random": random,
        "rendezvous": rendezvous,
    }
)
