"""What the topic `registry` says, kept so that it can be asked: which agents there are, where, and whether they live.

Agents that share all that a query looks at are kept as one cohort, so a million keyed agents of a few classes cost a
few comparisons and a dictionary. Records of one key come in order; those that were read before change nothing. Nothing
here does I/O: `signalbox.supervision.registry` feeds a view on every node, and the command line one of its own.
"""

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Literal, TypeAlias

import msgspec
from pydantic import ValidationError

from schemas.payloads.agents import AgentRegistered, AgentStopped
from schemas.payloads.nodes import NodeHeartbeat, NodeStopped
from schemas.signal import MalformedSignal, Signal, decode
from signalbox.clock import Clock
from signalbox.ports import Record
from signalbox.registry.query import EVERY_AGENT, Query
from signalbox.registry.terms import Facts

#: The key of a node's records, so that no agent's record replaces them when the topic is compacted.
NODE_KEY_PREFIX = "node/"
#: A longer record is invalid: the view is bounded by the number of agents, and so by their size.
MAX_RECORD_BYTES = 65_536
#: Nodes beyond these are not kept.
MAX_NODES = 10_000
#: A node whose heartbeats are far apart has the time of so many of them.
_HEARTBEATS = 2

Dropped: TypeAlias = Literal["full", "invalid"]
"""Why a record was not kept."""
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Traits:
    """All that is told of an agent but its id and age. What is in the metadata stands as JSON, to be compared."""

    type: str
    kind: str
    status: str
    node: str
    capabilities: tuple[str, ...]
    metadata: bytes
    version: str

    def index_keys(self) -> Iterator[tuple[str, str]]:
        """Under which fields and values these agents are found."""
        yield from (("type", self.type), ("kind", self.kind), ("node", self.node))
        yield from (("capability", capability) for capability in self.capabilities)


@dataclass(eq=False, slots=True)
class _Cohort:
    traits: _Traits
    facts: Facts
    members: dict[str, datetime] = field(default_factory=dict)
    """Agent id to when it started."""


@dataclass(slots=True)
class _Node:
    """What was last heard of a node."""

    heartbeat: NodeHeartbeat | None
    heard_at: float
    """On the view's monotonic clock."""
    stopped: bool = False


