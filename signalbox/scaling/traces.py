"""What a simulation is fed with: records per second, and what goes wrong meanwhile; by name, or from a file.

Shipped traces are made by arithmetic from the same numbers each time. A trace from a file has its arrivals only.
"""

import csv
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from signalbox.errors import UsageError

#: The longest trace that is read: a week.
LONGEST_S = 604_800
_LARGEST = 1e9
_LARGEST_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one second of a trace to another."""

    start: int
    end: int

    def __contains__(self, second: int) -> bool:
        return self.start <= second < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Demand on a target, second by second."""

    name: str
    about: str
    arrivals: tuple[float, ...]
    """Records that come in during each second."""
    partitions: int | None = 8
    """None if all units take from one queue, as the agents of a pool do."""
    hot: Span | None = None
    """When one subject has most of the records."""
    hot_share: float = 0.0
    """How large a share of the records is in the hot partition then."""
    limited: Span | None = None
    """When an outside service refuses calls above a rate."""
    limit: float = math.inf
    """Calls per second that it serves then."""
    outage: Span | None = None
    """When the broker is away: nothing is read, written or measured."""


def shipped() -> dict[str, Trace]:
    """The traces that ship, by name. One unit of the simulator's plant does 100 records per second."""
    return {trace.name: trace for trace in (make() for make in _SHIPPED)}


def find(name: str) -> Trace:
    """A shipped trace, or else one from the file of that name.

    Raises:
        UsageError: there is neither, or the file is not a trace.
    """
    traces = shipped()
    if name in traces:
        return traces[name]
    path = Path(name)
    if not path.is_file():
        msg = f"{name!r} is neither a trace that ships nor a file"
        raise UsageError(msg, hint=f"these ship: {', '.join(traces)}")
    return read(path)


def read(path: Path) -> Trace:
    """A trace from a file: CSV with the columns `at` and `arrivals`, or JSON lines with these keys.

    `at` are seconds, from any beginning and never falling; `arrivals` are records per second from then until the next
    line. The last line is worth as much time as the one before it.

    Raises:
        UsageError: the file cannot be read or is not of this form; the message names the line.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            msg = f"{path} is larger than a trace can be, {_LARGEST_FILE_BYTES >> 20} MiB"
            raise UsageError(msg, hint="leave out lines: one for every minute is enough for most")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise UsageError(msg, hint="a trace is a text file, CSV or JSON lines") from None
    rows = list(_rows(path, text))
    if not rows:
        msg = f"{path} has no lines with `at` and `arrivals`"
        raise UsageError(msg, hint="write `at,arrivals` as the first line, and numbers below it")
    return Trace(name=path.stem, about=f"from {path.name}", arrivals=tuple(_seconds(path, rows)))


def _rows(path: Path, text: str) -> Iterator[tuple[float, float]]:
    """The points of a trace, checked one by one."""
    before = -math.inf
    for number, row in _json_lines(path, text) if text.lstrip().startswith("{") else _csv_lines(path, text):
        try:
            at, arrivals = float(row["at"]), float(row["arrivals"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _wrong(path, number, "has no number as `at` and as `arrivals`") from None
        if not math.isfinite(at) or not 0 <= arrivals <= _LARGEST:
            raise _wrong(path, number, f"is out of range: at {at}, arrivals {arrivals}")
        if at < before:
            raise _wrong(path, number, f"goes back in time, from {before} to {at}")
        before = at
        yield at, arrivals


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(text.splitlines())
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise _wrong(path, reader.line_num, f"is no CSV: {error}") from None


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, float]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _wrong(path, number, f"is no JSON: {error}") from None


def _seconds(path: Path, rows: list[tuple[float, float]]) -> Iterator[float]:
    start = rows[0][0]
    step = rows[-1][0] - rows[-2][0] if len(rows) > 1 else 1.0
    length = rows[-1][0] - start + max(1.0, step)
    if length > LONGEST_S:
        msg = f"{path} covers {length:.0f} seconds, and a trace is at most {LONGEST_S} long"
        raise UsageError(msg, hint="`at` counts seconds; cut the trace, or make its units smaller")
    row = 0
    for second in range(int(length)):
        while row + 1 < len(rows) and rows[row + 1][0] - start <= second:
            row += 1
        yield rows[row][1]


def _wrong(path: Path, number: int, what: str) -> UsageError:
    return UsageError(f"{path}: line {number} {what}", hint="a line is `at` in seconds and `arrivals` per second")


def _step() -> Trace:
    """Ten times the load at once, for a third of the hour."""
    arrivals = (60.0,) * 600 + (600.0,) * 1200 + (60.0,) * 1800
    return Trace(name="step", about="60 to 600 records per second at once, and back", arrivals=arrivals)


def _ramp() -> Trace:
    up = tuple(60.0 + 540.0 * second / 1200 for second in range(1200))
    arrivals = up + (600.0,) * 600 + up[::-1]
    return Trace(name="ramp", about="up to ten times the load in 20 minutes, and down", arrivals=arrivals)


def _diurnal() -> Trace:
    wave = (60.0 + 270.0 * (1 - math.cos(2 * math.pi * second / 3600)) for second in range(7200))
    return Trace(name="diurnal", about="two days of an hour each, 60 to 600 records per second", arrivals=tuple(wave))


def _burst() -> Trace:
    """A minute of nine times the load in every ten."""
    arrivals = tuple(540.0 if second % 600 >= 540 else 60.0 for second in range(3600))
    return Trace(name="burst", about="one minute of nine times the load in every ten", arrivals=arrivals)


def _hot_key() -> Trace:
    return Trace(
        name="hot_key",
        about="one subject gets 60 % of 300 records per second for 10 minutes: more than any one unit can do",
        arrivals=(300.0,) * 2400,
        hot=Span(start=600, end=1200),
        hot_share=0.6,
    )


def _noise() -> Trace:
    draw = random.Random(2)  # noqa: S311 - a simulation wants the same noise each time
    arrivals = tuple(300.0 * (0.8 + 0.4 * draw.random()) for _ in range(7200))
    return Trace(name="noise", about="300 records per second, give or take 20 %, for two hours", arrivals=arrivals)


def _throttled() -> Trace:
    arrivals = (240.0,) * 600 + (320.0,) * 900 + (240.0,) * 2100
    return Trace(
        name="throttled",
        about="a service refuses calls above 250 per second (429) while 320 are wanted",
        arrivals=arrivals,
        limited=Span(start=600, end=1500),
        limit=250.0,
    )


def _broker_bounce() -> Trace:
    return Trace(
        name="broker_bounce",
        about="the broker is away for a minute: nothing moves and nothing is measured, then a backlog comes",
        arrivals=(300.0,) * 2400,
        outage=Span(start=600, end=660),
    )


_SHIPPED: tuple[Callable[[], Trace], ...] = (
    _step,
    _ramp,
    _diurnal,
    _burst,
    _hot_key,
    _noise,
    _throttled,
    _broker_bounce,
)
