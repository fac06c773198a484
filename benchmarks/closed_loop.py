"""Load that grows tenfold at once, and the way of a decision to workers and agents that serve it, in real nodes.

    python benchmarks/closed_loop.py

Each round starts a node of its own on one Apache Kafka, lets it get to know a light load, and then sends ten times as
much, more than its one worker can do. Counted from that moment: when more workers are at work, and how often it was
decided. The second part grows a pool from 1 to 100 agents by tasks that wait for a second each, and back.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from harness import machine, results
from harness.broker import apache_kafka
from harness.contender import BENCHMARKS
from harness.running import stop
from rich.console import Console
from rich.table import Table

from schemas.signal import new_signal
from signalbox import plugins
from signalbox.cli.demo_watch import wait_until, watching
from signalbox.config import KafkaSettings
from signalbox.errors import DeadlineExceeded

#: One worker inspects a little less than 500 parcels a second.
_PARCELS = "signalbox.cli.demo_parcels:app"
_TASKS = "contenders.signalbox_tasks:app"
_LIGHT_PER_S, _FACTOR = 80.0, 10
_KEYS = 200
_LIMIT_S = 120.0
_POOL = {
    "agents.task_agent.size": "1",
    "actions.max_running_per_agent": "1",
    "scaling.pools.task_agent.max": "100",
    "scaling.pools.task_agent.down_window_s": "10",
    "scaling.flows.agents.max": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One round. Seconds since the load grew; None if it did not happen."""

    decided_s: float | None
    served_s: float | None
    decisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun:
    """One pool's way up and down. Seconds since the load grew, and since it went."""

    most: int
    up_s: float | None
    least: int
    down_s: float | None
    decisions: int


def main(
    runs: Annotated[int, typer.Option(min=1, help="rounds of the first part")] = 7,
    watched: Annotated[float, typer.Option(min=10, help="seconds that a round goes on after the load grew")] = 25.0,
    bootstrap: Annotated[str | None, typer.Option(help="HOST:PORT of a broker, instead of a local one")] = None,
    output: Annotated[Path, typer.Option(help="directory of the JSON file")] = results.RESULTS,
) -> None:
    """Measure how soon a load that grows tenfold is served."""
    progress = Console(stderr=True)
    circumstances = machine.describe()
    with apache_kafka(bootstrap) as broker:
        steps = []
        for number in range(1, runs + 1):
            steps.append(_step(broker.bootstrap, f"step{number}-", watched))
            progress.print(f"round {number}/{runs}  {steps[-1]}", highlight=False)
        pool = _pool(broker.bootstrap)
    results.console().print(_render(steps, pool, circumstances["commit"]))
    content = {"steps": [asdict(one) for one in steps], "pool": asdict(pool), "watched_s": watched}
    progress.print(f"written to {results.write('closed_loop', content, circumstances, output)}")


def _step(bootstrap: str, prefix: str, watched_s: float) -> Step:
    said: list[tuple[float, Any]] = []
    with _node(bootstrap, prefix, _PARCELS), _hearing(bootstrap, prefix, "flow/agents", said):
        feed = _Feed(bootstrap, prefix, lambda number: ("parcel.scanned", {"parcel": number}))
        with feed.running(_LIGHT_PER_S):
            time.sleep(15)
            grown = time.monotonic()
            feed.per_s = _FACTOR * _LIGHT_PER_S
            time.sleep(watched_s)
    later = [(at - grown, signal) for at, signal in said if at > grown]
    made = [at for at, signal in later if signal.type == "scaling.decision.made"]
    done = [at for at, signal in later if signal.type == "scaling.rescale.completed"]
    return Step(decided_s=min(made, default=None), served_s=min(done, default=None), decisions=len(made))


