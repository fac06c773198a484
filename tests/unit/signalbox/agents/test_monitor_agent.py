"""The monitor: when it raises, escalates and resolves, and that a flapping sensor is one alert."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.payloads.alerts import Alert
from schemas.signal import Signal
from signalbox.agents import minutes, seconds
from signalbox.agents.monitor_agent import EVIDENCE, MARGIN, MAX_HOLD, METRICS, MonitorAgent
from signalbox.testing import Harness
from tests.unit.signalbox.agents.examples import harness_of

CALM = {"memory_usage": 0.1, "cpu_usage": 0.1, "disk_usage": 0.1}


def _harness(**state: Any) -> Harness:
    return harness_of(MonitorAgent, node={"name": "here"}, agents={"monitor_agent": {"state": state}})


def _read(harness: Harness, subject: str = "host-1", level: str = "normal", **usage: float) -> Signal[Any]:
    data = {**CALM, **usage, "process_count": 9, "timestamp": harness.clock.now().isoformat()}
    return harness.send(f"system.health.{level}", data, subject=subject)


def _alerts(harness: Harness, pattern: str = "alert.*") -> list[Alert]:
    return [Alert.model_validate(signal.data) for signal in harness.emitted(pattern, topic="alerts")]


def _told(harness: Harness) -> list[str]:
    return [alert.state for alert in _alerts(harness)]


def _state(harness: Harness, subject: str = "host-1") -> Any:
    return harness.state(f"monitor_agent:{subject}")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("value", "severity"),
    [(0.0, None), (0.7999, None), (0.8, "warning"), (0.949, "warning"), (0.95, "critical"), (1, "critical")],
)
def test_an_alert_is_raised_at_the_bound(metric: str, value: float, severity: str | None) -> None:
    """A reading at or above 0.8 raises a warning at once, at or above 0.95 a critical alert, below it nothing."""
    harness = _harness()
    signal = _read(harness, **{metric: value})
    raised = _alerts(harness)
    assert [(alert.metric, alert.severity, alert.state) for alert in raised] == (
        [(metric, severity, "raised")] if severity else []
    )
    if severity:
        (alert,) = raised
        assert (alert.subject, alert.value, alert.count) == ("host-1", value, 1)
        assert alert.threshold == (0.95 if severity == "critical" else 0.8)
        assert alert.raised_at == alert.updated_at == harness.clock.now()
        assert [reading.signal_id for reading in alert.evidence] == [signal.id]
        assert alert.dedup_key == f"monitor_agent:host-1/{metric}"


def test_the_level_that_the_sensor_gave_does_not_decide() -> None:
    """The monitor judges the values by its own bounds, whatever level the signal's type names."""
    harness = _harness()
    _read(harness, level="critical", cpu_usage=0.2)
    assert _told(harness) == []
    _read(harness, level="normal", cpu_usage=0.9)
    assert _told(harness) == ["raised"]


def test_bounds_can_be_set() -> None:
    """`alert_threshold` and `critical_threshold` are state fields that settings can give."""
    harness = _harness(alert_threshold=0.5, critical_threshold=0.6)
    _read(harness, cpu_usage=0.5, memory_usage=0.6)
    assert [(alert.metric, alert.severity, alert.threshold) for alert in _alerts(harness)] == [
        ("memory_usage", "critical", 0.6),
        ("cpu_usage", "warning", 0.5),
    ]


def test_trouble_that_goes_on_is_told_once() -> None:
    """Further readings out of bounds belong to the open alert: they are counted and kept as evidence, not told."""
    harness = _harness()
    for n in range(30):
        _read(harness, cpu_usage=(810 + n) / 1000)
        harness.advance(seconds(1))
    assert _told(harness) == ["raised"]
    _read(harness, cpu_usage=0.96)
    escalated = _alerts(harness)[-1]
    assert (escalated.count, len(escalated.evidence)) == (31, EVIDENCE)
    assert [reading.value for reading in escalated.evidence][-2:] == [0.839, 0.96]
    assert _state(harness).alerts_sent == 2


