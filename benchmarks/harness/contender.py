"""Who takes part, and how each is started: its interpreter, its command and its environment."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
ENVIRONMENTS = ROOT / ".bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the job."""

    name: str
    module: str
    environment: str | None = None
    """The virtual environment under `.bench/` that it needs; None is the project's own."""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The interpreter it runs in."""
        return environment_python(self.environment) if self.environment else Path(sys.executable)

    def available(self) -> bool:
        """Whether its environment has been set up."""
        return self.python.exists()

    def command(self) -> list[str]:
        """How to start it."""
        return [str(self.python), "-m", self.module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one run of a contender reads, writes, keeps its state and reports."""

    bootstrap: str
    source: str
    sink: str
    directory: Path

    @property
    def group(self) -> str:
        return f"bench-{self.directory.name}"

    @property
    def report(self) -> Path:
        return self.directory / "report.json"

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    def variables(self) -> dict[str, str]:
        """The environment of the contender's process."""
        orders = {
            "bootstrap": self.bootstrap,
            "group": self.group,
            "source": self.source,
            "sink": self.sink,
            "state_dir": str(self.directory / "state"),
            "report": str(self.report),
        }
        paths = os.pathsep.join((str(BENCHMARKS), str(ROOT)))
        return {**os.environ, "PYTHONPATH": paths, "BENCH_ORDERS": json.dumps(orders)}


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(name="plain", module="contenders.plain"),
        Contender(name="bytewax_items", module="contenders.bytewax_items"),
        Contender(name="quix", module="contenders.quix_streams", environment="quix"),
        Contender(name="faust", module="contenders.faust_agents", environment="faust"),
        Contender(name="signalbox", module="contenders.signalbox_worker"),
    )
}


def environment_python(name: str) -> Path:
    """The interpreter of the virtual environment `.bench/<name>`."""
    return ENVIRONMENTS / name / "bin" / "python"
