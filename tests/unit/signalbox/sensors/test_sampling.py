"""One sensor at a time: where it runs, what it may do wrong, and what its status says then."""

import asyncio
import random
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schemas.signal import Signal
from signalbox.sensors import SampleContext, Sensor
from signalbox.sensors.sampling import SampleLimits, Sampler
from signalbox.telemetry.metrics import CHILDREN
from tests.unit.signalbox.sensors.virtual_time import START, LoopClock, run_virtual

LIMITS = SampleLimits(signals=100, signal_bytes=10_000)


class Scripted(Sensor):
    """An asynchronous sensor that does what the next entry of its script says."""

    name = "scripted"

    def __init__(self, *script: Any, interval_s: float = 10.0, timeout_s: float | None = None) -> None:
        super().__init__(Sensor.Settings(interval_s=interval_s, timeout_s=timeout_s), "n1")
        self.script = list(script)
        self.calls: list[str] = []

    async def start(self, context):
        self.calls.append("start")

    async def sample(self, context):
        self.calls.append("sample")
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BaseException):
            raise step
        for item in step:
            if isinstance(item, float):
                await asyncio.sleep(item)
            else:
                yield context.signal(item) if isinstance(item, str) else item

    async def stop(self, context):
        self.calls.append("stop")


class Harness:
    def __init__(self, sensor: Sensor, limits: SampleLimits = LIMITS) -> None:
        self.got: list[Signal[Any]] = []
        context = SampleContext(sensor=sensor.name, node="n1", data_dir=Path("/nowhere"), clock=LoopClock())
        self.sampler = Sampler(sensor, context, limits, self._accept, rng=random.Random(7))
        self.status = self.sampler.status

    def _accept(self, sensor: str, signals: list[Signal[Any]]) -> None:
        self.got += signals

    @property
    def types(self) -> list[str]:
        return [signal.type for signal in self.got]


def attempts(sensor, count=1, limits=LIMITS):
    """Take samples one after the other in virtual time; returns the harness and the delays asked for."""

    async def scenario():
        harness = Harness(sensor, limits)
        return harness, [await harness.sampler.attempt() for _ in range(count)]

    return run_virtual(scenario())


def test_a_sample_is_accepted_and_counted():
    """Signals arrive in the order yielded; the status knows number and time of the samples."""
    harness, _ = attempts(Scripted(["a", "b"]), count=2)
    assert harness.types == ["a", "b", "a", "b"]
    assert (harness.status.samples, harness.status.errors, harness.status.last_error) == (2, 0, None)
    assert harness.status.last_success == START.isoformat()


def test_the_metrics_count_samples_and_errors():
    """The catalogue's metrics follow the status, by sensor."""

    class Measured(Scripted):
        name = "measured"

    attempts(Measured(["a"], OSError("gone"), ["b"]), count=3)
    assert metric("samples_total") == 2
    assert metric("errors_total") == 1
    assert metric("collect_seconds_count") == 2
    assert metric("last_success_timestamp_seconds") == START.timestamp()


def metric(name):
    return CHILDREN.get_sample_value(f"signalbox_sensor_{name}", {"sensor": "measured"})


class PlainList(Sensor):
    name = "plain_list"

    def sample(self, context):
        self.thread = threading.current_thread()
        return [context.signal("a")]


class PlainGenerator(PlainList):
    def sample(self, context):
        self.thread = threading.current_thread()
        yield context.signal("a")


class AsyncList(PlainList):
    async def sample(self, context):
        self.thread = threading.current_thread()
        return [context.signal("a")]


class AsyncGenerator(PlainList):
    async def sample(self, context):
        self.thread = threading.current_thread()
        yield context.signal("a")


@pytest.mark.parametrize("kind", [PlainList, PlainGenerator, AsyncList, AsyncGenerator])
def test_all_four_shapes_of_sample_work_and_run_where_they_belong(kind):
    """`def` runs in a thread of its own, `async def` in the loop; lists and generators are alike."""
    sensor = kind(Sensor.Settings(), "n1")

    async def scenario():
        harness = Harness(sensor)
        await harness.sampler.attempt()
        return harness

    harness = asyncio.run(scenario())
    assert harness.types == ["a"], harness.status
    in_loop = sensor.thread is threading.main_thread()
    assert in_loop == kind.__name__.startswith("Async")