def test_an_alert_escalates_when_it_gets_worse() -> None:
    """A warning that reaches the critical bound is told once more as `escalated`, under the same alert id."""
    harness = _harness()
    for value in (0.85, 0.97, 0.85, 0.99):
        _read(harness, cpu_usage=value)
    raised, escalated = _alerts(harness)
    assert (raised.severity, escalated.severity, escalated.state) == ("warning", "critical", "escalated")
    assert raised.alert_id == escalated.alert_id
    assert escalated.threshold == 0.95


def test_a_warning_that_nobody_takes_escalates_by_itself() -> None:
    """A warning that nobody acknowledged within five minutes becomes critical, once, and keeps the bound it crossed."""
    harness = _harness()
    _read(harness, cpu_usage=0.85)
    harness.advance(minutes(5) - timedelta(milliseconds=1))
    assert _told(harness) == ["raised"]
    harness.advance(timedelta(milliseconds=1))
    harness.advance(minutes(60))
    assert _told(harness) == ["raised", "escalated"]
    escalated = _alerts(harness)[-1]
    assert (escalated.severity, escalated.value, escalated.threshold) == ("critical", 0.85, 0.8)


def test_a_critical_alert_does_not_escalate() -> None:
    """What is critical from the start, or became so, is not escalated again by time."""
    harness = _harness()
    _read(harness, cpu_usage=0.99)
    harness.advance(minutes(60))
    assert _told(harness) == ["raised"]


@pytest.mark.parametrize("by_id", [True, False])
def test_an_acknowledgement_stops_the_escalation(by_id: bool) -> None:
    """Who acknowledges an open alert, by its id or its dedup key, is told once, and time no longer escalates it."""
    harness = _harness()
    _read(harness, cpu_usage=0.85)
    (raised,) = _alerts(harness)
    ack = {"alert_id": raised.alert_id} if by_id else {"dedup_key": raised.dedup_key}
    for by in ("ann", "bob"):
        harness.send("alert.ack", {**ack, "by": by}, subject="host-1")
    harness.advance(minutes(60))
    assert [(alert.state, alert.acknowledged_by) for alert in _alerts(harness)] == [
        ("raised", None),
        ("acknowledged", "ann"),
    ]
    _read(harness, cpu_usage=0.99)
    assert _told(harness)[-1] == "escalated"


@pytest.mark.parametrize(
    "ack",
    [{"alert_id": "other"}, {"dedup_key": "monitor_agent:host-1/memory_usage"}, {"dedup_key": "host-1/cpu_usage"}],
)
def test_an_acknowledgement_of_something_else_changes_nothing(ack: dict[str, str]) -> None:
    """An acknowledgement that names no open alert of this subject is ignored."""
    harness = _harness()
    _read(harness, cpu_usage=0.85)
    harness.send("alert.ack", {**ack, "by": "ann"}, subject="host-1")
    assert _told(harness) == ["raised"]
    assert harness.dead_letters == []


def test_an_alert_is_resolved_after_it_stayed_calm() -> None:
    """Once readings are below the bound by the margin for the check interval, the alert is resolved, once."""
    harness = _harness()
    _read(harness, cpu_usage=0.85)
    harness.advance(seconds(10))
    _read(harness, cpu_usage=0.3)
    harness.advance(seconds(29.999))
    assert _told(harness) == ["raised"]
    harness.advance(timedelta(milliseconds=1))
    raised, resolved = _alerts(harness)
    assert resolved.state == "resolved"
    assert resolved.alert_id == raised.alert_id
    assert (resolved.value, resolved.raised_at) == (0.3, raised.raised_at)
    harness.advance(minutes(600))
    assert _told(harness) == ["raised", "resolved"]
    assert _state(harness).episodes == {}


def test_readings_just_below_the_bound_do_not_calm() -> None:
    """Within the margin below the bound an alert stays open (hysteresis), also when readings had been calmer before."""
    harness = _harness()
    _read(harness, cpu_usage=0.85)
    for value in (0.79, 0.751, 0.3, 0.76):
        _read(harness, cpu_usage=value)
        harness.advance(seconds(20))
    harness.advance(minutes(4))
    assert "resolved" not in _told(harness)
    _read(harness, cpu_usage=0.7499)
    harness.advance(seconds(30))
    assert _told(harness)[-1] == "resolved"