def _pool(bootstrap: str) -> PoolRun:
    said: list[tuple[float, Any]] = []
    wait = {"action": "wait", "params": {"seconds": 1.0}}

    def sizes(since: float) -> list[tuple[float, int]]:
        resized = [(at, one.data["size"]) for at, one in said if at > since and one.type == "scaling.pool.resized"]
        return [(at - since, size) for at, size in resized]

    with _node(bootstrap, "pool-", _TASKS, **_POOL), _hearing(bootstrap, "pool-", "pool/task_agent", said):
        feed = _Feed(bootstrap, "pool-", lambda number: ("task.submitted", {"task_id": str(number), **wait}))
        with feed.running(0.3):
            time.sleep(10)
            grown = time.monotonic()
            feed.per_s = 110.0
            _give_time(lambda: any(size == 100 for _, size in sizes(grown)))
            gone = time.monotonic()
            feed.per_s = 0.3
            _give_time(lambda: any(size == 1 for _, size in sizes(gone)))
    up, down = sizes(grown), sizes(gone)
    return PoolRun(
        most=max((size for _, size in up), default=1),
        up_s=next((at for at, size in up if size == 100), None),
        least=min((size for _, size in down), default=100),
        down_s=next((at for at, size in down if size == 1), None),
        decisions=sum(one.type == "scaling.decision.made" for _, one in said),
    )


class _Feed:
    """Sends signals at a rate that may change, from a thread."""

    def __init__(self, bootstrap: str, prefix: str, make: Callable[[int], tuple[str, dict[str, Any]]]) -> None:
        self.per_s = 0.0
        self._publisher = plugins.publisher(KafkaSettings(bootstrap=bootstrap))
        self._topic = f"{prefix}signals"
        self._make = make
        self._done = threading.Event()

    @contextmanager
    def running(self, per_s: float) -> Iterator[None]:
        """Send in the background until left."""
        self.per_s = per_s
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            self._publisher.close()

    def _run(self) -> None:
        sent, due, last = 0, 0.0, time.monotonic()
        while not self._done.wait(0.01):
            now = time.monotonic()
            due, last = due + self.per_s * (now - last), now
            while sent < int(due):
                type, data = self._make(sent)
                self._publisher.publish(
                    self._topic, new_signal(type, data, source="bench", subject=f"key-{sent % _KEYS}")
                )
                sent += 1


@contextmanager
def _node(bootstrap: str, prefix: str, app: str, **settings: str) -> Iterator[None]:
    """A node as users run it, from its ready line to its end."""
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as directory:
        wanted = {"kafka.topic_prefix": prefix, "log.file": "false", **settings}
        command = [
            sys.executable, "-m", "signalbox.cli", "up", "--broker", bootstrap, "--data-dir", directory, "--app", app,
            "--http", "127.0.0.1:0", *(word for name, value in wanted.items() for word in ("--set", f"{name}={value}")),
        ]  # fmt: skip
        paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
        node = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert node.stdout is not None
            if not node.stdout.readline():
                msg = "the node did not come up"
                raise RuntimeError(msg)
            yield
        finally:
            stop(node)


@contextmanager
def _hearing(bootstrap: str, prefix: str, subject: str, said: list[tuple[float, Any]]) -> Iterator[None]:
    """Meanwhile, note what is said about a target on the topic `scaling`, and when."""

    def note(_topic: str, signal: Any) -> None:
        if signal.subject == subject:
            said.append((time.monotonic(), signal))

    with watching(KafkaSettings(bootstrap=bootstrap), (f"{prefix}scaling",), start="now", note=note):
        yield


def _give_time(condition: Callable[[], bool]) -> None:
    with suppress(DeadlineExceeded):  # that is a result, too
        wait_until(condition, _LIMIT_S, "it did not happen")


def _render(steps: list[Step], pool: PoolRun, commit: str) -> Table:
    shown = Table(title=f"load times {_FACTOR}, {len(steps)} rounds, commit {commit}", title_justify="left")
    for heading in ("", "median", "slowest"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, found in (
        ("s to the decision", [one.decided_s for one in steps]),
        ("s to the first rescale that is done", [one.served_s for one in steps]),
        ("decisions", [one.decisions for one in steps]),
    ):
        known = [one for one in found if one is not None]
        missing = f" ({len(found) - len(known)} never)" if len(known) < len(found) else ""
        shown.add_row(name, f"{median(known):.1f}" if known else "-", f"{max(known, default=0):.1f}{missing}")
    shown.add_row("pool: s from 1 to 100 agents, and back", _seconds(pool.up_s), _seconds(pool.down_s))
    shown.add_row("pool: decisions", str(pool.decisions), "")
    return shown


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    typer.run(main)
