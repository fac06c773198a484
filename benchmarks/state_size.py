"""What many agents cost: an epoch, a drain and a resume at 10 thousand, 100 thousand and a million of them.

    python benchmarks/state_size.py                  with a worker on Apache Kafka
    python benchmarks/state_size.py --no-worker      only the key groups, without engine and broker

What the columns mean: `harness.groups` and `harness.lifecycle`.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from harness import groups, lifecycle, machine, results
from harness.broker import apache_kafka
from harness.groups import GroupCosts
from harness.lifecycle import WorkerTimes
from harness.topics import Topics
from rich.console import Console
from rich.table import Table


def main(
    sizes: Annotated[str, typer.Option(help="numbers of agents, comma-separated")] = "10000,100000,1000000",
    worker: Annotated[bool, typer.Option(help="also start, drain and resume a real worker")] = True,
    bootstrap: Annotated[str | None, typer.Option(help="HOST:PORT of a broker, instead of a local one")] = None,
    output: Annotated[Path, typer.Option(help="directory of the JSON file")] = results.RESULTS,
) -> None:
    """Measure state of growing size."""
    progress = Console(stderr=True)
    circumstances = machine.describe()
    counts = [int(size) for size in sizes.split(",")]
    costs = []
    for count in counts:
        progress.print(f"key groups of {count:,} agents")
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            costs.append(groups.measure(count, Path(directory)))
    times = _workers(counts, bootstrap, progress) if worker else []
    results.console().print(_costs_table(costs, f"saving and restoring key groups, commit {circumstances['commit']}"))
    if times:
        results.console().print(_times_table(times, "one worker process on Apache Kafka"))
    content: dict[str, Any] = {
        "groups": [{**asdict(one), "ratio": round(one.ratio, 4)} for one in costs],
        "worker": [asdict(one) for one in times],
    }
    progress.print(f"written to {results.write('state_size', content, circumstances, output)}")


def _workers(counts: list[int], bootstrap: str | None, progress: Console) -> list[WorkerTimes]:
    times = []
    with apache_kafka(bootstrap) as broker:
        topics = Topics(broker.bootstrap)
        for count in counts:
            progress.print(f"a worker with {count:,} agents")
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                times.append(lifecycle.measure(topics, count, Path(directory)))
    return times


def _costs_table(costs: list[GroupCosts], title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in ("agents", "epoch, all ms", "epoch, 1 % ms", "worst ms", "1 % / all", "restore s", "on disk MB"):
        shown.add_column(heading, justify="right")
    for one in costs:
        shown.add_row(
            f"{one.agents:,}",
            f"{1000 * one.full_epoch_s:,.1f}",
            f"{1000 * one.small_epoch_s:,.1f}",
            f"{1000 * one.small_epoch_worst_s:,.1f}",
            f"{100 * one.ratio:.1f} %",
            f"{one.restore_s:.2f}",
            f"{one.disk_mb:,.1f}",
        )
    return shown


def _times_table(times: list[WorkerTimes], title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    for heading in ("agents", "start, empty s", "drain s", "resume s", "MB"):
        shown.add_column(heading, justify="right")
    for one in times:
        shown.add_row(
            f"{one.agents:,}",
            f"{one.start_empty_s:.2f}",
            f"{one.drain_s:.2f}",
            f"{one.resume_s:.2f}",
            f"{one.rss_mb:,.0f}",
        )
    return shown


if __name__ == "__main__":
    typer.run(main)