def test_silence_is_not_calm() -> None:
    """Without any reading after the bad one, an alert stays open: nobody has said that it is over."""
    harness = _harness()
    _read(harness, cpu_usage=0.99)
    harness.advance(timedelta(days=30))
    assert _told(harness) == ["raised"]


def test_a_sensor_that_flaps_fast_is_one_alert() -> None:
    """A metric that crosses the bound every ten seconds for an hour raises once and never resolves meanwhile."""
    harness = _harness(escalate_after=10**9)
    for n in range(360):
        _read(harness, cpu_usage=0.9 if n % 2 == 0 else 0.2)
        harness.advance(seconds(10))
    assert _told(harness) == ["raised"]


def test_a_sensor_that_flaps_slowly_is_one_alert() -> None:
    """A metric that goes bad every two minutes continues its alert, which takes longer and longer to resolve."""
    harness = _harness(escalate_after=10**9)
    for _ in range(60):
        _read(harness, cpu_usage=0.9)
        harness.advance(seconds(60))
        _read(harness, cpu_usage=0.2)
        harness.advance(seconds(60))
    alerts = _alerts(harness)
    assert len({alert.alert_id for alert in alerts}) == 1
    assert [alert.state for alert in alerts] == ["raised", "resolved", "raised", "resolved", "raised"][: len(alerts)]
    assert len(alerts) <= 5
    assert _state(harness).episodes["cpu_usage"].hold_s == MAX_HOLD * 30


def test_a_relapse_is_as_severe_as_its_reading() -> None:
    """An alert raised again after it was resolved has the severity of the new reading, not that of the old episode."""
    harness = _harness()
    _read(harness, cpu_usage=0.99)
    _read(harness, cpu_usage=0.2)
    harness.advance(minutes(1))
    _read(harness, cpu_usage=0.85)
    assert [(alert.state, alert.severity) for alert in _alerts(harness)] == [
        ("raised", "critical"),
        ("resolved", "critical"),
        ("raised", "warning"),
    ]


def test_trouble_long_after_is_a_new_alert() -> None:
    """A metric that goes bad again long after its resolution raises an alert of a new id with the same dedup key."""
    harness = _harness()
    for _ in range(2):
        _read(harness, cpu_usage=0.9)
        _read(harness, cpu_usage=0.2)
        harness.advance(minutes(30))
    raised = _alerts(harness, "alert.raised")
    assert len({alert.alert_id for alert in raised}) == 2
    assert len({alert.dedup_key for alert in raised}) == 1


def test_metrics_and_subjects_are_independent() -> None:
    """Each metric of each subject has an alert of its own, raised and resolved by its own readings only."""
    harness = _harness()
    _read(harness, "host-1", cpu_usage=0.9, disk_usage=0.99)
    _read(harness, "host-2", cpu_usage=0.2)
    _read(harness, "host-2", memory_usage=0.9)
    _read(harness, "host-1", cpu_usage=0.2, disk_usage=0.99)
    harness.advance(minutes(1))
    told = [(alert.subject, alert.metric, alert.state) for alert in _alerts(harness)]
    assert told == [
        ("host-1", "cpu_usage", "raised"),
        ("host-1", "disk_usage", "raised"),
        ("host-2", "memory_usage", "raised"),
        ("host-1", "cpu_usage", "resolved"),
    ]


def test_system_monitor_is_the_nodes_own_instance() -> None:
    """Readings about this node go to `system_monitor`, those about other subjects to instances of their own."""
    harness = _harness()
    _read(harness, "here", cpu_usage=0.9)
    _read(harness, "elsewhere", cpu_usage=0.9)
    assert harness.agents() == ["monitor_agent:elsewhere", "system_monitor"]
    own = _alerts(harness)[0]
    assert (own.subject, own.dedup_key) == ("here", "system_monitor/cpu_usage")
    assert harness.emitted("alert.raised")[0].source == "agent/system_monitor"
    registered = harness.emitted("agent.registered", topic="registry")[0].data
    assert (registered["agent_id"], registered["agent_type"], registered["kind"]) == (
        "system_monitor",
        "monitor_agent",
        "keyed",
    )


