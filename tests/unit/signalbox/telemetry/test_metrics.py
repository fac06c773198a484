import re

import pytest
from prometheus_client import Counter, Gauge, Histogram

from signalbox.telemetry import metrics
from signalbox.telemetry.metrics import MetricInfo, catalogue

_UNITS = ("_seconds", "_bytes", "_ratio", "_records")
#: Gauges that count things or stand for yes, and so have no unit.
_COUNTS = {
    "signalbox_action_lost_threads",
    "signalbox_actions_in_flight",
    "signalbox_breaker_open",
    "signalbox_agent_keys",
    "signalbox_build_info",
    "signalbox_ready",
    "signalbox_registry_agents",
    "signalbox_resource_tokens",
    "signalbox_flow_workers",
    "signalbox_flow_workers_target",
    "signalbox_flow_generation",
}
_LABELS = {
    "action", "agent", "bytewax", "code", "dependency", "flow", "kind", "node", "partition", "pool", "process",
    "python", "reason", "route", "sensor", "severity", "state", "status", "topic", "version", "worker",
}  # fmt: skip
_BY_NAME = pytest.mark.parametrize("metric", catalogue(), ids=lambda metric: metric.name)
#: What the values of several processes may become; `all` would add a label with the process id.
_MODES = {"livesum", "livemax", "livemin", "livemostrecent", "max"}


@_BY_NAME
def test_names_follow_prometheus(metric: MetricInfo) -> None:
    """Prefix, snake case, `_total` on counters and nowhere else, a base unit on the rest."""
    assert re.fullmatch(r"signalbox_[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    if metric.type != "counter" and metric.name not in _COUNTS:
        assert metric.name.endswith(_UNITS)
    assert not re.search(r"_(ms|millis|milliseconds|kb|mb|percent)(_|$)", metric.name)


@_BY_NAME
def test_labels_are_of_the_bounded_kinds(metric: MetricInfo) -> None:
    """No label can hold a key, a signal id or anything else without end."""
    assert set(metric.labels) <= _LABELS


@_BY_NAME
def test_every_metric_is_explained(metric: MetricInfo) -> None:
    """The help is a sentence that fits a line."""
    assert metric.help.endswith(".")
    assert len(metric.help) < 100


def test_the_catalogue_lists_every_metric_once_by_name() -> None:
    """The reference made from it is complete and stable."""
    names = [metric.name for metric in catalogue()]
    objects = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]
    assert names == sorted(set(names))
    assert len(names) == len(objects)


def test_gauges_of_children_say_how_they_become_one() -> None:
    """A gauge kept by several processes has a mode that leaves one series, without a process id."""
    modes = {
        gauge._name: gauge._multiprocess_mode
        for gauge in vars(metrics).values()
        if isinstance(gauge, Gauge) and gauge in metrics.CHILDREN._collector_to_names
    }
    assert modes
    assert set(modes.values()) <= _MODES


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("signalbox_signals_received_total", ("topic",)),
        ("signalbox_agent_processed_total", ("agent", "status")),
        ("signalbox_agent_errors_total", ("agent", "kind")),
        ("signalbox_kafka_consumer_lag_records", ("topic", "partition")),
        ("signalbox_kafka_produced_total", ("topic",)),
        ("signalbox_snapshot_last_success_timestamp_seconds", ()),
        ("signalbox_restarts_total", ("process", "reason")),
        ("signalbox_http_requests_total", ("route", "code")),
    ],
)
def test_names_that_dashboards_rely_on_stay(name: str, labels: tuple[str, ...]) -> None:
    """A renamed metric breaks somebody's alert, so these are pinned."""
    assert next(metric.labels for metric in catalogue() if metric.name == name) == labels
