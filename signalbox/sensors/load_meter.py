"""Makes measurements of load from successive looks at a flow and its workers. No I/O; the sensor looks (`load.py`).

A rate needs two looks. What one look does not show, because a worker did not answer or the broker is away, is not
known: it is left out of the measurement, never guessed and never carried over.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.payloads.load import LoadMetrics

#: A partition carries load for so many seconds after something came or waited there.
_LOADED_S = 60.0
#: A partition is stuck when it has not moved for so long while records wait, and others of its topic have.
_STUCK_S = 15.0
#: The percentile of the time that a record takes is taken of so many looks.
_LOOKS = 30

Answer = Mapping[str, Any]
"""What a worker answers when it is asked for its `status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of a flow at one moment."""

    at: float
    """Seconds on a clock that only goes forward."""
    answers: Sequence[Answer | None]
    """One for each worker that there is to be; None of one that did not answer."""
    ends: Mapping[str, int] | None
    """Where each partition that the flow reads ends, by the engine's name of it (`signals-0`)."""
    mirrored: Mapping[str, int] = field(default_factory=dict)
    """How far the flow had got by what it told the broker; for when nobody reads."""
    pauses: tuple[float, ...] = ()
    """Seconds that the last changes paused the flow, the latest last."""
    silence: str | None = None
    """Why something is missing."""

    @property
    def complete(self) -> bool:
        """Whether every worker answered."""
        return None not in self.answers

    @property
    def changing(self) -> bool:
        """Whether workers come or go: one of them starts, stands by, drains, or does not answer."""
        return any(answer is None or answer.get("state") != "running" for answer in self.answers)

    def positions(self) -> dict[str, int] | None:
        """The next offset of each partition; None if a worker did not answer."""
        if not self.complete:
            return None
        if not self.answers:
            return dict(self.mirrored)
        places = (item for answer in self.told() for item in answer.get("positions", {}).items())
        return {part: place[0] for part, place in places if place[0] is not None}

    def told(self) -> list[Answer]:
        """The answers that came."""
        return [answer for answer in self.answers if answer is not None]


class Counts:
    """Counters of processes that may be others at the next look: how much they have grown since the last one."""

    def __init__(self) -> None:
        self._last: dict[Any, float] = {}

    def grown(self, counts: Mapping[Any, float], *, complete: bool = True) -> dict[Any, float] | None:
        """By how much each has grown; None if one was not there at the last look, or began anew.

        Of a look that is not complete nothing is told.
        """
        last, self._last = self._last, dict(counts)
        if not complete or any(key not in last or value < last[key] for key, value in counts.items()):
            return None
        return {key: value - last[key] for key, value in counts.items()}


class FlowMeter:
    """Measures one flow."""

    def __init__(self, *, max_in_flight: int) -> None:
        """`max_in_flight` is how many actions a worker takes on at once (`actions.max_in_flight`)."""
        self._max_in_flight = max_in_flight
        self._at: float | None = None
        self._ends: Mapping[str, int] | None = None
        self._positions: Mapping[str, int] | None = None
        self._busy = Counts()
        self._throttled = Counts()
        self._loaded_at: dict[str, float] = {}
        self._moved_at: dict[str, float] = {}
        self._service: deque[float] = deque(maxlen=_LOOKS)

    def measure(self, look: Look) -> LoadMetrics:
        """What a look, compared with the one before, says of the flow's load."""
        elapsed = None if self._at is None or look.at <= self._at else look.at - self._at
        positions = look.positions()
        waiting = _waiting(look.ends, positions)
        came = _growth(self._ends, look.ends)
        went = _growth(self._positions, positions)
        for part in look.ends or ():
            self._loaded_at.setdefault(part, float("-inf"))
        self._note(look.at, came, went, waiting)
        lag = None if waiting is None else sum(waiting.values())
        stuck = self._stuck(look.at, waiting)
        used_s = self._busy.grown(_by_process(look, "busy_s"), complete=look.complete)
        throttled = self._throttled.grown(_by_process(look, "throttled"), complete=look.complete)
        self._at, self._ends, self._positions = look.at, look.ends, positions
        busy = self._occupied(look, used_s, elapsed)
        return LoadMetrics(
            units=len(look.answers),
            arrivals=_rate(came, elapsed),
            processed=_rate(went, elapsed),
            lag=lag,
            busy=busy,
            service_s=self._service_s(used_s, went),
            throttled=_rate(throttled, elapsed) or 0.0,
            memory=max((float(answer["memory"]) for answer in look.told() if "memory" in answer), default=None),
            partitions=self._partitions(look.at),
            hottest=max(waiting.values()) / lag if waiting and lag else None,
            hot_key=_hot_key(look, waiting),
            stuck=len(stuck),
            stuck_lag=float(sum(stuck.values())) if stuck else None,
            pauses=look.pauses[-5:],
            changing=look.changing,
            unknown=look.silence,
        )

    def _note(
        self,
        at: float,
        came: Mapping[str, int] | None,
        went: Mapping[str, int] | None,
        waiting: Mapping[str, int] | None,
    ) -> None:
        """Remember which partitions carry load, and which move."""
        for counts in (came, waiting):
            self._loaded_at.update({part: at for part, count in (counts or {}).items() if count > 0})
        for part, count in (waiting or {}).items():
            if count == 0 or (went or {}).get(part) or part not in self._moved_at:
                self._moved_at[part] = at

    def _occupied(self, look: Look, used_s: Mapping[Any, float] | None, elapsed: float | None) -> float | None:
        """How busy the average worker is: by the time of its thread or by its actions, whichever is more."""
        if used_s is None or elapsed is None or not used_s:
            return None
        flights = _by_process(look, "actions_in_flight")
        shares = (max(spent / elapsed, flights.get(one, 0.0) / self._max_in_flight) for one, spent in used_s.items())
        return sum(min(1.0, share) for share in shares) / len(used_s)

    def _service_s(self, used_s: Mapping[Any, float] | None, went: Mapping[str, int] | None) -> float | None:
        """Seconds of a thread per record: of the slowest of twenty looks, and so none before there was a record."""
        if used_s and went and (records := sum(went.values())):
            self._service.append(sum(used_s.values()) / records)
        slowest = sorted(self._service)
        return slowest[int(0.95 * (len(slowest) - 1))] if slowest else None

    def _partitions(self, at: float) -> int | None:
        """As many units as can share the load: the partitions of the topic that has most of those that carry it."""
        if not self._loaded_at:
            return None
        loaded = Counter(_topic(part) for part, when in self._loaded_at.items() if at - when <= _LOADED_S)
        return max((loaded or Counter(map(_topic, self._loaded_at))).values())

    def _stuck(self, at: float, waiting: Mapping[str, int] | None) -> dict[str, int]:
        """What waits in partitions that stand while others of their topic move: one record there is at fault.

        When all of a topic stand, the flow as a whole has as much to do as it can take.
        """
        if waiting is None:
            return {}
        moving = {_topic(part) for part in waiting if self._moved_at.get(part) == at and waiting[part] > 0}
        return {
            part: count
            for part, count in waiting.items()
            if count > 0 and at - self._moved_at.get(part, at) >= _STUCK_S and _topic(part) in moving
        }


class PoolMeter:
    """Measures one pool of the agents of a flow."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._at: float | None = None
        self._asked = Counts()
        self._ended = Counts()

    def measure(self, look: Look, *, size: int, slots: int) -> tuple[LoadMetrics, int | None]:
        """What a look says of the pool's load, and how many of its actions are beyond its slots, if known.

        Args:
            look: at the flow that the pool is in.
            size: agents that there are.
            slots: actions that one agent is meant to have under way at once.
        """
        elapsed = None if self._at is None or look.at <= self._at else look.at - self._at
        self._at = look.at
        work = {answer["pid"]: answer.get("work", {}).get(self._name, {}) for answer in look.told()}
        asked = {pid: float(one.get("asked", 0)) for pid, one in work.items()}
        ended = {pid: float(one.get("ended", 0)) for pid, one in work.items()}
        arrivals = _rate(self._asked.grown(asked, complete=look.complete), elapsed)
        processed = _rate(self._ended.grown(ended, complete=look.complete), elapsed)
        if not look.complete:
            return LoadMetrics(units=size, changing=look.changing, unknown=look.silence), None
        under_way = int(sum(asked.values()) - sum(ended.values()))
        queued = max(0, under_way - size * slots)
        times = [float(one["service_s"]) for one in work.values() if one.get("service_s") is not None]
        measured = LoadMetrics(
            units=size,
            arrivals=arrivals,
            processed=processed,
            lag=queued,
            busy=min(1.0, under_way / (size * slots)) if size else None,
            service_s=max(times, default=None),
            changing=look.changing,
        )
        return measured, queued


def _by_process(look: Look, name: str) -> dict[Any, float]:
    return {answer["pid"]: float(answer[name]) for answer in look.told() if name in answer}


def _hot_key(look: Look, waiting: Mapping[str, int] | None) -> str | None:
    """What makes up most of the fullest partition, if a worker has seen that."""
    if not waiting or not any(waiting.values()):
        return None
    seen: dict[str, str] = {part: key for answer in look.told() for part, key in answer.get("hot_keys", {}).items()}
    return seen.get(max(waiting, key=lambda part: waiting[part]))


def _growth(before: Mapping[str, int] | None, now: Mapping[str, int] | None) -> dict[str, int] | None:
    """By how much each partition has grown since the last look. One that went back, after a crash, has not grown."""
    if before is None or now is None:
        return None
    return {part: max(0, place - before[part]) for part, place in now.items() if part in before}


def _waiting(ends: Mapping[str, int] | None, positions: Mapping[str, int] | None) -> dict[str, int] | None:
    """What waits in each partition; None unless both ends of every one are known."""
    if ends is None or positions is None or not ends or ends.keys() - positions.keys():
        return None
    return {part: max(0, end - positions[part]) for part, end in ends.items()}


def _rate(grown: Mapping[Any, float] | None, elapsed: float | None) -> float | None:
    return None if grown is None or elapsed is None else sum(grown.values()) / elapsed


def _topic(part: str) -> str:
    return part.rpartition("-")[0]


def topics_of(parts: Iterable[str]) -> set[str]:
    """The topics that partitions belong to."""
    return {_topic(part) for part in parts}
