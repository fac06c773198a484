"""The simulated target: partitions with queues, units that share them, and what happens to both, second by second.

A fluid model: records have no identity, units serve their partitions in proportion to what waits, and capacity is lost
while a change pauses the target. Measurements are noisy. It promises no absolute figures, only that all policies
meet the same target under the same trace. `simulator` closes the loop.
"""

import random
from collections import deque
from dataclasses import dataclass

import msgspec

from signalbox.scaling.model import Sample
from signalbox.scaling.traces import Trace

#: After an outage, what producers kept comes within so many seconds.
_RELEASE_S = 5
#: A refused call costs the service this share of one that it serves.
_REFUSAL_COST = 0.05
#: A key is named only when its partition has at least so many seconds of work waiting.
_HOT_KEY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantSettings:
    """What the simulated target is like. The same for every policy."""

    unit_rate: float = 100.0
    """Records per second that a unit alone can do."""
    contention: float = 0.005
    """How much each further unit costs all others: a unit of n does `unit_rate / (1 + contention * (n - 1))`."""
    prepare_s: int = 1
    """Seconds from a decision until the pause: new processes start meanwhile."""
    pause_s: int = 1
    """Seconds in which nothing is processed at a change."""
    noise: float = 0.03
    """Largest relative error of measured rates."""
    seed: int = 1


class Clients:
    """What is refused, and what comes late: the outside of the target."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._kept = 0.0
        self._release = 0.0

    def arriving(self, second: int) -> float:
        """Records that reach the broker in this second."""
        demand = self._trace.arrivals[second]
        if self._trace.outage is not None and second in self._trace.outage:
            self._kept += demand
            self._release = self._kept / _RELEASE_S
            return 0.0
        late = min(self._kept, self._release)
        self._kept -= late
        return demand + late

    def served(self, second: int, attempted: float) -> float:
        """How many of the attempted calls are answered in this second; the others are refused."""
        if self._trace.limited is None or second not in self._trace.limited or attempted <= self._trace.limit:
            return attempted
        return max(self._trace.limit / 2, self._trace.limit - _REFUSAL_COST * (attempted - self._trace.limit))


@dataclass(slots=True)
class _Window:
    """Sums since the last sample."""

    seconds: int = 0
    arrivals: float = 0.0
    processed: float = 0.0
    busy: float = 0.0
    refused: float = 0.0
    paused: bool = False


class Plant:
    """The target: queues by partition, units, and the change under way.

    Attributes:
        units: how many there are.
        wait_s: age of the oldest record that waits.
    """

    def __init__(self, trace: Trace, settings: PlantSettings, units: int) -> None:
        self.units = units
        self.wait_s = 0.0
        self._trace = trace
        self._settings = settings
        self._clients = Clients(trace)
        self._draw = random.Random(settings.seed)  # noqa: S311 - a simulation wants the same noise each time
        self._queues = [0.0] * (trace.partitions or 1)
        self._waiting: deque[tuple[int, float]] = deque()
        self._window = _Window()
        self._wanted = units
        self._prepare = 0
        self._pause = 0
        self._pauses: tuple[float, ...] = ()

    @property
    def changing(self) -> bool:
        return self._prepare > 0 or self._pause > 0

    @property
    def lag(self) -> float:
        """Records that wait on the broker."""
        return sum(self._queues)

    def order(self, units: int) -> bool:
        """Begin a change, unless one is under way or nothing would change. Returns whether one began."""
        if units == self.units or self.changing:
            return False
        self._wanted, self._prepare = units, self._settings.prepare_s
        return True

    def tick(self, second: int) -> None:
        """One second passes."""
        arriving = self._clients.arriving(second)
        self._waiting.append((second, self._trace.arrivals[second]))
        shares = self._shares(second)
        self._queues = [queue + arriving * share for queue, share in zip(self._queues, shares, strict=True)]
        window = self._window
        window.seconds += 1
        window.arrivals += arriving
        if self._works(second):
            self._work(second)
        else:
            window.paused = True
        self._age(second)

    def sample(self, second: int) -> Sample:
        """What a sensor measures at the end of this second; means since the last sample."""
        window, self._window = self._window, _Window()
        sample = Sample(
            target="flow/simulated",
            at=float(second),
            units=self.units,
            pauses=self._pauses,
            changing=self.changing or window.paused,
        )
        if self._trace.outage is not None and second in self._trace.outage:
            return msgspec.structs.replace(sample, changing=self.changing)
        lag = self.lag
        hottest = max(self._queues) / lag if lag > 0 and self._trace.partitions else None
        hot = self._trace.hot is not None and second in self._trace.hot
        hot = hot and max(self._queues) > _HOT_KEY_SECONDS * self._settings.unit_rate
        return msgspec.structs.replace(
            sample,
            arrivals=self._measured(window.arrivals / window.seconds),
            processed=self._measured(window.processed / window.seconds),
            lag=lag,
            busy=min(1.0, self._measured(window.busy / window.seconds)),
            throttled=window.refused / window.seconds,
            partitions=self._trace.partitions,
            hottest=hottest,
            hot_key="hot" if hot else None,
        )

    def _works(self, second: int) -> bool:
        """Whether units are at work in this second; lets a change go on."""
        if self._pause > 0:
            self._pause -= 1
            if self._pause == 0:
                self.units = self._wanted
                self._pauses = (*self._pauses[-4:], float(self._settings.pause_s))
            return False
        if self._prepare > 0:
            self._prepare -= 1
            self._pause = self._settings.pause_s if self._prepare == 0 else 0
        return self._trace.outage is None or second not in self._trace.outage

    def _work(self, second: int) -> None:
        units = self.units
        if units == 0:
            return
        rate = self._settings.unit_rate / (1 + self._settings.contention * (units - 1))
        shared = self._trace.partitions is None
        held = [self.lag / units if shared else sum(self._queues[unit::units]) for unit in range(units)]
        tried = [min(queue, rate) for queue in held]
        attempted = sum(tried)
        served = self._clients.served(second, attempted)
        part = served / attempted if attempted > 0 else 0.0
        if shared:
            self._queues = [self.lag - served]
        else:
            for unit, (queue, done) in enumerate(zip(held, tried, strict=True)):
                left = 1 - done * part / queue if queue > 0 else 0.0
                for partition in range(unit, len(self._queues), units):
                    self._queues[partition] *= left
        window = self._window
        window.processed += served
        window.refused += attempted - served
        window.busy += attempted / (rate * units)
        self._serve(served)

    def _serve(self, served: float) -> None:
        """Take records off the queue of ages, the oldest first."""
        while self._waiting and served > 0:
            second, amount = self._waiting[0]
            if amount > served:
                self._waiting[0] = (second, amount - served)
                return
            served -= amount
            self._waiting.popleft()

    def _age(self, second: int) -> None:
        # Rounding leaves crumbs of records at the head that are none.
        while self._waiting and self._waiting[0][1] < 1e-6:
            self._waiting.popleft()
        self.wait_s = float(second - self._waiting[0][0]) if self._waiting else 0.0

    def _shares(self, second: int) -> list[float]:
        """The partitions' shares of what comes in."""
        count = len(self._queues)
        if self._trace.hot is None or second not in self._trace.hot:
            return [1 / count] * count
        share = self._trace.hot_share
        return [share] + [(1 - share) / (count - 1)] * (count - 1)

    def _measured(self, rate: float) -> float:
        return rate * (1 + self._settings.noise * (2 * self._draw.random() - 1))
