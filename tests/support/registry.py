"""Records of the registry topic, applied to a view by hand and in virtual time."""

from datetime import timedelta
from typing import Any

from schemas.payloads.agents import AgentRegistered, AgentStopped
from schemas.payloads.nodes import NodeHeartbeat, NodeStopped
from schemas.signal import Signal, encode, new_signal
from signalbox.clock import VirtualClock
from signalbox.ports import Record
from signalbox.registry.view import NODE_KEY_PREFIX, Dropped, RegistryView


def registered(id: str, *, clock: VirtualClock | None = None, **more: Any) -> Signal[Any]:
    """`agent.registered`, of a keyed agent on node `n` unless told otherwise."""
    now = (clock or VirtualClock()).now()
    fields = {"agent_type": "a", "kind": "keyed", "node": "n", "version": "1", "started_at": now, **more}
    record = AgentRegistered.model_validate({"agent_id": id, **fields})
    return new_signal("agent.registered", record, source="test", subject=id, time=now)


def stopped(id: str) -> Signal[Any]:
    """`agent.stopped`."""
    now = VirtualClock().now()
    return new_signal("agent.stopped", AgentStopped(agent_id=id, stopped_at=now), source="test", subject=id)


def heartbeat(node: str, *, clock: VirtualClock | None = None, interval_s: float = 5.0) -> Signal[Any]:
    """`node.heartbeat`."""
    now = (clock or VirtualClock()).now()
    beat = NodeHeartbeat(node=node, version="1", started_at=now, interval_s=interval_s, workers=1)
    return new_signal("node.heartbeat", beat, source="test", subject=NODE_KEY_PREFIX + node, time=now)


def node_stopped(node: str) -> Signal[Any]:
    """`node.stopped`."""
    end = NodeStopped(node=node, stopped_at=VirtualClock().now())
    return new_signal("node.stopped", end, source="test", subject=NODE_KEY_PREFIX + node)


class Registry:
    """A view, and a topic of one partition whose records it gets as they are made."""

    def __init__(self, *, size: int = 1000, ttl_s: float = 20.0) -> None:
        self.clock = VirtualClock()
        self.view = RegistryView(size=size, ttl_s=ttl_s, clock=self.clock)
        self.records: list[Record] = []

    def put(self, signal: Signal[Any] | None, *, key: str = "", age_s: float = 0.0) -> Dropped | None:
        """Append a signal, or a record without value under `key`, written `age_s` ago."""
        value = encode(signal) if signal is not None else None
        record = Record(
            topic="registry",
            partition=0,
            offset=len(self.records),
            key=(key or (signal.key if signal is not None else "")).encode(),
            value=value,
            timestamp=self.clock.now() - timedelta(seconds=age_s),
        )
        self.records.append(record)
        return self.view.apply(record)

    def register(self, id: str, **more: Any) -> Dropped | None:
        return self.put(registered(id, clock=self.clock, **more))

    def stop(self, id: str) -> Dropped | None:
        return self.put(stopped(id))

    def beat(self, node: str, *, interval_s: float = 5.0, age_s: float = 0.0) -> Dropped | None:
        return self.put(heartbeat(node, clock=self.clock, interval_s=interval_s), age_s=age_s)

    def end(self, node: str) -> Dropped | None:
        return self.put(node_stopped(node))

    def advance(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def status(self, id: str) -> str | None:
        """What the view says of an agent; None if it does not know it."""
        row = self.view.describe([id]).get(id)
        return None if row is None else str(row["status"])

    def ids(self) -> list[str]:
        return [row["agent_id"] for row in self.view.find(limit=10_000)]
