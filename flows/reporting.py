"""What a worker tells about itself: answers on its inspection socket, and its counters as Prometheus metrics.

Both read from other threads than the engine's. They only look at numbers and at states in place, which are replaced
and never changed.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from prometheus_client import Counter as Metric

from flows.assembly import Flow
from flows.listing import Listing, summary
from schemas.payloads.health import ResourceLevel, ResourceMetrics
from schemas.signal import Signal, new_signal
from signalbox.actions.breaker import State
from signalbox.config import Settings
from signalbox.resources import ResourceManager, ResourceReading
from signalbox.supervision.inspection import Handler
from signalbox.telemetry import metrics

#: A level that changes is told at once.
_RESOURCES_EVERY_S = 10.0
_OPENNESS = {State.CLOSED: 0.0, State.HALF_OPEN: 0.5, State.OPEN: 1.0}


def handlers(flow: Flow, *, index: int, pid: int, state: Mapping[str, str]) -> dict[str, Handler]:
    """The questions that a worker answers; `state["now"]` is `starting`, `running` or `draining`.

    `resize` is an order: from the next epoch on, pools are to have the sizes that it gives. `status` tells of each pool
    whether that has happened, as `switched`.
    """
    groups, plan = flow.runtime.groups, flow.runtime.plan
    listing = Listing(groups, plan)

    def status(_: dict[str, Any]) -> dict[str, Any]:
        return {
            "state": state["now"],
            "flow": flow.name,
            "index": index,
            "pid": pid,
            "agents": sum(len(group) for group in list(groups.values())),
            "positions": flow.source.hub.positions(),
            "inputs": len(flow.runtime.inputs),
            "epoch_age_s": round(time.monotonic() - flow.source.hub.epoch_at, 3),
            "saved_at": flow.source.hub.saved_at,
            "epochs": flow.source.hub.epochs,
            "reading_since": flow.source.hub.reading_since,
            "waits_for_broker": flow.sink.hub.waiting_since is not None,
            "actions_in_flight": flow.executor.in_flight,
            "breakers": {name: breaker.state.value for name, breaker in flow.executor.breakers.items()},
            "busy_s": round(flow.source.hub.busy_s, 6),
            "hot_keys": flow.source.hub.hot_keys.told(),
            "memory": round(flow.executor.services.resources.memory.ratio, 4),
            "throttled": flow.executor.throttled,
            "work": flow.executor.tally.told(),
            "pools": pools(),
        }

    def pools() -> dict[str, Any]:
        wanted, switched = flow.pools.wanted(), flow.source.hub.switched
        return {
            name: {"size": wanted[name], "min": 1, "max": pool.max, "switched": switched(name, wanted[name])}
            for name, pool in plan.pools().items()
        }

    def resize(params: dict[str, Any]) -> dict[str, Any]:
        flow.resize(dict(params.get("pools", {})))
        return pools()

    def agent(params: dict[str, Any]) -> dict[str, Any]:
        instance = listing.find(str(params.get("id", "")))
        if instance is None:
            return {"missing": True}
        timers = [
            {"timer": name, "due_ms": timer.due_ms, "type": timer.type} for name, timer in instance.timers.items()
        ]
        state_now = msgspec.to_builtins(instance.committed())
        return {**summary(instance), "state": state_now, "timers": timers, "held": len(instance.held)}

    return {"status": status, "agents": listing.agents, "agent": agent, "resize": resize}


class MetricsReporter(threading.Thread):
    """Turns the counters of the hot path into metrics every `every_s` seconds."""

    def __init__(self, flow: Flow, *, index: int, every_s: float) -> None:
        super().__init__(name="metrics", daemon=True)
        self._flow = flow
        self._worker = f"{flow.name}-{index}"
        self._every_s = every_s
        self._seen: dict[str, Counter[Any]] = {}
        self._busy = (time.monotonic(), 0.0)
        self._saved = (0, 0.0)
        executor, settings = flow.executor, flow.runtime.settings
        self._resources = ResourceReport(executor.services.resources, settings, self._worker, executor.announce)
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self.report()
            self._resources.report()

    def stop(self) -> None:
        """Report once more and end."""
        self._stopped.set()
        self.report()

    def report(self) -> None:
        """Report what came since the last time."""
        stats, hub = self._flow.runtime.stats, self._flow.sink.hub
        self._add(metrics.SIGNALS_RECEIVED, "received", stats.received)
        self._add_processed()
        self._add(metrics.DLQ_MESSAGES, "dead_letters", stats.dead_letters)
        self._add(metrics.AGENT_ERRORS, "failed", stats.failed)
        self._add(metrics.AGENT_CONDITION_ERRORS, "condition_errors", stats.condition_errors)
        self._add(metrics.ACTIONS_FINISHED, "actions finished", self._flow.executor.finished)
        self._add(metrics.ACTION_ATTEMPTS, "action attempts", self._flow.executor.attempts)
        self._add(metrics.ACTIONS_RECOVERED, "actions recovered", self._flow.executor.recovered)
        self._add(metrics.KAFKA_PRODUCED, "produced", hub.produced)
        self._add(metrics.KAFKA_REPLAY_SKIPPED, "skipped", hub.skipped)
        for _, grown in self._grown("unmatched", stats.unmatched):
            metrics.SIGNALS_UNMATCHED.inc(grown)
        saved, spent = self._saved
        self._saved = (stats.snapshot_bytes, stats.snapshot_s)
        metrics.SNAPSHOT_BYTES.inc(stats.snapshot_bytes - saved)
        metrics.SNAPSHOT_SECONDS.inc(stats.snapshot_s - spent)
        self._report_gauges()

    def _report_gauges(self) -> None:
        now, busy_s = time.monotonic(), self._flow.source.hub.busy_s
        then, before = self._busy
        self._busy = (now, busy_s)
        if now > then:
            metrics.WORKER_BUSY.labels(self._worker).set(min(1.0, (busy_s - before) / (now - then)))
        metrics.ACTIONS_IN_FLIGHT.labels(self._worker).set(self._flow.executor.in_flight)
        metrics.ACTION_LOST_THREADS.labels(self._worker).set(self._flow.executor.lost_threads)
        for name, breaker in self._flow.executor.breakers.items():
            metrics.BREAKER_OPEN.labels(self._worker, name).set(_OPENNESS[breaker.state])
        metrics.SNAPSHOT_LAST_SUCCESS.set(time.time() - (now - self._flow.source.hub.epoch_at))
        per_kind: Counter[str] = Counter()
        for group in list(self._flow.runtime.groups.values()):
            per_kind.update(group.census)
        for name, count in per_kind.items():
            metrics.AGENT_KEYS.labels(name).set(count)
        for part, (position, end) in self._flow.source.hub.positions().items():
            topic, _, partition = part.rpartition("-")
            if position is not None and end is not None:
                metrics.KAFKA_LAG.labels(topic, partition).set(max(0, end - position))

    def _add_processed(self) -> None:
        stats = self._flow.runtime.stats
        failed: Counter[str] = Counter()
        for (agent, _), count in list(stats.failed.items()):
            failed[agent] += count
        succeeded = Counter(dict(stats.processed)) - failed
        for status, counts in (("ok", succeeded), ("error", failed)):
            for agent, grown in self._grown(f"processed {status}", counts):
                metrics.AGENT_PROCESSED.labels(agent, status).inc(grown)

    def _add(self, metric: Metric, name: str, counts: Counter[Any]) -> None:
        for labels, grown in self._grown(name, counts):
            metric.labels(*(labels if isinstance(labels, tuple) else (labels,))).inc(grown)

    def _grown(self, name: str, counts: Counter[Any]) -> list[tuple[Any, int]]:
        now = Counter(dict(counts))
        grown = now - self._seen.get(name, Counter())
        self._seen[name] = now
        return list(grown.items())


class ResourceReport:
    """Tells what is in use of the resources of a worker process: as metrics, and to the monitor as signals."""

    def __init__(
        self,
        resources: ResourceManager,
        settings: Settings,
        worker: str,
        announce: Callable[[str, Signal[Any]], None],
    ) -> None:
        self._resources = resources
        self._settings = settings
        self._worker = worker
        self._announce = announce
        self._told_s = -_RESOURCES_EVERY_S
        self._told: list[str] = []

    def report(self) -> None:
        """Report what is in use now."""
        metrics.RESOURCE_MEMORY.set(self._resources.memory.ratio)
        for name, usage in self._resources.usage().items():
            for state, tokens in (("used", usage.used), ("waiting", usage.waiting), ("total", usage.total)):
                metrics.RESOURCE_TOKENS.labels(name, state).set(tokens)
        readings = self._resources.readings()
        levels, now_s = [reading.level for reading in readings], time.monotonic()
        if levels != self._told or now_s - self._told_s >= _RESOURCES_EVERY_S:
            self._told, self._told_s = list(levels), now_s
            self._announce("signals", self._signal(readings))

    def _signal(self, readings: Sequence[ResourceReading]) -> Signal[ResourceMetrics]:
        told = ResourceMetrics(
            levels=tuple(ResourceLevel(resource=one.resource, ratio=one.ratio, level=one.level) for one in readings),
            alert_threshold=self._settings.resources.alert_threshold,
            timestamp=datetime.now(UTC),
        )
        node = self._settings.node.name
        return new_signal("system.resources.metrics", told, source=f"node/{node}", subject=f"{node}/{self._worker}")
