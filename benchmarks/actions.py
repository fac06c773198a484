"""Tasks with effects: latency at a steady rate, durable actions per second, and thousands in flight at once.

    python benchmarks/actions.py

The same tasks go through signalbox, with its journal on, and through a plain asyncio loop that consumes, works and
produces and keeps nothing. Both run in turn on one Apache Kafka, on fresh topics. A task that is answered twice, not at
all, or with an error makes the exit code 1. How far to trust it: `benchmarks/README.md`.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import psutil
import typer
from harness import machine, results
from harness.broker import apache_kafka
from harness.contender import Contender, Place
from harness.running import stop
from harness.tasks import Answers, Tasks
from harness.topics import OUTPUTS, PREFIX, SOURCE, Topics
from rich.console import Console
from rich.table import Table

from signalbox.supervision import inspection

SINK = f"{PREFIX}results"
PLAIN = Contender(name="plain", module="contenders.plain_tasks")
SIGNALBOX = Contender(name="signalbox", module="contenders.signalbox_tasks")
_PROBES = 20
_LIMIT_S = 120.0
_GRACE_S = 1.0
#: How often the decent tasks run alone and with bad ones, in turn.
_TURNS = 5

Measures = dict[str, float]
Scene = Callable[["Bench"], Measures]


@dataclass(slots=True)
class Bench:
    """One system that is up, and the topics around it."""

    system: str
    place: Place
    process: psutil.Process
    answers: Answers
    sent: int = 0
    expected_failures: set[int] = field(default_factory=set)

    def tasks(self, count: int, **options: Any) -> Tasks:
        """The next tasks."""
        self.sent += count
        return Tasks(bootstrap=self.place.bootstrap, topic=SOURCE, first=self.sent - count, count=count, **options)

    def in_flight(self) -> int | None:
        """Actions in flight now; None where nobody can tell."""
        if self.system != SIGNALBOX.name:
            return None
        path = inspection.socket_path(self.place.directory / "state", "agents-0")
        return int(inspection.ask(path, "status")["actions_in_flight"])


def main(  # noqa: PLR0917 - the options of the command line
    rate: Annotated[float, typer.Option(min=1, help="tasks per second, for latency")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=1, help="measured time of a latency run")] = 15.0,
    burst: Annotated[int, typer.Option(min=100, help="tasks that wait for nothing, for throughput")] = 20_000,
    waiting: Annotated[int, typer.Option(min=100, help="tasks that wait for a second each")] = 10_000,
    runs: Annotated[int, typer.Option(min=1, help="rounds; in each, both systems run once")] = 3,
    bootstrap: Annotated[str | None, typer.Option(help="HOST:PORT of a broker, instead of a local one")] = None,
    output: Annotated[Path, typer.Option(help="directory of the JSON file")] = results.RESULTS,
) -> None:
    """Compare how tasks with effects are done."""
    progress = Console(stderr=True)
    circumstances = machine.describe()
    both = (PLAIN, SIGNALBOX)
    scenes: dict[str, tuple[Scene, int, Sequence[Contender]]] = {
        "latency": (lambda bench: _latency(bench, rate, seconds), 0, both),
        "throughput": (lambda bench: _throughput(bench, burst), 0, both),
        "in flight": (lambda bench: _in_flight(bench, waiting), waiting, both),
        "bad company": (lambda bench: _bad_company(bench, burst // 4), 0, (SIGNALBOX,)),
    }
    done: dict[str, dict[str, list[Measures]]] = {}
    with apache_kafka(bootstrap) as broker:
        topics = Topics(broker.bootstrap)
        for number in range(1, runs + 1):
            for name, (scene, places, systems) in scenes.items():
                for system in systems:
                    with _running(topics, system, places) as bench:
                        found = scene(bench)
                        found["wrong"] = _wrong(bench)
                    done.setdefault(name, {}).setdefault(system.name, []).append(found)
                    text = ", ".join(f"{key} {value:,.1f}" for key, value in found.items())
                    progress.print(f"round {number}/{runs}  {name:<10} {system.name:<10} {text}", highlight=False)
        topics.clear()
    medians = {name: {system: _median(them) for system, them in of.items()} for name, of in done.items()}
    title = f"tasks with effects, medians of {runs}, commit {circumstances['commit']}"
    results.console().print(_render(medians, title))
    content = {"broker": broker.kind, "rate": rate, "medians": medians, "runs": done}
    progress.print(f"written to {results.write('actions', content, circumstances, output)}")
    if not circumstances["quiet"]:
        progress.print(f"the machine was not quiet (load {circumstances['load_before']}): do not trust these numbers")
    if any(one["wrong"] for of in done.values() for them in of.values() for one in them):
        sys.exit(1)


@contextmanager
def _running(topics: Topics, system: Contender, places: int) -> Iterator[Bench]:
    """A system on fresh topics that has answered its first tasks."""
    topics.clear()
    topics.create(SOURCE, *(name for name in OUTPUTS if name != SINK))
    topics.create(SINK, append_time=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        place = Place(bootstrap=topics.bootstrap, source=SOURCE, sink=SINK, directory=Path(directory))
        variables = place.variables() | ({"BENCH_PLACES": str(places)} if places else {})
        with place.log.open("wb") as log:
            process = subprocess.Popen(
                system.command(), env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        answers = Answers(place.bootstrap, SINK)
        try:
            bench = Bench(system.name, place, psutil.Process(process.pid), answers)
            bench.tasks(_PROBES).send()
            if len(_collect(bench, _PROBES)) < _PROBES:
                msg = f"{system.name} did not come up: {place.log.read_text(errors='replace')[-1000:]}"
                raise RuntimeError(msg)
            yield bench
        finally:
            answers.close()
            stop(process)


def _latency(bench: Bench, rate: float, seconds: float) -> Measures:
    """Milliseconds from the scheduled sending of a task to its result; the first fifth does not count."""
    schedule = bench.tasks(int(rate * seconds * 1.25), begin_s=time.monotonic() + 1.0, rate=rate)
    feed = subprocess.Popen(schedule.command(), env=bench.place.variables())
    begun_s, before_s = time.monotonic(), _cpu_s(bench)
    found = _collect(bench, schedule.count)
    cpu = (_cpu_s(bench) - before_s) / (time.monotonic() - begun_s)
    feed.wait()
    late = [1000 * (at - schedule.due_s(number)) for number, at in found.items()]
    counted = [one for number, one in zip(found, late, strict=True) if number - schedule.first >= schedule.count // 5]
    cuts = quantiles(counted or [0.0, 0.0], n=1000, method="inclusive")
    return {"p50 ms": cuts[499], "p99 ms": cuts[989], "cpu": cpu}


def _throughput(bench: Bench, count: int) -> Measures:
    """Tasks per second, from the moment when they begin to be sent until the broker has appended the last result."""
    before_s, began = _cpu_s(bench), time.time()
    bench.tasks(count).send()
    appended: list[float] = []
    _collect(bench, count, appended)
    return {
        "tasks/s": len(appended) / (max(appended) - began),
        "cpu us/task": 1e6 * (_cpu_s(bench) - before_s) / count,
    }


def _in_flight(bench: Bench, count: int) -> Measures:
    """Seconds until `count` tasks that wait for one second are answered, and what each that waits costs in memory."""
    empty = bench.process.memory_info().rss
    begun_s = time.monotonic()
    bench.tasks(count, seconds=1.0).send()
    found: dict[int, float] = {}
    most, rss = 0, empty
    while len(found) < count and time.monotonic() < begun_s + _LIMIT_S:
        now = bench.in_flight()
        if (now if now is not None else count) > most:
            most, rss = now if now is not None else count, max(rss, bench.process.memory_info().rss)
        found |= _collect(bench, count - len(found), limit_s=0.1)
    return {"s": time.monotonic() - begun_s, "most": most, "KiB each": (rss - empty) / max(most, 1) / 1024}


def _bad_company(bench: Bench, count: int) -> Measures:
    """Seconds until as many tasks of 0.2 seconds are answered, among themselves and with bad ones between them."""
    alone: list[float] = []
    among: list[float] = []
    for _ in range(_TURNS):
        alone.append(_decent_ones(bench, bench.tasks(count, seconds=0.2)))
        among.append(_decent_ones(bench, bench.tasks(count * 50 // 49, seconds=0.2, bad_every=50)))
    return {"s alone": median(alone), "s with bad ones": median(among), "ratio": median(among) / median(alone)}


def _decent_ones(bench: Bench, tasks: Tasks) -> float:
    """Seconds until the decent ones among some tasks are answered."""
    numbers = range(tasks.first, tasks.first + tasks.count)
    bench.expected_failures |= {number for number in numbers if tasks.action(number) not in ("wait", "leak")}
    waiting = {number for number in numbers if tasks.action(number) == "wait"}
    begun_s = time.monotonic()
    tasks.send()
    while waiting and time.monotonic() < begun_s + _LIMIT_S:
        waiting -= _collect(bench, len(waiting), limit_s=0.1).keys()
    return time.monotonic() - begun_s


def _collect(
    bench: Bench, count: int, appended: list[float] | None = None, *, limit_s: float = _LIMIT_S
) -> dict[int, float]:
    """When the results of so many tasks were received, by the task's number."""
    found: dict[int, float] = {}
    deadline = time.monotonic() + limit_s
    while len(found) < count and time.monotonic() < deadline:
        answer = bench.answers.next(0.05)
        if answer is not None and answer.ok:
            found[answer.number] = answer.received_s
            if appended is not None:
                appended.append(answer.appended_s)
    return found