def test_alerts_survive_a_restart() -> None:
    """An open alert stays the same alert over a restart, and still escalates and resolves at its times."""
    harness = _harness()
    _read(harness, cpu_usage=0.85)
    harness.advance(minutes(4))
    harness.restart()
    _read(harness, cpu_usage=0.86)
    harness.advance(minutes(1))
    _read(harness, cpu_usage=0.2)
    harness.restart()
    harness.advance(minutes(10))
    assert _told(harness) == ["raised", "escalated", "resolved"]
    assert len({alert.alert_id for alert in _alerts(harness)}) == 1


@pytest.mark.parametrize("data", [None, [], {"metric": "cpu_usage"}, {"metric": 5}, {"metric": "nonsense"}, {}])
@pytest.mark.parametrize("type", ["monitor.check", "monitor.escalate"])
def test_its_own_timers_sent_by_somebody_else_do_no_harm(type: str, data: Any) -> None:
    """A signal that only looks like a timer of the monitor does not resolve what is not calm, and breaks nothing."""
    harness = _harness()
    _read(harness, cpu_usage=0.99)
    harness.send(type, data, subject="host-1")
    _read(harness, cpu_usage=0.2)
    harness.send(type, data, subject="host-1")
    _read(harness, cpu_usage=0.99)
    assert _told(harness) == ["raised"]


readings = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 0.74, 0.75, 0.76, 0.79, 0.8, 0.85, 0.94, 0.95, 1.0]),
        st.integers(0, 400),
        st.sampled_from(["read", "read", "read", "read", "ack", "restart"]),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(readings)
def test_whatever_the_readings_alerts_stay_consistent(drawn: list[tuple[float, int, str]]) -> None:
    """Between raise and resolve there is no second raise; it never resolves early; and in the end all is resolved."""
    harness = _harness()
    taken: list[tuple[datetime, float]] = []
    for value, wait_s, what in drawn:
        if what == "ack":
            harness.send("alert.ack", {"dedup_key": "monitor_agent:host-1/cpu_usage", "by": "ann"}, subject="host-1")
        elif what == "restart":
            harness.restart()
        else:
            before = len(_told(harness))
            taken.append((harness.clock.now(), value))
            _read(harness, cpu_usage=value)
            assert len(_told(harness)) - before <= 1
            assert value < 0.8 or _open(_alerts(harness)) is not None
        harness.advance(seconds(wait_s))
    _read(harness, cpu_usage=0.0)
    taken.append((harness.clock.now(), 0.0))
    harness.advance(seconds(30 * MAX_HOLD))
    alerts = _alerts(harness)
    assert _open(alerts) is None
    for alert in alerts:
        if alert.state == "resolved":
            _was_calm(alert.updated_at, taken)
    assert (
        _state(harness).alerts_sent
        == len(alerts)
        == len({signal.id for signal in harness.emitted("alert.*", topic="alerts")})
    )
    assert harness.dead_letters == []
    harness.advance(timedelta(days=1))
    assert _state(harness).episodes == {}


def _open(alerts: list[Alert]) -> Alert | None:
    """The alert that is open after this story; checks that it is one that can be told."""
    open_: Alert | None = None
    for alert in alerts:
        if alert.state == "raised":
            assert open_ is None, "raised twice"
        else:
            assert open_ is not None, f"{alert.state} though it was not open"
            assert alert.alert_id == open_.alert_id
            assert alert.state != "escalated" or open_.severity == "warning"
            assert alert.state != "acknowledged" or open_.acknowledged_by is None
        assert alert.count >= 1
        assert alert.raised_at <= alert.updated_at
        open_ = None if alert.state == "resolved" else alert
    return open_


def _was_calm(resolved_at: datetime, taken: list[tuple[datetime, float]]) -> None:
    """For at least the check interval before, every reading was calm, and there was one at its beginning."""
    since = resolved_at - seconds(30)
    assert all(value < 0.8 - MARGIN for at, value in taken if since < at < resolved_at)
    _, value = max((one for one in enumerate(taken) if one[1][0] <= since), key=lambda one: (one[1][0], one[0]))[1]
    assert value < 0.8 - MARGIN
