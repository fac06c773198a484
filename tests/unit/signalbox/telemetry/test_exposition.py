import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from signalbox.telemetry.exposition import DIRECTORY_VARIABLE, Exposition
from signalbox.telemetry.metrics import READY

_CHILD = """
import os
from signalbox.telemetry import metrics as m
m.SIGNALS_RECEIVED.labels(topic="signals").inc({signals})
m.AGENT_KEYS.labels(agent="task_agent").set({keys})
m.SENSOR_COLLECT.labels("cpu").observe(0.003)
m.SNAPSHOT_LAST_SUCCESS.set({at})
m.KAFKA_LAG.labels(topic="signals", partition="0").set({keys})
print(os.getpid())
"""


def _child(directory: Path, *, signals: int, keys: int, at: float) -> int:
    """Run a process that counts, and return the id it had."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(signals=signals, keys=keys, at=at)],
        env={**os.environ, DIRECTORY_VARIABLE: str(directory)},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def _samples(exposition: Exposition) -> dict[str, float]:
    text = exposition.render()[0].decode()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family appears twice"
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.timeout(30)
def test_children_are_summed_and_the_dead_keep_counting(tmp_path: Path) -> None:
    """Counters add up over processes and survive them; live gauges go with their process; a maximum stays."""
    exposition = Exposition(tmp_path)
    first = _child(tmp_path, signals=10, keys=3, at=200.0)
    second = _child(tmp_path, signals=5, keys=4, at=100.0)
    READY.set(1)
    both = _samples(exposition)
    assert both["signalbox_signals_received_total,topic=signals"] == 15
    assert both["signalbox_agent_keys,agent=task_agent"] == 7
    assert both["signalbox_sensor_collect_seconds_count,sensor=cpu"] == 2
    assert both["signalbox_sensor_collect_seconds_bucket,le=0.005,sensor=cpu"] == 2
    assert both["signalbox_snapshot_last_success_timestamp_seconds"] == 200.0
    assert both["signalbox_kafka_consumer_lag_records,partition=0,topic=signals"] == 4
    assert both["signalbox_ready"] == 1
    assert not [name for name in both if "pid=" in name]

    exposition.retire(first)
    exposition.retire(first)
    one = _samples(exposition)
    assert one["signalbox_agent_keys,agent=task_agent"] == 4
    assert one["signalbox_kafka_consumer_lag_records,partition=0,topic=signals"] == 4
    exposition.retire(second)
    none = _samples(exposition)
    assert none["signalbox_signals_received_total,topic=signals"] == 15
    assert none["signalbox_sensor_collect_seconds_count,sensor=cpu"] == 2
    assert none["signalbox_sensor_collect_seconds_bucket,le=0.005,sensor=cpu"] == 2
    assert none["signalbox_snapshot_last_success_timestamp_seconds"] == 200.0
    assert "signalbox_agent_keys,agent=task_agent" not in none


def test_retired_files_do_not_pile_up(tmp_path: Path) -> None:
    """However often workers restart, the number of files stays what it is after the first."""
    exposition = Exposition(tmp_path)
    exposition.retire(_child(tmp_path, signals=1, keys=1, at=1.0))
    before = sorted(path.name for path in tmp_path.iterdir())
    exposition.retire(_child(tmp_path, signals=1, keys=1, at=1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_node_without_children_shows_its_own_metrics(tmp_path: Path) -> None:
    """A missing directory is no error."""
    samples = _samples(Exposition(tmp_path / "missing"))
    assert "signalbox_ready" in samples
    assert "process_resident_memory_bytes" in samples
    assert not [name for name in samples if "_created" in name]


def test_open_metrics_are_served_on_request(tmp_path: Path) -> None:
    """A scraper that accepts OpenMetrics gets it, with its content type."""
    body, content_type = Exposition(tmp_path).render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "signalbox_ready" in [family.name for family in open_metrics(body.decode())]
