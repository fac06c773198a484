"""The benchmark's oracle and judge: a wrong output must never count as right. Running contenders is not tested here."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The benchmark's modules, which are programs beside the packages and not installed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("job", "running", "results", "profiling")
    return SimpleNamespace(**{name: importlib.import_module(f"harness.{name}") for name in names})


@pytest.fixture
def expected(harness: SimpleNamespace) -> dict[str, Any]:
    return dict(harness.job.expected_alerts(harness.job.Job(signals=10_000, subjects=100)))


def alerts(harness: SimpleNamespace, expected: dict[str, Any]) -> list[Any]:
    """An output that is right."""
    bodies = [
        {
            "id": f"{cause}/alert",
            "causationid": cause,
            "subject": one.subject,
            "data": {"count": one.count, "maximum": one.maximum},
        }
        for cause, one in expected.items()
    ]
    return [harness.running.Alert(appended_s=0.0, value=json.dumps(body).encode()) for body in bodies]


def test_right_output_has_no_problem(harness: SimpleNamespace, expected: dict[str, Any]) -> None:
    """Exactly the expected alerts are right."""
    assert harness.running.find_problem(alerts(harness, expected), expected) is None


def test_missing_alert_is_a_problem(harness: SimpleNamespace, expected: dict[str, Any]) -> None:
    """An alert too few is told."""
    assert "1 alerts are missing" in harness.running.find_problem(alerts(harness, expected)[1:], expected)


def test_doubled_alert_is_a_problem(harness: SimpleNamespace, expected: dict[str, Any]) -> None:
    """An alert that comes twice is told."""
    output = alerts(harness, expected)
    assert "came twice" in harness.running.find_problem([*output, output[3]], expected)


def test_wrong_state_is_a_problem(harness: SimpleNamespace, expected: dict[str, Any]) -> None:
    """An alert whose count is off by one is told: its contender lost or doubled a signal."""
    output = alerts(harness, expected)
    body = json.loads(output[5].value)
    body["data"]["count"] += 1
    output[5] = harness.running.Alert(appended_s=0.0, value=json.dumps(body).encode())
    assert "wrong state" in harness.running.find_problem(output, expected)


def test_surplus_alert_is_a_problem(harness: SimpleNamespace, expected: dict[str, Any]) -> None:
    """An alert about a signal below the threshold is told."""
    surplus = {"id": "x", "causationid": "s-000000000", "subject": "x", "data": {"count": 1, "maximum": 0.1}}
    output = [*alerts(harness, expected), harness.running.Alert(appended_s=0.0, value=json.dumps(surplus).encode())]
    assert "below the threshold" in harness.running.find_problem(output, expected)


def test_last_signal_of_every_partition_exceeds_the_threshold(harness: SimpleNamespace) -> None:
    """When all alerts are out, all input was read: the job ends each partition with an alert."""
    job = harness.job
    last = {reading.partition: reading for reading in job.readings(job.Job(signals=10_000, subjects=100))}
    assert len(last) == job.PARTITIONS
    assert all(reading.value > job.THRESHOLD for reading in last.values())


def test_rows_leave_wrong_runs_out_of_the_median_and_name_them(harness: SimpleNamespace) -> None:
    """A wrong run never raises a contender's rate, and its row says that it was wrong."""
    run = harness.running.Run
    runs = [
        run(contender="plain", wall_s=1.0, cpu_s=1.0, signals_per_s=100.0),
        run(contender="plain", wall_s=1.0, cpu_s=1.0, signals_per_s=300.0),
        run(contender="plain", problem="1 alerts are missing", signals_per_s=9e9),
        run(contender="signalbox", wall_s=1.0, cpu_s=1.0, signals_per_s=100.0),
    ]
    table = harness.results.rows(runs, 100)
    assert (table[0].rate, table[0].problem) == (200.0, "1 alerts are missing")
    assert harness.results.ratios(table)["signalbox/plain"] == pytest.approx(0.5)


def test_profile_shows_the_busiest_thread(harness: SimpleNamespace) -> None:
    """Threads that only wait do not fill the profile, however often they were sampled."""
    stacks = "thread (1);wait (x.py:1) 900\nthread (2);a (x.py:2);b (x.py:3) 3\nthread (2);a (x.py:4) 1\n"
    text = harness.profiling.summary(stacks)
    assert "4 samples" in text
    assert "100.0 %  a (x.py)" in text
    assert "wait" not in text
