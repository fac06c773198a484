"""Runs one contender once and says how fast it was and whether its output was right.

The clock starts when the contender's client hands it the first records (it notes that itself) and stops at the time at
which the broker appended the last expected alert, which is the same yardstick for all. CPU is read from outside, from
the process and its children, and the start-up's share is taken off. Nothing here knows the contenders apart.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from harness.contender import Contender, Place
from harness.job import PARTITIONS, Expected

#: After the last expected alert: time for a contender to betray that it sends more than it should.
_GRACE_S = 1.5
_STOP_TIMEOUT_S = 10.0
_SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One record of the output topic."""

    appended_s: float
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run showed. Times in seconds; `problem` is None when the output was right."""

    contender: str
    problem: str | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    startup_s: float = 0.0
    rss_mb: float = 0.0
    signals_per_s: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


class Observer(Protocol):
    """Looks at the process between its first signal and its last alert."""

    def begin(self, pid: int) -> None: ...

    def end(self) -> None: ...


class Watch:
    """Collects the output and the resource use of a running contender."""

    def __init__(self, place: Place, process: psutil.Process) -> None:
        self.alerts: list[Alert] = []
        self._process = process
        self._cpu: list[tuple[float, float]] = []
        self._rss = 0
        self._consumer = Consumer(
            {"bootstrap.servers": place.bootstrap, "group.id": "bench-watch", "enable.auto.commit": False}
        )
        self._consumer.assign([TopicPartition(place.sink, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    @property
    def rss_mb(self) -> float:
        return self._rss / 1e6

    def step(self) -> None:
        """Take in what has arrived, waiting a moment for it."""
        self.alerts += [alert for message in self._consumer.consume(1000, _SAMPLE_S) if (alert := _alert(message))]
        try:
            family = [self._process, *self._process.children(recursive=True)]
            times = [member.cpu_times() for member in family]
            self._rss = max(self._rss, sum(member.memory_info().rss for member in family))
        except psutil.Error:
            return
        self._cpu.append((time.time(), sum(used.user + used.system for used in times)))

    def cpu_at(self, moment_s: float) -> float:
        """CPU seconds used until then, between the two nearest samples."""
        before = [sample for sample in self._cpu if sample[0] <= moment_s]
        after = [sample for sample in self._cpu if sample[0] > moment_s]
        if not before or not after:
            return self._cpu[-1][1] if self._cpu else 0.0
        (t0, c0), (t1, c1) = before[-1], after[0]
        return c0 + (c1 - c0) * (moment_s - t0) / (t1 - t0)


def run_once(
    contender: Contender,
    place: Place,
    expected: Mapping[str, Expected],
    *,
    signals: int,
    limit_s: float,
    observer: Observer | None = None,
) -> Run:
    """Start a contender on its topics, wait until all expected alerts are there, stop it and judge it."""
    started_s = time.time()
    with place.log.open("wb") as log:
        process = subprocess.Popen(
            contender.command(),
            cwd=place.directory,
            env={**place.variables(), **contender.variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with Watch(place, psutil.Process(process.pid)) as watch:
            if observer is not None:
                _wait_for_first(place, process, limit_s)
                observer.begin(process.pid)
            crashed = _wait_for(watch, process, len(expected), limit_s)
            if observer is not None:
                observer.end()
            _see_surplus(watch)
            problem = crashed or find_problem(watch.alerts, expected)
            if crashed or not watch.alerts:
                return Run(contender=contender.name, problem=f"{problem}; {_tail(place.log)}")
            return _measured(contender.name, place, watch, started_s=started_s, signals=signals, problem=problem)
    finally:
        stop(process)


def find_problem(alerts: list[Alert], expected: Mapping[str, Expected]) -> str | None:
    """What is wrong with the output, in a few words, or None."""
    seen: dict[str, Expected] = {}
    ids: set[str] = set()
    for alert in alerts:
        body = json.loads(alert.value)
        cause = body["causationid"]
        if cause in seen or body["id"] in ids:
            return f"the alert about {cause} came twice"
        ids.add(body["id"])
        seen[cause] = Expected(body["subject"], body["data"]["count"], body["data"]["maximum"])
    if missing := expected.keys() - seen.keys():
        return f"{len(missing)} alerts are missing"
    if surplus := seen.keys() - expected.keys():
        return f"{len(surplus)} alerts are about signals below the threshold"
    wrong = [cause for cause, said in seen.items() if said != expected[cause]]
    return f"{len(wrong)} alerts tell of a wrong state, first {wrong[0]}: {seen[wrong[0]]}" if wrong else None


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the process group to end, then make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_TIMEOUT_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def _wait_for_first(place: Place, process: "subprocess.Popen[bytes]", limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not place.report.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def _wait_for(watch: Watch, process: "subprocess.Popen[bytes]", count: int, limit_s: float) -> str | None:
    """Until the output is there and stays so; otherwise the reason why not."""
    deadline = time.monotonic() + limit_s
    while len(watch.alerts) < count:
        watch.step()
        if process.poll() is not None:
            return f"ended with exit code {process.returncode} after {len(watch.alerts)} of {count} alerts"
        if time.monotonic() > deadline:
            return f"{len(watch.alerts)} of {count} alerts after {limit_s:.0f} s"
    return None


def _see_surplus(watch: Watch) -> None:
    end = time.monotonic() + _GRACE_S
    while time.monotonic() < end:
        watch.step()


def _measured(name: str, place: Place, watch: Watch, *, started_s: float, signals: int, problem: str | None) -> Run:
    note: dict[str, Any] = json.loads(place.report.read_text())
    end_s = max(alert.appended_s for alert in watch.alerts)
    wall_s = end_s - note["first_s"]
    return Run(
        contender=name,
        problem=problem,
        wall_s=wall_s,
        cpu_s=watch.cpu_at(end_s) - note["cpu_s"],
        startup_s=note["first_s"] - started_s,
        rss_mb=watch.rss_mb,
        signals_per_s=signals / wall_s,
        versions=note["versions"],
    )


def _alert(message: Message) -> Alert | None:
    value = message.value()
    return Alert(appended_s=message.timestamp()[1] / 1000, value=value) if value and not message.error() else None


def _tail(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-500:] or "it printed nothing"
