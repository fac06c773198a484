"""The monitor: one instance per subject, which turns health readings into alerts worth waking up for.

An alert is one episode of one metric of one subject. It is raised at the first reading out of bounds, escalated when
it gets worse or nobody acknowledges it, and resolved only after readings stayed `MARGIN` below the bound for the
metric's hold time. A metric that goes bad again soon after continues its episode with twice the hold time, so that a
flapping sensor is one alert. Raising is immediate; only calming down is slow.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas.payloads.alerts import Alert, AlertAck, Reading
from schemas.payloads.health import ResourceMetrics, SystemHealth
from schemas.signal import Signal
from signalbox.agents.contract import AgentState, Context, Keyed, on
from signalbox.agents.directives import CancelTimer, Directive, Emit, Schedule, seconds
from signalbox.agents.foundation_agent import FoundationAgent
from signalbox.ids import derived_id

METRICS = ("memory_usage", "cpu_usage", "disk_usage")
#: A reading counts as calm only this far below the bound (hysteresis).
MARGIN = 0.05
#: A flapping metric's hold time doubles with each relapse, up to this many check intervals.
MAX_HOLD = 20
#: A metric that goes bad again within so many hold times of its resolution continues the old episode.
RELAPSE_HOLDS = 10
EVIDENCE = 10


class Episode(msgspec.Struct):
    """One metric's trouble, open or recently resolved."""

    alert_id: str
    severity: str
    raised_at: datetime
    hold_s: float
    state: str = "raised"
    count: int = 0
    value: float = 0.0
    threshold: float = 0.0
    calm_since: datetime | None = None
    resolved_at: datetime | None = None
    acknowledged_by: str | None = None
    evidence: list[tuple[datetime, float, str]] = []


class Measured(NamedTuple):
    """A value, and the bounds from which on it is a warning, and critical."""

    metric: str
    value: float
    warning: float
    critical: float