def _wrong(bench: Bench) -> int:
    """How many tasks have not exactly one result, or failed."""
    time.sleep(_GRACE_S)
    counts: Counter[int] = Counter()
    answers = Answers(bench.place.bootstrap, SINK)
    try:
        while (answer := answers.next(1.0)) is not None:
            counts[answer.number] += 1 if answer.ok != (answer.number in bench.expected_failures) else 2
    finally:
        answers.close()
    return sum(counts[number] != 1 for number in range(bench.sent))


def _cpu_s(bench: Bench) -> float:
    used = bench.process.cpu_times()
    return float(used.user + used.system)


def _median(runs: list[Measures]) -> Measures:
    return {key: round(median(run[key] for run in runs), 2) for key in runs[0]}


def _render(medians: dict[str, dict[str, Measures]], title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in ("", "", PLAIN.name, SIGNALBOX.name, "signalbox is"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for scene, of in medians.items():
        for key, ours in of[SIGNALBOX.name].items():
            plain = of.get(PLAIN.name, {}).get(key)
            ratio = f"{ours / plain:.2f} x" if plain and key != "wrong" else ""
            shown.add_row(scene, key, "" if plain is None else f"{plain:,.2f}", f"{ours:,.2f}", ratio)
    return shown


if __name__ == "__main__":
    typer.run(main)