class RegistryView:
    """Agents and nodes by their records. Any thread may ask while another applies records."""

    def __init__(self, *, size: int, ttl_s: float, clock: Clock) -> None:
        """Args:
        size: most agents that are kept; pools and singletons take the places of keyed ones.
        ttl_s: the agents of a node that was silent for so long are stale.
        clock: measures silence and ages.
        """
        self.size = size
        self.complete = False
        """Whether the records have been applied that were on the topic when it was first read."""
        self.dropped: Counter[Dropped] = Counter()
        """How many records were not kept, by reason."""
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._agents: dict[str, _Cohort] = {}
        self._cohorts: dict[_Traits, _Cohort] = {}
        self._index: dict[tuple[str, str], set[_Cohort]] = {}
        self._nodes: dict[str, _Node] = {}
        self._next: dict[int, int] = {}
        """The offset of the next record of each partition."""
        self._heard_at: float | None = None

    # Applying records.

    def has_read(self, record: Record) -> bool:
        """Whether this record was applied before, or lies before one that was."""
        return record.offset < self._next.get(record.partition, 0)

    def apply(self, record: Record) -> Dropped | None:
        """Take over what a record says, and tell why if it was not kept. Records of a partition come in order."""
        with self._lock:
            if self.has_read(record):
                return None
            self._next[record.partition] = record.offset + 1
            self._heard_at = self._clock.monotonic()
            reason = self._apply(record)
            if reason is not None:
                self.dropped[reason] += 1
            return reason

    def _apply(self, record: Record) -> Dropped | None:
        if record.value is None:
            self._forget((record.key or b"").decode("utf-8", "replace"))
            return None
        if len(record.value) > MAX_RECORD_BYTES:
            return "invalid"
        try:
            return self._take(decode(record.value, record.headers), record)
        except (MalformedSignal, ValidationError):
            return "invalid"

    def _take(self, signal: Signal[Any], record: Record) -> Dropped | None:
        match signal.type:
            case "agent.registered":
                return self._register(signal, AgentRegistered.model_validate(signal.data))
            case "agent.stopped":
                return self._stop(signal, AgentStopped.model_validate(signal.data))
            case "node.heartbeat":
                beat = NodeHeartbeat.model_validate(signal.data)
                return self._hear(signal, beat.node, _Node(beat, self._heard(record, signal)))
            case "node.stopped":
                end = NodeStopped.model_validate(signal.data)
                return self._hear(signal, end.node, _Node(None, self._heard(record, signal), stopped=True))
        return "invalid"

    def _register(self, signal: Signal[Any], agent: AgentRegistered) -> Dropped | None:
        if signal.key != agent.agent_id:
            return "invalid"
        self._remove(agent.agent_id)
        if len(self._agents) >= self.size and not (agent.kind != "keyed" and self._displace()):
            return "full"
        traits = _Traits(
            type=agent.agent_type,
            kind=agent.kind,
            status=agent.status,
            node=agent.node,
            capabilities=agent.capabilities,
            metadata=msgspec.json.encode(agent.metadata, order="sorted"),
            version=agent.version,
        )
        cohort = self._cohorts.get(traits)
        if cohort is None:
            cohort = self._cohorts[traits] = _Cohort(traits, _facts(agent))
            for key in traits.index_keys():
                self._index.setdefault(key, set()).add(cohort)
        cohort.members[agent.agent_id] = agent.started_at
        self._agents[agent.agent_id] = cohort
        return None

    def _stop(self, signal: Signal[Any], agent: AgentStopped) -> Dropped | None:
        if signal.key != agent.agent_id:
            return "invalid"
        self._remove(agent.agent_id)
        return None

    def _hear(self, signal: Signal[Any], name: str, node: _Node) -> Dropped | None:
        if signal.key != NODE_KEY_PREFIX + name:
            return "invalid"
        known = self._nodes.get(name)
        if known is None and len(self._nodes) >= MAX_NODES:
            return "full"
        if node.heartbeat is None and known is not None:
            node.heartbeat = known.heartbeat
        self._nodes[name] = node
        return None

    def _forget(self, key: str) -> None:
        """A record without value deletes what its key is about."""
        if key.startswith(NODE_KEY_PREFIX):
            self._nodes.pop(key.removeprefix(NODE_KEY_PREFIX), None)
        else:
            self._remove(key)

    def _heard(self, record: Record, signal: Signal[Any]) -> float:
        """When the node was heard. Of an old record its own time tells, of a new one that it arrives: clocks differ."""
        now, sent = self._clock.monotonic(), record.timestamp or signal.time
        if self.complete or sent is None:
            return now
        return now - max(0.0, (self._clock.now() - sent).total_seconds())

    def _remove(self, agent_id: str) -> None:
        cohort = self._agents.pop(agent_id, None)
        if cohort is None:
            return
        del cohort.members[agent_id]
        if not cohort.members:
            del self._cohorts[cohort.traits]
            for key in cohort.traits.index_keys():
                self._index[key].discard(cohort)
                if not self._index[key]:
                    del self._index[key]

    def _displace(self) -> bool:
        """Remove a keyed agent, one of those that came last, to make room; False if there is none."""
        cohort = next(iter(self._index.get(("kind", "keyed"), ())), None)
        if cohort is not None:
            self._remove(next(reversed(cohort.members)))
            self.dropped["full"] += 1
        return cohort is not None

    # Asking.

    def find(self, query: Query = EVERY_AGENT, *, prefix: str = "", limit: int) -> list[Row]:
        """The first `limit` agents that are meant and whose id begins with `prefix`, by id."""
        with self._lock:
            status = self._statuses()
            matching = self._candidates(query)
            if (test := query.residue) is not None:
                matching = [one for one in matching if test(one.facts, status(one.traits))]
            ids: Iterator[str] = chain.from_iterable(cohort.members for cohort in matching)
            if prefix:
                ids = (one for one in ids if one.startswith(prefix))
            return [self._row(one, status) for one in heapq.nsmallest(limit, ids)]

    def describe(self, agent_ids: Iterable[str]) -> dict[str, Row]:
        """Agents by id, as `find` gives them; those that are not known are left out."""
        with self._lock:
            status = self._statuses()
            return {one: self._row(one, status) for one in agent_ids if one in self._agents}

    def nodes(self) -> list[Row]:
        """The nodes by name: status `running`, `stale` or `stopped`, since when they are silent, and what they told."""
        told = {"version", "started_at", "workers", "agents"}
        with self._lock:
            return [
                {
                    "node": name,
                    "status": "stopped" if node.stopped else "stale" if self._is_stale(node) else "running",
                    "seen_s": self._seen_s(node),
                    **(node.heartbeat.model_dump(include=told) if node.heartbeat else {}),
                }
                for name, node in sorted(self._nodes.items())
            ]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many agents there are, by node and status."""
        with self._lock:
            status, counts = self._statuses(), Counter[tuple[str, str]]()
            for cohort in self._cohorts.values():
                counts[cohort.traits.node, status(cohort.traits)] += len(cohort.members)
            return dict(counts)

    def summary(self) -> Row:
        """How many agents and nodes are known, and how old that knowledge is in seconds: null until it is complete."""
        with self._lock:
            return {"agents": len(self._agents), "nodes": len(self._nodes), "age_s": self._age_s()}

    @property
    def fill_ratio(self) -> float:
        """Agents that are kept over those that may be, 0 to 1."""
        return len(self._agents) / self.size

    def _age_s(self) -> float | None:
        if not self.complete or self._heard_at is None:
            return None
        return round(self._clock.monotonic() - self._heard_at, 3)

    def _candidates(self, query: Query) -> Iterable[_Cohort]:
        nobody: AbstractSet[_Cohort] = frozenset()
        found = query.candidates(lambda name, value: self._index.get((name, value), nobody))
        return self._cohorts.values() if found is None else found

    def _statuses(self) -> "Callable[[_Traits], str]":
        """From what is told of agents to their status now."""
        living = {name for name, node in self._nodes.items() if not (node.stopped or self._is_stale(node))}
        return lambda traits: traits.status if traits.node in living else "stale"

    def _is_stale(self, node: _Node) -> bool:
        patience_s = max(self._ttl_s, _HEARTBEATS * node.heartbeat.interval_s if node.heartbeat else 0.0)
        return self._clock.monotonic() - node.heard_at > patience_s

    def _seen_s(self, node: _Node | None) -> float | None:
        return round(self._clock.monotonic() - node.heard_at, 3) if node else None

    def _row(self, agent_id: str, status: "Callable[[_Traits], str]") -> Row:
        cohort = self._agents[agent_id]
        traits, started_at = cohort.traits, cohort.members[agent_id]
        return {
            "agent_id": agent_id,
            "type": traits.type,
            "kind": traits.kind,
            "status": status(traits),
            "node": traits.node,
            "capabilities": list(traits.capabilities),
            "metadata": cohort.facts.metadata,
            "version": traits.version,
            "started_at": started_at,
            "age_s": round(max(0.0, (self._clock.now() - started_at).total_seconds()), 3),
            "seen_s": self._seen_s(self._nodes.get(traits.node)),
        }


def _facts(agent: AgentRegistered) -> Facts:
    return Facts(
        type=agent.agent_type,
        kind=agent.kind,
        node=agent.node,
        capabilities=agent.capabilities,
        metadata=agent.metadata,
    )
