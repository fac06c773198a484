"""Which of a worker's agents are meant by a query, registered or not.

Nearly all that a query looks at is the same for every agent of a class; only whether an agent is paused differs. So
most queries are decided once per class, and agents are brought back from their saved state only to be shown, or where
being paused decides.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from signalbox.agents import Agent, FoundationAgent
from signalbox.agents.group import AgentGroup
from signalbox.agents.plan import Kind, Plan
from signalbox.agents.population import StateUnreadable
from signalbox.agents.records import Instance
from signalbox.ids import key_group
from signalbox.registry.query import EVERY_AGENT, Query
from signalbox.registry.terms import Facts

_MOST_AGENTS = 10_000
#: So many agents are brought back for one question; that takes a fraction of a second.
_MOST_LOADED = 20_000

Verdict = Literal["all", "some", "none"]
"""Which agents of a class are meant."""


class Listing:
    """Lists the agents of one worker. Another thread than the engine's may ask it."""

    def __init__(self, groups: Mapping[str, AgentGroup], plan: Plan) -> None:
        self._groups = groups
        self._plan = plan

    def agents(self, params: dict[str, Any]) -> dict[str, Any]:
        """The first `limit` agents, by id, that `where` means and whose id begins with `prefix`.

        `complete` is false if there was too much to look through.
        """
        prefix, limit = str(params.get("prefix", "")), min(int(params.get("limit", 100)), _MOST_AGENTS)
        where = Query.of(params["where"]) if "where" in params else EVERY_AGENT
        verdicts = {kind.name: _verdict(where, kind) for kind in self._plan.kinds}
        if "some" not in verdicts.values():
            ids = heapq.nsmallest(limit, self._meant(prefix, verdicts))
            return {"agents": [summary(one) for one in self._loaded(ids)], "complete": True}
        ids = heapq.nsmallest(_MOST_LOADED, self._meant(prefix, verdicts))
        rows: list[dict[str, Any]] = []
        for instance in self._loaded(ids):
            if len(rows) == limit:
                break
            if where.holds(facts(instance.kind), status(instance)):
                rows.append(summary(instance))
        return {"agents": rows, "complete": len(rows) == limit or len(ids) < _MOST_LOADED}

    def find(self, agent_id: str) -> Instance | None:
        """The agent with this id, if it lives here. Raises `StateUnreadable`."""
        group = self._groups.get(str(key_group(agent_id)))
        return None if group is None else group.get(agent_id)

    def _meant(self, prefix: str, verdicts: Mapping[str, Verdict]) -> Iterator[str]:
        everybody = set(verdicts.values()) == {"all"}
        for group in list(self._groups.values()):
            for one in group:
                if one.startswith(prefix) and (everybody or self._may_be_meant(one, verdicts)):
                    yield one

    def _may_be_meant(self, agent_id: str, verdicts: Mapping[str, Verdict]) -> bool:
        kind = self._plan.kind_of(agent_id)
        return kind is not None and verdicts[kind.name] != "none"

    def _loaded(self, ids: Iterable[str]) -> Iterator[Instance]:
        for one in ids:
            try:
                instance = self.find(one)
            except StateUnreadable:
                continue
            if instance is not None:
                yield instance


def facts(kind: Kind) -> Facts:
    """What a query looks at, of every agent of a class."""
    agent = kind.agent
    return Facts(
        type=kind.name,
        kind=type(kind.addressing).__name__.lower(),
        node=kind.node,
        capabilities=agent.capabilities,
        metadata=_metadata(agent),
    )


def _metadata(agent: Agent) -> dict[str, Any]:
    return agent.registered_metadata() if isinstance(agent, FoundationAgent) else {"description": agent.description}


def status(instance: Instance) -> str:
    """Whether an agent handles signals now."""
    return "paused" if instance.paused else "running"


def summary(instance: Instance) -> dict[str, Any]:
    """An agent as lists show it."""
    of_class = facts(instance.kind)
    return {
        "agent_id": instance.agent_id,
        "type": of_class.type,
        "kind": of_class.kind,
        "status": status(instance),
        "node": of_class.node,
        "capabilities": list(of_class.capabilities),
        "processed": instance.processed,
        "errors": instance.errors,
    }


def _verdict(where: Query, kind: Kind) -> Verdict:
    of_class = facts(kind)
    running, paused = where.holds(of_class, "running"), where.holds(of_class, "paused")
    return "all" if running and paused else "some" if running or paused else "none"
