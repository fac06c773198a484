"""What all contenders share: their orders, the pattern table, and the note of when the first signal was consumed.

Standard library only, because each contender runs in the environment of its own library. Nothing here is on the path
of each signal except the pattern table's dictionary.
"""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Signal type pattern -> name of the handler, first match wins. One of them is hit; a real table has others too.
PATTERNS = (
    ("task.submitted", "task"),
    ("system.health.*", "health"),
    ("sensor.reading", "reading"),
    ("alert.**", "alert"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Where a contender reads, writes, keeps state and reports; `group` is a consumer group nobody used before."""

    bootstrap: str
    group: str
    source: str
    sink: str
    state_dir: Path
    report: Path

    @classmethod
    def from_environment(cls) -> "Orders":
        """The harness leaves them in `BENCH_ORDERS`."""
        raw = json.loads(os.environ["BENCH_ORDERS"])
        return cls(
            bootstrap=raw["bootstrap"],
            group=raw["group"],
            source=raw["source"],
            sink=raw["sink"],
            state_dir=Path(raw["state_dir"]),
            report=Path(raw["report"]),
        )


class PatternTable(dict[str, str | None]):
    """Type -> handler name or None; a type is matched against the patterns once and then remembered."""

    def __init__(self) -> None:
        super().__init__()
        self._compiled = [(_regex(pattern), handler) for pattern, handler in PATTERNS]

    def __missing__(self, type_name: str) -> str | None:
        found = next((handler for regex, handler in self._compiled if regex.fullmatch(type_name)), None)
        self[type_name] = found
        return found


def report_first(orders: Orders, *distributions: str) -> None:
    """Note that the first signal is being consumed: the time, the CPU used until now, and the versions in use."""
    note = {
        "first_s": time.time(),
        "cpu_s": time.process_time(),
        "versions": {name: version(name) for name in distributions},
    }
    orders.report.write_text(json.dumps(note))


def timed_consumer(consumer_class: Any, orders: Orders, distributions: Sequence[str]) -> Any:
    """A subclass of confluent-kafka's `Consumer` that reports its first records and then gets out of the way."""
    reported = False

    class TimedConsumer(consumer_class):  # type: ignore[misc]
        def consume(self, *args: Any, **kwargs: Any) -> Any:
            records = super().consume(*args, **kwargs)
            if records:
                self._report()
            return records

        def poll(self, *args: Any, **kwargs: Any) -> Any:
            record = super().poll(*args, **kwargs)
            if record is not None:
                self._report()
            return record

        def _report(self) -> None:
            nonlocal reported
            if not reported:
                reported = True
                report_first(orders, *distributions)
            # Attributes of the instance hide this class's methods: from now on the C methods are called directly.
            self.__dict__ |= {"consume": super().consume, "poll": super().poll}

    return TimedConsumer


def _regex(pattern: str) -> re.Pattern[str]:
    parts = [
        r"[^.]+(\.[^.]+)*" if part == "**" else r"[^.]+" if part == "*" else re.escape(part)
        for part in pattern.split(".")
    ]
    return re.compile(r"\.".join(parts))