def test_the_interval_is_kept_whatever_the_sample_takes():
    """The next sample is due an interval after this one began, give or take a tenth."""
    _, delays = attempts(Scripted([4.0, "a"]), count=50)
    assert all(9 - 4 <= delay <= 11 - 4 for delay in delays)
    assert max(delays) - min(delays) > 1, "intervals are jittered"


def test_a_sample_longer_than_its_interval_is_followed_at_once_and_not_before():
    """A slow sensor never asks for a negative delay."""
    _, [delay] = attempts(Scripted([25.0, "a"], timeout_s=60))
    assert delay == 0


def test_a_sensor_that_raises_is_reported_and_what_it_said_before_is_kept():
    """Count, text and recovery are in the status; the error does not get out."""
    harness, _ = attempts(Scripted(ValueError("no such\x00 door"), ["a"]), count=2)
    assert harness.status.errors == 1
    assert harness.status.last_error == "ValueError: no such\x00 door"
    assert (harness.status.samples, harness.status.consecutive_errors, harness.types) == (1, 0, ["a"])

    broken_halfway = Scripted(["a", "b", "\x00", "c"])
    harness, _ = attempts(broken_halfway)
    assert (harness.types, harness.status.errors) == (["a", "b"], 1)


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), asyncio.CancelledError(), RecursionError()])
def test_errors_that_would_end_a_process_are_errors_like_any_other(error):
    """A sensor that calls sys.exit() or cancels itself hurts itself alone."""
    harness, _ = attempts(Scripted(error, ["a"]), count=2)
    assert (harness.status.errors, harness.types) == (1, ["a"])


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), KeyboardInterrupt()])
def test_such_errors_are_harmless_in_a_thread_too(error):
    """A plain `sample` may raise anything as well."""

    class Rude(Sensor):
        name = "rude"

        def sample(self, context):
            raise error

    async def scenario():
        harness = Harness(Rude(Sensor.Settings(), "n1"))
        await harness.sampler.attempt()
        return harness.status

    status = asyncio.run(scenario())
    assert (status.errors, type(error).__name__ in (status.last_error or "")) == (1, True)


def test_retries_start_soon_double_and_end_at_four_intervals():
    """A broken sensor is retried after 1, 2, 4, ... seconds, and never less often than every four intervals."""
    harness, delays = attempts(Scripted(OSError("gone")), count=12)
    base = [min(2.0**n, 40.0) for n in range(12)]
    assert all(0.9 * want <= delay <= 1.1 * want for delay, want in zip(delays, base, strict=True))
    assert harness.status.consecutive_errors == 12


def test_retries_of_a_fast_sensor_start_at_its_interval():
    """A sensor with a short interval is not slowed down by its first failure."""
    _, delays = attempts(Scripted(OSError("gone"), interval_s=0.1), count=5)
    assert all(a < b * 1.3 for a, b in pairwise(delays))
    assert delays[0] <= 0.11
    assert delays[-1] <= 0.44


def test_a_sample_that_takes_too_long_has_failed():
    """At the deadline the sample is cancelled, reported, and what it had yielded is kept."""
    harness, _ = attempts(Scripted(["a", 99.0, "b"], timeout_s=3))
    assert harness.types == ["a"]
    assert harness.status.last_error == "TimeoutError: sample took longer than 3 s"


def test_the_deadline_of_a_fast_sensor_is_at_least_a_second():
    """A short interval alone does not make a slow moment an error."""
    harness, _ = attempts(Scripted([0.9, "a"], interval_s=0.1))
    assert harness.types == ["a"]


