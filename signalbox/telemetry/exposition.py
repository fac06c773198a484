"""What `/metrics` shows: the supervisor's own metrics, and those of its children out of their files.

A child's counters and histograms outlive it: `retire` adds them to the total of the dead, so that totals never fall and
the number of files does not grow with restarts. Its gauges go with it, except those that keep a maximum.
Call everything here from one thread; `metrics.py` says what there is to show.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from signalbox.telemetry.metrics import SUPERVISOR

#: Tells prometheus_client in a child to keep its values in files; it must be set before the child starts.
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: No process has this id; its files hold the totals of the dead.
_DEAD = 0
_FOLD: dict[str, Callable[[float, float], float]] = {
    "counter": lambda total, value: total + value,
    "histogram": lambda total, value: total + value,
    "gauge_max": max,
}


class Exposition:
    """The metrics of a node. `directory` is where its children keep theirs."""

    def __init__(self, directory: Path) -> None:
        # They are a second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._directory = directory
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(SUPERVISOR)
        self._registry.register(_Children(directory))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics, and their content type: OpenMetrics if the `Accept` header asks for it, else Prometheus text."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def retire(self, pid: int) -> None:
        """Keep what counts of a child that ended, and drop the rest."""
        for path in self._directory.glob(f"*_{pid}.db"):
            kind = path.stem.removesuffix(f"_{pid}")
            if kind in _FOLD:
                _fold(path, self._directory / f"{kind}_{_DEAD}.db", _FOLD[kind])
            path.unlink()


class _Children(Collector):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        if not self._directory.is_dir():
            return
        # A child imports the supervisor's metrics too; its zeros must not appear beside the true values.
        own = {family.name for family in SUPERVISOR.collect()}
        for family in MultiProcessCollector(None, str(self._directory)).collect():  # type: ignore[no-untyped-call]
            if family.name not in own:
                yield family


def _fold(source: Path, target: Path, combine: Callable[[float, float], float]) -> None:
    totals = MmapedDict(str(target))  # type: ignore[no-untyped-call]
    try:
        for key, value, timestamp, _position in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
            total, _when = totals.read_value(key)  # type: ignore[no-untyped-call]
            totals.write_value(key, combine(total, value), timestamp)  # type: ignore[no-untyped-call]
    finally:
        totals.close()  # type: ignore[no-untyped-call]
