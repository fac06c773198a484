"""The policies that a simulation compares: ours, and the rules of two systems that people would use otherwise.

The rivals are written after their sources, with their default settings. They are spared what they suffer from outside
of a simulation: no pod has to start, samples reach them at once, and their history is full when a trace begins.
"""

import math
from collections import deque
from collections.abc import Callable

from signalbox.scaling.controller import decide
from signalbox.scaling.memory import Memory
from signalbox.scaling.model import Sample
from signalbox.scaling.policy import Policy
from signalbox.scaling.simulator import Scaler

#: The best `lagThreshold` for all shipped traces together, found on these by trying 50 to 1000 in steps of 50.
TUNED_THRESHOLD = 550.0
_ROUNDING = 1e-9


class Ours:
    """`controller.decide`, with its memory."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._memory = Memory()

    def __call__(self, sample: Sample) -> tuple[int, str] | None:
        decision, self._memory = decide(self._policy, self._memory, sample)
        return decision.desired, decision.reason


class Hpa:
    """KEDA's Kafka scaler on Kubernetes' Horizontal Pod Autoscaler (autoscaling/v2).

    KEDA (at 8b4f083) hands on the sum of the partitions' lag, at most `lagThreshold` times the partitions
    (`apache_kafka_scaler.go`). It counts from the committed offsets, so what was processed since the last commit is in
    it. HPA makes `ceil(lag / lagThreshold)` of that every 15 s, and keeps what there is while it is within 10 %
    (`replica_calculator.go`). Upwards, at most the larger of twice the pods and four more per 15 s; downwards, the most
    that was recommended within 300 s (`defaults.go`). A missing metric changes nothing.

    Args:
        policy: of which the bounds count.
        threshold: `lagThreshold`, records per unit. The default is KEDA's, which knows no unit's speed.
    """

    sync_s = 15.0
    tolerance = 0.1
    down_window_s = 300.0
    #: `auto.commit.interval.ms` of Kafka's consumers.
    commit_s = 5.0

    def __init__(self, policy: Policy, threshold: float = 10.0) -> None:
        self._policy = policy
        self._threshold = threshold
        self._next = 0.0
        self._recommended: deque[tuple[float, int]] = deque()

    def __call__(self, sample: Sample) -> tuple[int, str] | None:
        if sample.at < self._next or sample.lag is None:
            return None
        self._next = sample.at + self.sync_s
        units = max(1, sample.units)
        lag = sample.lag + (sample.processed or 0.0) * self.commit_s / 2
        lag = lag if sample.partitions is None else min(lag, sample.partitions * self._threshold)
        ratio = lag / (self._threshold * units)
        wanted = units if abs(ratio - 1) <= self.tolerance else math.ceil(lag / self._threshold - _ROUNDING)
        wanted = max(self._policy.min, min(self._policy.max, wanted))
        while self._recommended and self._recommended[0][0] < sample.at - self.down_window_s:
            self._recommended.popleft()
        self._recommended.append((sample.at, wanted))
        if wanted < units:
            wanted = min(units, max(recommended for _, recommended in self._recommended))
        return min(wanted, max(2 * units, units + 4)), "lag"


class Flink:
    """The autoscaler of Flink's Kubernetes operator (`flink-autoscaler`, at 6e9caeb).

    Every minute: `target = rate / 0.7 + lag / 30 min + rate * 5 min / 30 min` and `n = ceil(units * target / capacity)`
    over means of 15 minutes (`JobVertexScaler.java`, `AutoScalerUtils.getTargetProcessingCapacity`). Nothing happens
    while the utilization is within 0.4 to 1.0 (`target.utilization.boundary` 0.3), or within five minutes
    (`stabilization.interval`) and a full window of the last change. Fewer only when an hour has asked for it, to the
    most asked for then (`scale-down.interval`), and at most 60 % fewer (`scale-down.max-factor`). With more than five
    minutes of lag, a backlog, none fewer. Numbers are made divisors of the partitions (`EVENLY_SPREAD`).

    Args:
        policy: of which the bounds count.
    """

    interval_s = 60.0
    window_s = 900.0
    quiet_s = 300.0
    down_s = 3600.0
    restart_s = 300.0
    catch_up_s = 1800.0
    backlog_s = 300.0
    utilization = 0.7
    boundary = 0.3
    most_down = 0.6

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._samples: deque[Sample] = deque()
        self._next = 0.0
        self._ready_at = 0.0
        self._units = 0
        self._asked: list[tuple[float, int]] = []

    def __call__(self, sample: Sample) -> tuple[int, str] | None:
        if sample.units != self._units:
            # The window starts anew after the change and its stabilization; the first one is taken to be full.
            self._ready_at = sample.at + self.quiet_s + self.window_s if self._units else sample.at
            self._units = sample.units
            self._samples.clear()
        if not sample.changing and None not in (sample.arrivals, sample.processed, sample.busy, sample.lag):
            self._samples.append(sample)
        while self._samples and self._samples[0].at < sample.at - self.window_s:
            self._samples.popleft()
        if sample.at < max(self._next, self._ready_at) or not self._samples:
            return None
        self._next = sample.at + self.interval_s
        wanted = self._wanted(sample)
        if wanted >= sample.units:
            self._asked.clear()
            return (wanted, "target") if wanted > sample.units else None
        self._asked.append((sample.at, wanted))
        if sample.at - self._asked[0][0] < self.down_s:
            return None
        return max(units for at, units in self._asked if at >= sample.at - self.down_s), "target"

    def _wanted(self, sample: Sample) -> int:
        count = len(self._samples)
        rate = math.fsum(one.arrivals or 0.0 for one in self._samples) / count
        rates = [(one.processed or 0.0) / one.busy for one in self._samples if one.busy]
        lag = self._samples[-1].lag or 0.0
        if not rates:
            return sample.units
        capacity = math.fsum(rates) / len(rates)
        backlog = lag > self.backlog_s * rate
        upper = 1.0 if backlog else self.utilization + self.boundary
        high = rate / upper + lag / self.catch_up_s
        low = math.inf if backlog else self._target(rate, lag, self.utilization - self.boundary)
        if high <= capacity <= low:
            return sample.units
        factor = max(1 - self.most_down, self._target(rate, lag, self.utilization) / capacity)
        wanted = math.ceil(factor * sample.units - _ROUNDING)
        return self._aligned(max(self._policy.min, min(self._policy.max, wanted)), sample)

    def _target(self, rate: float, lag: float, utilization: float) -> float:
        return rate / utilization + lag / self.catch_up_s + rate * self.restart_s / self.catch_up_s

    def _aligned(self, wanted: int, sample: Sample) -> int:
        partitions, units = sample.partitions, sample.units
        if not partitions or wanted == units:
            return wanted
        most = min(partitions, self._policy.max if wanted > units else units)
        for number in range(wanted, most + 1):
            if partitions % number == 0:
                return number
        for number in range(min(wanted, partitions), 0, -1):
            if partitions // number > partitions // wanted:
                wanted = number if partitions % number == 0 else number + 1
                break
        return min(wanted, most)


def scalers(policy: Policy) -> dict[str, Callable[[], Scaler]]:
    """The policies by name, each as a function that makes a fresh one. `hpa_tuned` was fitted to the shipped traces."""
    return {
        "ours": lambda: Ours(policy),
        "hpa": lambda: Hpa(policy),
        "hpa_tuned": lambda: Hpa(policy, threshold=TUNED_THRESHOLD),
        "flink": lambda: Flink(policy),
    }