def test_a_thread_that_hangs_gets_no_second_one_and_its_late_signals_are_lost():
    """While a timed-out sample still runs no other begins; when it has ended, sampling goes on."""
    release, running, ended = threading.Event(), [], []

    class Hanging(Sensor):
        name = "hanging"

        def sample(self, context):
            running.append(threading.current_thread())
            number = len(running)
            release.wait(10)
            yield context.signal(f"a.{number}")
            ended.append(number)

    async def scenario():
        harness = Harness(Hanging(Sensor.Settings(timeout_s=0.05), "n1"))
        await harness.sampler.attempt()
        await harness.sampler.attempt()
        assert len(running) == 1
        assert harness.status.last_error == "TimeoutError: the call that timed out still runs; waiting for it to end"
        release.set()
        running[0].join(5)
        await asyncio.sleep(0)  # lets the loop hear of the thread's end
        await harness.sampler.attempt()
        return harness

    harness = asyncio.run(scenario())
    assert (harness.types, harness.status.errors, harness.status.samples) == (["a.2"], 2, 1)
    assert ended == [2], "the late sample ended at its first signal"


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        (object(), "make signals with context.signal"),
        (Signal(id="1", source="s", type="t", data=object()), "Encoding objects of type object is unsupported"),
        (Signal(id="1", source="s", type="t", data="x" * 10_000), "limits.signal_bytes is 10000"),
        (Signal(id="1", source="s", type=""), "length >= 1"),
        (Signal(id="1", source="s", type="t", subject="\x07"), "control characters"),
    ],
)
def test_a_signal_that_could_not_be_published_is_the_sensors_error(item, complaint):
    """It is refused where it is made, so that it can neither block the buffer nor become a dead letter."""
    harness, _ = attempts(Scripted(["a", item, "b"]))
    assert harness.types == ["a"]
    assert complaint in (harness.status.last_error or "")


def test_a_sample_that_never_ends_yielding_is_bounded():
    """One runaway sample cannot fill the memory."""
    harness, _ = attempts(Scripted(["a"] * 1000))
    assert len(harness.got) == 100
    assert harness.status.errors == 1


def test_a_sample_that_returns_nothing_is_told_so():
    """A forgotten return is the commonest slip in a sensor."""

    class Forgetful(Sensor):
        name = "forgetful"

        async def sample(self, context):
            context.signal("a")

    harness, _ = attempts(Forgetful(Sensor.Settings(), "n1"))
    assert harness.status.last_error == "TypeError: sample returned None; return or yield signals"


def test_start_is_called_once_and_again_only_if_it_failed():
    """A dependency that is away at the start is found later; one that was opened is not opened twice."""

    class Late(Scripted):
        async def start(self, context):
            await super().start(context)
            if len(self.calls) < 3:
                raise ConnectionError("not yet")

    sensor = Late(["a"])
    harness, _ = attempts(sensor, count=4)
    assert sensor.calls == ["start", "start", "start", "sample", "sample"]
    assert (harness.status.errors, harness.status.samples) == (2, 2)


def test_a_start_that_ends_after_its_deadline_counts_and_is_not_repeated():
    """What a slow start opened is used, not opened again."""
    release, starts = threading.Event(), []

    class Slow(Sensor):
        name = "slow"

        def start(self, context):
            starts.append(threading.current_thread())
            release.wait(10)

        def sample(self, context):
            return [context.signal("a")]

    async def scenario():
        harness = Harness(Slow(Sensor.Settings(timeout_s=0.05), "n1"))
        await harness.sampler.attempt()
        release.set()
        starts[0].join(5)
        await asyncio.sleep(0)
        await harness.sampler.attempt()
        return harness

    harness = asyncio.run(scenario())
    assert (len(starts), harness.types) == (1, ["a"])


def test_stop_closes_what_was_started_and_nothing_else():
    """A sensor that never ran is not stopped; one that did is, once, and may raise."""

    class Rude(Scripted):
        async def stop(self, context):
            await super().stop(context)
            raise OSError("already closed")

    async def scenario():
        idle, used = Rude(["a"]), Rude(["a"])
        await Harness(idle).sampler.stop(1)
        harness = Harness(used)
        await harness.sampler.attempt()
        await harness.sampler.stop(1)
        assert idle.calls == []
        assert used.calls == ["start", "sample", "stop"]

    run_virtual(scenario())


def test_a_sensor_that_still_samples_is_not_stopped_under_its_feet():
    """`stop` never runs beside `sample`, and a hanging thread holds up the end for the given time only."""
    release, running, stopped = threading.Event(), [], []

    class Hanging(Sensor):
        name = "hanging"

        def sample(self, context):
            running.append(threading.current_thread())
            release.wait(10)
            return []

        def stop(self, context):
            stopped.append(1)

    async def scenario():
        harness = Harness(Hanging(Sensor.Settings(timeout_s=0.05), "n1"))
        await harness.sampler.attempt()
        await harness.sampler.stop(0.05)
        assert stopped == []
        release.set()
        running[0].join(5)
        await asyncio.sleep(0)
        await harness.sampler.stop(5)
        assert stopped == [1]

    asyncio.run(scenario())
