"""What a node shows of itself over HTTP: status, health and agents, put together from what its parts last said.

Everything but `agents` and `agent`, which ask the workers, is answered from memory, and may be a second old. In lists
of agents, those of this node are as its workers tell, registered or not; those of others as the registry does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import signalbox
from signalbox.config import Settings
from signalbox.errors import NotFound, Unreachable
from signalbox.registry.query import Query
from signalbox.registry.view import Row
from signalbox.supervision import inspection
from signalbox.supervision.broker import OuterBroker, OwnBroker
from signalbox.supervision.group import GroupState, ProcessGroup
from signalbox.supervision.registry import RegistryFeed
from signalbox.supervision.scaler import Scaler
from signalbox.supervision.targets import flow_policy
from signalbox.telemetry import metrics
from signalbox.telemetry.exposition import Exposition

#: An epoch closes every `epoch_ms`. Older than this many, and longer ago than the least: work is stuck.
_STUCK_EPOCHS = 5
_STUCK_LEAST_S = 10.0
#: What was saved so long ago was saved just now; epochs of the usual second are not half over by then.
_CALM_S = 0.4
#: Nodes that have a metric of their own; the rest, those with the fewest agents, share one.
_METRIC_NODES = 100
#: A change of the number of workers takes a moment, and to have none may be wanted.
_AT_WORK = (GroupState.RUNNING, GroupState.RESCALING, GroupState.PAUSED)
_NO_REGISTRY = {"agents": 0, "nodes": 0, "age_s": None}


@dataclass(slots=True, kw_only=True)
class NodeView:
    """The parts of a node as they come to be; implements `signalbox.dashboard.api.View`."""

    settings: Settings
    exposition: Exposition
    broker: OwnBroker | OuterBroker
    flows: dict[str, ProcessGroup] = field(default_factory=dict)
    sensors: ProcessGroup | None = None
    registry: RegistryFeed | None = None
    scaler: Scaler | None = None
    phase: str = "starting"
    """`starting`, `running` or `stopping`."""

    def status(self) -> dict[str, Any]:
        """See the contract of `/api/v1/status`; numbers that nobody has told yet are null."""
        answers = [answer for group in self.flows.values() for answer in group.answers]
        return {
            "version": signalbox.__version__,
            "node": self.settings.node.name,
            "ready": self.ready(),
            "kafka": {"kind": self.settings.kafka.broker, "bootstrap": self.broker.bootstrap},
            "flows": {name: self._flow(name, group) for name, group in self.flows.items()},
            "pools": pools(answers),
            "sensors": (self.sensors.answers[0] or {}) if self.sensors and self.sensors.answers else {},
            "agents": {"total": agents_total(answers)},
            "registry": self.registry.view.summary() if self.registry else _NO_REGISTRY,
            "scaling": {"autoscaling": self.scaler.autoscaling if self.scaler else None},
            "actions": actions(answers),
            "processes": {"sensors": _process(self.sensors)} if self.sensors else {},
        }

    def ready(self) -> bool:
        return self.phase == "running" and all(group.state in _AT_WORK for group in self.flows.values())

    def scaling(self) -> dict[str, Any]:
        """See `signalbox.dashboard.api.View`."""
        status = self.status()
        return {
            **status["scaling"],
            "flows": {name: {**flow, **self._bounds(name)} for name, flow in status["flows"].items()},
            "pools": status["pools"],
            "changes": list(self.scaler.changes) if self.scaler else [],
        }

    def problems(self) -> list[str]:
        return list(self._problems())

    def metrics(self, accept: str) -> tuple[bytes, str]:
        metrics.READY.set(self.ready())
        for name, group in self.flows.items():
            metrics.FLOW_WORKERS.labels(flow=name).set(len(group.pids))
            metrics.FLOW_WORKERS_TARGET.labels(flow=name).set(group.target)
            metrics.FLOW_GENERATION.labels(flow=name).set(group.generation)
            if (lag := lag_records(group.answers)) is not None:
                metrics.FLOW_LAG.labels(flow=name).set(lag)
        metrics.REGISTRY_AGENTS.clear()
        for (node, status), count in self._registered().items():
            metrics.REGISTRY_AGENTS.labels(node, status).set(count)
        return self.exposition.render(accept)

    def census(self) -> tuple[int, int | None]:
        """Worker processes that run, and the agents on them if all have told."""
        groups = self.flows.values()
        return sum(len(group.pids) for group in groups), agents_total(one for group in groups for one in group.answers)

    async def agents(self, *, where: Query, prefix: str, limit: int) -> dict[str, Any]:
        """See `signalbox.dashboard.api.View`.

        A worker that does not answer is named under `silent`; the registry stands in for it. One that had too much to
        look through is named under `cut`.
        """
        paths = list(self._worker_sockets())
        asked = (self._list(path, where=where.plain(), prefix=prefix, limit=limit) for path in paths)
        answers = dict(zip((path.stem for path in paths), await asyncio.gather(*asked), strict=True))
        silent = [name for name, answer in answers.items() if answer is None]
        live = {row["agent_id"]: row for answer in answers.values() if answer for row in answer["agents"]}
        own = self.settings.node.name
        elsewhere = where if silent or not paths else where & Query.of({"field": "node", "op": "ne", "value": own})
        told = await asyncio.to_thread(self._told, elsewhere, prefix, limit, live)
        ids = sorted(told.keys() | live.keys())[:limit]
        return {
            "agents": [{**told.get(one, {}), **live.get(one, {})} for one in ids],
            "silent": silent,
            "cut": [name for name, answer in answers.items() if answer and not answer["complete"]],
            "registry": self.registry.view.summary() if self.registry else _NO_REGISTRY,
        }

    async def agent(self, agent_id: str) -> dict[str, Any]:
        answers = await asyncio.gather(
            *(self._ask(path, "agent", id=agent_id) for path in self._worker_sockets()), return_exceptions=True
        )
        found = [answer for answer in answers if isinstance(answer, dict) and not answer.get("missing")]
        if found:
            return found[0]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        if not answers:
            msg = "no worker runs at the moment"
            raise Unreachable(msg, hint="`signalbox status` tells the state of the flows")
        msg = f"there is no agent {agent_id!r}"
        raise NotFound(
            msg, hint="`signalbox agent list` names those there are; a keyed agent exists from its first signal"
        )

    def _worker_sockets(self) -> Iterator[Path]:
        for name, group in self.flows.items():
            for index in range(len(group.answers)):
                yield inspection.socket_path(self.settings.node.data_dir, f"{name}-{index}")

    def _told(self, where: Query, prefix: str, limit: int, live: Iterable[str]) -> dict[str, Row]:
        """What the registry tells of the agents that are meant, and of those that are live here."""
        if self.registry is None:
            return {}
        view = self.registry.view
        return {**view.describe(live), **{row["agent_id"]: row for row in view.find(where, prefix=prefix, limit=limit)}}

    def _registered(self) -> Counter[tuple[str, str]]:
        """Registered agents by node and status; nodes beyond a bound are one, called `other`."""
        counts = self.registry.view.counts() if self.registry else {}
        per_node, bounded = Counter[str](), Counter[tuple[str, str]]()
        for (node, _), count in counts.items():
            per_node[node] += count
        named = {node for node, _ in per_node.most_common(_METRIC_NODES)}
        for (node, status), count in counts.items():
            bounded[node if node in named else "other", status] += count
        return bounded

    async def _list(self, path: Path, **params: Any) -> Any:
        """The agents of one worker; None if it does not answer."""
        try:
            return await self._ask(path, "agents", **params)
        except Unreachable:
            return None

    async def _ask(self, path: Path, op: str, **params: Any) -> Any:
        return await asyncio.to_thread(inspection.ask, path, op, **params)

    def _flow(self, name: str, group: ProcessGroup) -> dict[str, Any]:
        return {
            "state": str(group.state),
            "workers": len(group.pids),
            "target": group.target,
            "generation": group.generation,
            "pids": group.pids,
            "lag_records": lag_records(group.answers),
            "restarts": group.restarts,
            "changing": bool(self.scaler and self.scaler.changing(name)),
        }

    def _bounds(self, name: str) -> dict[str, int]:
        policy = flow_policy(self.settings, name)
        return {"min": 0 if policy.scale_to_zero else policy.min, "max": policy.max}

    def _problems(self) -> Iterator[str]:
        if self.phase != "running":
            yield f"the node is {self.phase}"
        if self.broker.problem:
            yield self.broker.problem
        groups = [*self.flows.values(), *([self.sensors] if self.sensors else [])]
        for group in groups:
            if group.state not in _AT_WORK:
                yield f"{group.name} is {group.state}: {len(group.pids)} of {group.target} processes live"
        for name, group in self.flows.items():
            limit_s = max(_STUCK_LEAST_S, _STUCK_EPOCHS * self.settings.flows.of(name).epoch_ms / 1000)
            age_s = epoch_age_s(group.answers)
            idle = lag_records(group.answers) == 0
            if group.state is GroupState.RUNNING and age_s > limit_s and not idle:
                yield f"{name} has closed no epoch for {age_s:.0f} s, and records wait"


def lag_records(answers: Iterable[Any]) -> int | None:
    """How far the workers are behind: the sum of end minus next offset over partitions; None until all are known."""
    total, known = 0, False
    for answer in answers:
        if not answer:
            return None
        for position, end in answer.get("positions", {}).values():
            if position is None or end is None:
                return None
            known = True
            total += max(0, end - position)
    return total if known else None


def agents_total(answers: Iterable[Any]) -> int | None:
    """Agents on all workers; None until every worker has told."""
    told = list(answers)
    counts = [int(answer["agents"]) for answer in told if answer and answer.get("agents") is not None]
    return sum(counts) if told and len(counts) == len(told) else None


def pools(answers: Iterable[Any]) -> dict[str, Any]:
    """The pools by name, as any worker tells them; all workers know the same."""
    return next((dict(answer["pools"]) for answer in answers if answer and answer.get("pools")), {})


def actions(answers: Iterable[Any]) -> dict[str, Any]:
    """Actions in flight, null until every worker has told; and breakers by dependency, as the least calm worker has it.

    Closed ones are left out: there may be one for each host that was ever called.
    """
    told = list(answers)
    counts = [int(answer["actions_in_flight"]) for answer in told if answer and "actions_in_flight" in answer]
    breakers: dict[str, str] = {}
    for state in ("half_open", "open"):
        for answer in told:
            breakers |= {name: state for name, now in ((answer or {}).get("breakers") or {}).items() if now == state}
    return {
        "in_flight": sum(counts) if told and len(counts) == len(told) else None,
        "breakers": dict(sorted(breakers.items())),
    }


def epoch_age_s(answers: Iterable[Any]) -> float:
    """Seconds since the worker that is furthest behind closed an epoch; 0 when none says."""
    return max((float((answer or {}).get("epoch_age_s") or 0.0) for answer in answers), default=0.0)


def stuck_s(answers: Iterable[Any]) -> float:
    """Seconds since a worker closed an epoch; 0 while the broker is what they wait for, or when none says."""
    told = [answer for answer in answers if answer]
    return 0.0 if any(answer.get("waits_for_broker") for answer in told) else epoch_age_s(told)


def is_calm(answers: Iterable[Any]) -> bool:
    """Whether every worker that reads has just saved what it did, so that little is left and nobody is at it."""
    now = time.monotonic()  # one clock for all processes of a machine
    saved = [answer.get("saved_at") for answer in answers if answer and answer.get("positions")]
    return all(at is not None and now - at < _CALM_S for at in saved)


def has_settled(answers: Iterable[Any]) -> bool:
    """Whether every input partition is read by a worker, and each worker that reads has closed an epoch."""
    told = list(answers)
    reading = [answer for answer in told if answer.get("positions")]
    read = sum(len(answer["positions"]) for answer in reading)
    return all(read >= answer.get("inputs", 0) for answer in told) and all(answer["epochs"] for answer in reading)


def _process(group: ProcessGroup) -> Mapping[str, Any]:
    return {"state": str(group.state), "pids": group.pids, "restarts": group.restarts}
