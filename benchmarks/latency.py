"""Latency from signal to alert at a steady rate, in signalbox and in a plain loop, on one Apache Kafka.

    python benchmarks/latency.py

Every signal exceeds the threshold and is answered by an alert. Signals leave on schedule from a process of their own
and latency counts from the scheduled time, so a stall shows in every signal that it delays (no coordinated omission).
Both systems run in turn, on fresh topics. How far to trust it: `benchmarks/README.md`.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import msgspec
import typer
from confluent_kafka import Consumer, TopicPartition
from harness import machine, results
from harness.broker import apache_kafka
from harness.contender import CONTENDERS, Contender, Place
from harness.feed import Schedule, open_producer, send
from harness.job import PARTITIONS
from harness.running import stop
from harness.topics import OUTPUTS, SINK, SOURCE, Topics
from rich.console import Console
from rich.table import Table

SYSTEMS = (Contender(name="plain", module="contenders.plain_latency"), CONTENDERS["signalbox"])
#: Signals that only find out whether a system is up are numbered from here.
_PROBES_FROM = 900_000_000
_START_LIMIT_S = 60.0
_DRAIN_S = 5.0


class _Cause(msgspec.Struct):
    causationid: str


_decode = msgspec.json.Decoder(_Cause).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One run: milliseconds, and how many alerts were missing."""

    system: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    measured: int
    missing: int


def main(  # noqa: PLR0917 - the options of the command line
    rate: Annotated[float, typer.Option(min=1, help="signals per second")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=2, help="measured time of a run")] = 20.0,
    warm_up: Annotated[float, typer.Option(min=0, help="seconds before it that are not counted")] = 3.0,
    runs: Annotated[int, typer.Option(min=1, help="rounds; in each, both systems run once")] = 3,
    bootstrap: Annotated[str | None, typer.Option(help="HOST:PORT of a broker, instead of a local one")] = None,
    output: Annotated[Path, typer.Option(help="directory of the JSON file")] = results.RESULTS,
) -> None:
    """Compare how long an alert takes."""
    progress = Console(stderr=True)
    circumstances = machine.describe()
    done: list[Latency] = []
    with apache_kafka(bootstrap) as broker:
        topics = Topics(broker.bootstrap)
        for number in range(1, runs + 1):
            for system in SYSTEMS:
                found = _run(topics, system, rate, warm_up, seconds)
                done.append(found)
                text = f"p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms, missing {found.missing}"
                progress.print(f"round {number}/{runs}  {system.name:<10} {text}", highlight=False)
        topics.clear()
    medians = [_median_of([one for one in done if one.system == system.name]) for system in SYSTEMS]
    plain, ours = medians
    ratios = {"p50": round(ours.p50_ms / plain.p50_ms, 2), "p99": round(ours.p99_ms / plain.p99_ms, 2)}
    title = f"signal to alert at {rate:,.0f} signals/s, medians of {runs}, commit {circumstances['commit']}"
    results.console().print(_render(medians, ratios, title))
    content = {
        "broker": broker.kind,
        "rate": rate,
        "seconds": seconds,
        "medians": [asdict(one) for one in medians],
        "ratios": ratios,
        "runs": [asdict(one) for one in done],
    }
    progress.print(f"written to {results.write('latency', content, circumstances, output)}")
    if not circumstances["quiet"]:
        progress.print(f"the machine was not quiet (load {circumstances['load_before']}): do not trust these numbers")
    if any(one.missing for one in done):
        sys.exit(1)


def _run(topics: Topics, system: Contender, rate: float, warm_up_s: float, seconds: float) -> Latency:
    topics.clear()
    topics.create(SOURCE, *OUTPUTS)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        place = Place(bootstrap=topics.bootstrap, source=SOURCE, sink=SINK, directory=Path(directory))
        with place.log.open("wb") as log:
            process = subprocess.Popen(
                system.command(), env=place.variables(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        consumer = Consumer({"bootstrap.servers": place.bootstrap, "group.id": place.group, "log_level": 0})
        consumer.assign([TopicPartition(SINK, number, 0) for number in range(PARTITIONS)])
        try:
            _wait_until_up(consumer, place, process)
            skipped = int(rate * warm_up_s)
            schedule = Schedule(
                bootstrap=place.bootstrap,
                topic=SOURCE,
                begin_s=time.monotonic() + 1.0,
                rate=rate,
                count=skipped + int(rate * seconds),
            )
            return _summary(system.name, _latencies(consumer, schedule, place, skipped), schedule.count - skipped)
        finally:
            consumer.close()
            stop(process)


def _wait_until_up(consumer: Consumer, place: Place, process: "subprocess.Popen[bytes]") -> None:
    """Until a signal is answered."""
    producer = open_producer(place.bootstrap)
    deadline = time.monotonic() + _START_LIMIT_S
    probes = 0
    answered: set[int] = set()
    while not answered or len(answered) < probes:
        if process.poll() is not None or time.monotonic() > deadline:
            msg = f"the system did not come up: {place.log.read_text(errors='replace')[-1000:]}"
            raise RuntimeError(msg)
        if not answered:
            send(producer, SOURCE, _PROBES_FROM + probes)
            probes += 1
        if (seq := _poll(consumer, 0.2)) is not None:
            answered.add(seq)


def _latencies(consumer: Consumer, schedule: Schedule, place: Place, skipped: int) -> list[float]:
    """Milliseconds from the scheduled sending of each signal to the receipt of its alert."""
    found: dict[int, float] = {}
    feed = subprocess.Popen(schedule.command(), env=place.variables())
    try:
        deadline = schedule.due_s(schedule.count) + _DRAIN_S
        while len(found) < schedule.count and time.monotonic() < deadline:
            seq = _poll(consumer, 0.1)
            if seq is not None:
                found[seq] = 1000 * (time.monotonic() - schedule.due_s(seq))
    finally:
        feed.terminate()
        feed.wait()
    return [latency for seq, latency in found.items() if seq >= skipped]


def _poll(consumer: Consumer, timeout_s: float) -> int | None:
    """The number of the signal that the next alert is about."""
    message = consumer.poll(timeout_s)
    value = None if message is None or message.error() else message.value()
    return None if value is None else int(_decode(value).causationid.removeprefix("s-"))


def _summary(name: str, latencies: list[float], expected: int) -> Latency:
    cuts = quantiles(latencies, n=1000, method="inclusive")
    return Latency(
        system=name,
        p50_ms=cuts[499],
        p90_ms=cuts[899],
        p99_ms=cuts[989],
        p999_ms=cuts[998],
        max_ms=max(latencies),
        measured=len(latencies),
        missing=expected - len(latencies),
    )


def _median_of(runs: list[Latency]) -> Latency:
    fields = {name: median(getattr(run, name) for run in runs) for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms")}
    return Latency(
        system=runs[0].system,
        **fields,
        max_ms=max(run.max_ms for run in runs),
        measured=sum(run.measured for run in runs),
        missing=sum(run.missing for run in runs),
    )


def _render(medians: list[Latency], ratios: dict[str, float], title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("system")
    for heading in ("p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "worst ms", "alerts", "missing"):
        shown.add_column(heading, justify="right")
    for one in medians:
        values = (one.p50_ms, one.p90_ms, one.p99_ms, one.p999_ms, one.max_ms)
        shown.add_row(one.system, *(f"{value:.2f}" for value in values), f"{one.measured:,}", str(one.missing))
    shown.add_section()
    shown.add_row("ratio", f"{ratios['p50']:.1f} x", "", f"{ratios['p99']:.1f} x")
    return shown


if __name__ == "__main__":
    typer.run(main)