class MonitorAgent(FoundationAgent):
    """Watches one subject's health and raises alerts."""

    capabilities = ("monitoring", "alerting", "health_checks")
    addressing = Keyed(node_id="system_monitor")

    class State(AgentState):
        """Bounds, and the episodes by metric."""

        alert_threshold: float = 0.8
        """A ratio; readings at or above it are a warning."""
        critical_threshold: float = 0.95
        check_interval: int = 30_000
        """Milliseconds. An alert must be calm for at least so long."""
        escalate_after: int = 300_000
        """Milliseconds after which a warning that nobody acknowledged becomes critical."""
        alerts_sent: int = 0
        episodes: dict[str, Episode] = {}  # noqa: RUF012 - a struct gives each instance its own

    @on("system.health.*")
    def health(self, state: State, signal: Signal[SystemHealth], context: Context) -> Iterator[Directive]:
        """Compare each metric with its bounds."""
        low, high = sorted((state.alert_threshold, state.critical_threshold))
        for metric in METRICS:
            value = getattr(signal.data, metric)
            yield from self._judge(state, Measured(metric, value, low, high), signal, context)

    @on("system.resources.metrics")
    def resources(self, state: State, signal: Signal[ResourceMetrics], context: Context) -> Iterator[Directive]:
        """Compare what is in use of each resource with the node's bound for resources."""
        for level in signal.data.levels:
            # What is used up is critical only where somebody has to wait for it.
            value = max(1.0, level.ratio) if level.level == "critical" else min(level.ratio, 0.999)
            measured = Measured(level.resource, value, signal.data.alert_threshold, 1.0)
            yield from self._judge(state, measured, signal, context)

    @on("monitor.check")
    def check(self, state: State, signal: Signal[dict[str, Any]], context: Context) -> Iterator[Directive]:
        """Resolve what stayed calm for its hold time."""
        metric = (signal.data or {}).get("metric", "")
        episode = state.episodes.get(metric)
        if episode is None:
            return
        if episode.resolved_at is not None:
            del state.episodes[metric]
        elif episode.calm_since is not None and context.now - episode.calm_since >= seconds(episode.hold_s):
            episode.resolved_at = context.now
            yield self._tell(state, metric, episode, "resolved", context)
            yield CancelTimer(f"escalate.{metric}")
            yield _check_in(metric, episode.hold_s * RELAPSE_HOLDS)

    @on("monitor.escalate")
    def overdue(self, state: State, signal: Signal[dict[str, Any]], context: Context) -> Iterator[Directive]:
        """Escalate a warning that nobody took charge of."""
        metric = (signal.data or {}).get("metric", "")
        episode = state.episodes.get(metric)
        if episode is None or episode.resolved_at or episode.acknowledged_by or episode.severity == "critical":
            return
        episode.severity = "critical"
        yield self._tell(state, metric, episode, "escalated", context)

    @on("alert.ack")
    def acknowledge(self, state: State, signal: Signal[AlertAck], context: Context) -> Iterator[Directive]:
        """Somebody takes charge: the alert no longer escalates by itself."""
        ack = signal.data
        for metric, episode in state.episodes.items():
            meant = ack.alert_id == episode.alert_id or ack.dedup_key == _dedup_key(context.agent_id, metric)
            if meant and episode.resolved_at is None and episode.acknowledged_by is None:
                episode.acknowledged_by = ack.by
                yield self._tell(state, metric, episode, "acknowledged", context)

    def _judge(self, state: State, measured: Measured, signal: Signal[Any], context: Context) -> Iterator[Directive]:
        if measured.value >= measured.warning:
            yield from self._bad(state, measured, signal, context)
        elif measured.metric in state.episodes:
            yield from self._calm(state, measured, context)

    def _bad(self, state: State, measured: Measured, signal: Signal[Any], context: Context) -> Iterator[Directive]:
        metric = measured.metric
        severity = "critical" if measured.value >= measured.critical else "warning"
        episode = state.episodes.get(metric)
        news: str | None = None
        if episode is None:
            alert_id = derived_id(signal.id, _dedup_key(context.agent_id, metric), 0)
            episode = Episode(alert_id, severity, context.now, hold_s=state.check_interval / 1000)
            state.episodes[metric] = episode
            news = "raised"
            yield _escalation(metric, state.escalate_after)
        elif episode.calm_since is not None:
            episode.hold_s = min(episode.hold_s * 2, MAX_HOLD * state.check_interval / 1000)
            yield CancelTimer(f"check.{metric}")
            if episode.resolved_at is not None:
                news, episode.severity = "raised", severity
                yield _escalation(metric, state.escalate_after)
            episode.calm_since = episode.resolved_at = None
        if severity == "critical" and episode.severity == "warning":
            episode.severity = severity
            news = news or "escalated"
        episode.count += 1
        episode.threshold = measured.critical if severity == "critical" else measured.warning
        _note(episode, context.now, measured.value, signal.id)
        if news is not None:
            yield self._tell(state, metric, episode, news, context)

    def _calm(self, state: State, measured: Measured, context: Context) -> Iterator[Directive]:
        metric = measured.metric
        episode = state.episodes[metric]
        if episode.resolved_at is not None:
            return
        episode.value, episode.threshold = measured.value, measured.warning
        if measured.value >= measured.warning - MARGIN:
            if episode.calm_since is not None:
                episode.calm_since = None
                yield CancelTimer(f"check.{metric}")
        elif episode.calm_since is None:
            episode.calm_since = context.now
            yield _check_in(metric, episode.hold_s)

    def _tell(self, state: State, metric: str, episode: Episode, news: str, context: Context) -> Emit:
        episode.state = news
        state.alerts_sent += 1
        threshold = episode.threshold
        alert = Alert(
            alert_id=episode.alert_id,
            dedup_key=_dedup_key(context.agent_id, metric),
            subject=context.subject,
            metric=metric,
            severity=episode.severity,
            state=news,
            value=episode.value,
            threshold=threshold,
            evidence=tuple(Reading(at=at, value=one, signal_id=cause) for at, one, cause in episode.evidence),
            raised_at=episode.raised_at,
            updated_at=context.now,
            message=f"{metric} of {context.subject} is {episode.value:.0%}, bound {threshold:.0%}",
            count=max(1, episode.count),
            acknowledged_by=episode.acknowledged_by,
        )
        return Emit(f"alert.{news}", alert)


def _dedup_key(agent_id: str, metric: str) -> str:
    return f"{agent_id}/{metric}"


def _note(episode: Episode, at: datetime, value: float, signal_id: str) -> None:
    episode.value = value
    episode.evidence = [*episode.evidence[1 - EVIDENCE :], (at, value, signal_id)]


def _check_in(metric: str, after_s: float) -> Schedule:
    return Schedule("monitor.check", seconds(after_s), {"metric": metric}, timer=f"check.{metric}")


def _escalation(metric: str, after_ms: int) -> Schedule:
    return Schedule("monitor.escalate", seconds(after_ms / 1000), {"metric": metric}, timer=f"escalate.{metric}")
