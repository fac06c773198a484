"""Throughput of the same job in signalbox, a plain loop, Bytewax, Quix Streams and Faust, on one Apache Kafka.

    python benchmarks/throughput.py --setup     once: the environments of the other libraries, under .bench/
    python benchmarks/throughput.py             all contenders in turn, three times; a table and a JSON file
    python benchmarks/throughput.py --profile   one run of signalbox under py-spy, into benchmarks/profiles/

What is measured, and what is not, is in `benchmarks/README.md`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from harness import environments, machine, results
from harness.broker import apache_kafka
from harness.contender import BENCHMARKS, CONTENDERS, Contender, Place
from harness.job import Expected, Job, expected_alerts
from harness.profiling import Profiler
from harness.running import Observer, Run, run_once
from harness.topics import OUTPUTS, SINK, SOURCE, Topics
from rich.console import Console

_QUICK = 100_000


class Bench:
    """Loaded input and its right answer; runs contenders on fresh output topics."""

    def __init__(self, bootstrap: str, job: Job, limit_s: float) -> None:
        self._topics = Topics(bootstrap)
        self._job = job
        self._limit_s = limit_s
        self._expected: dict[str, Expected] = expected_alerts(job)

    def load(self) -> None:
        """Write the input, unless it is there already."""
        self._topics.load(SOURCE, self._job)

    def run(self, contender: Contender, directory: Path, observer: Observer | None = None) -> Run:
        """One run in a directory of its own."""
        self._topics.clear(keep=SOURCE)
        self.load()  # anew if somebody added to it, as agents of signalbox do that write signals
        self._topics.create(*OUTPUTS, append_time=True)
        place = Place(bootstrap=self._topics.bootstrap, source=SOURCE, sink=SINK, directory=directory)
        return run_once(
            contender, place, self._expected, signals=self._job.signals, limit_s=self._limit_s, observer=observer
        )

    def remove(self) -> None:
        """Delete the input and the last output."""
        self._topics.clear()


def main(  # noqa: PLR0917 - the options of the command line
    runs: Annotated[int, typer.Option(min=1, help="rounds; in each, every contender runs once")] = 3,
    signals: Annotated[int, typer.Option(min=10_000, help="signals of input")] = Job().signals,
    quick: Annotated[bool, typer.Option("--quick", help=f"{_QUICK:,} signals")] = False,
    contenders: Annotated[str, typer.Option(help="comma-separated names")] = ",".join(CONTENDERS),
    bootstrap: Annotated[str | None, typer.Option(help="HOST:PORT of a broker, instead of a local one")] = None,
    limit_s: Annotated[float, typer.Option(help="longest a single run may take")] = 600.0,
    output: Annotated[Path, typer.Option(help="directory of the JSON file")] = results.RESULTS,
    setup: Annotated[bool, typer.Option("--setup", help="make the environments of the contenders, then end")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="profile one run of signalbox, then end")] = False,
) -> None:
    """Compare how many signals per second one process gets through."""
    progress = Console(stderr=True)
    if setup:
        environments.set_up(progress.print)
        return
    job = Job(signals=_QUICK if quick else signals)
    chosen = _chosen([results.SUBJECT] if profile else contenders.split(","), progress)
    circumstances = machine.describe()
    with apache_kafka(bootstrap) as broker:
        bench = Bench(broker.bootstrap, job, limit_s)
        progress.print(f"{broker.kind}; loading {job.signals:,} signals")
        bench.load()
        try:
            if profile:
                _profile(bench, chosen[0], circumstances["commit"], progress)
                return
            done = _rounds(bench, chosen, runs, progress)
        finally:
            bench.remove()
    table = results.rows(done, job.signals)
    title = f"{job.signals:,} signals, medians of {runs}, commit {circumstances['commit']}"
    results.console().print(results.render(table, title))
    content = {"broker": broker.kind, "signals": job.signals, **results.as_json(table, done)}
    progress.print(f"written to {results.write('throughput', content, circumstances, output)}")
    if not circumstances["quiet"]:
        progress.print(f"the machine was not quiet (load {circumstances['load_before']}): do not trust these numbers")
    if any(row.problem for row in table):
        sys.exit(1)


def _chosen(names: list[str], progress: Console) -> list[Contender]:
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        msg = f"no such contender: {', '.join(unknown)}; there are {', '.join(CONTENDERS)}"
        raise typer.BadParameter(msg)
    for name in names:
        if not CONTENDERS[name].available():
            progress.print(f"{name} is left out: its environment is missing, run with --setup first")
    return [CONTENDERS[name] for name in names if CONTENDERS[name].available()]


def _rounds(bench: Bench, chosen: list[Contender], rounds: int, progress: Console) -> list[Run]:
    """In turn, not one after the other, so that a slow minute of the machine hits all alike."""
    done = []
    for number in range(1, rounds + 1):
        for contender in chosen:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                run = bench.run(contender, Path(directory))
            done.append(run)
            outcome = f"{run.signals_per_s:,.0f} signals/s" + (f"  WRONG: {run.problem}" if run.problem else "")
            progress.print(f"round {number}/{rounds}  {contender.name:<14} {outcome}", highlight=False)
    return done


def _profile(bench: Bench, contender: Contender, commit: str, progress: Console) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        profiler = Profiler(Path(directory))
        run = bench.run(contender, Path(directory), profiler)
        if run.problem:
            progress.print(f"WRONG: {run.problem}")
            sys.exit(1)
        text = f"{contender.name}, commit {commit}, {run.signals_per_s:,.0f} signals/s under the profiler\n"
        path = BENCHMARKS / "profiles" / f"{contender.name}-{commit.replace('+', '-dirty')}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + profiler.report())
    progress.print(f"written to {path}")


if __name__ == "__main__":
    typer.run(main)
