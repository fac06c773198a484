"""Many sensors together, and their end. One sensor alone: test_sampling.py; the broker side: test_delivery.py."""

import asyncio
import threading
from itertools import pairwise
from pathlib import Path

from signalbox.sensors import Sensor
from signalbox.sensors.buffer import SignalBuffer
from signalbox.sensors.delivery import Delivery
from signalbox.sensors.runner import SensorRunner
from signalbox.sensors.sampling import SampleLimits
from signalbox.sensors.threads import in_daemon_thread
from tests.unit.signalbox.sensors.fakes import FakeBroker
from tests.unit.signalbox.sensors.virtual_time import LoopClock, inline, run_virtual


class Ticker(Sensor):
    name = "ticker"

    def __init__(self, interval_s=10.0, name="ticker"):
        super().__init__(Sensor.Settings(interval_s=interval_s), "n1")
        self.name = name  # type: ignore[misc]  # several in one test
        self.events = []

    async def sample(self, context):
        self.events.append(context.monotonic())
        return [context.signal(f"{self.name}.{len(self.events)}")]

    async def stop(self, context):
        self.events.append("stop")


class Broken(Ticker):
    async def sample(self, context):
        await super().sample(context)
        raise OSError("gone")


class Hanging(Ticker):
    async def sample(self, context):
        await super().sample(context)
        await asyncio.sleep(1e9)


class Run:
    """A runner in the background of a test."""

    def __init__(self, *sensors, broker=None, limit=10_000, run_blocking=inline):
        self.broker = broker or FakeBroker()
        self.delivery = Delivery(SignalBuffer(limit), self.broker.publisher, "signals", run_blocking=run_blocking)
        self.runner = SensorRunner(
            sensors,
            self.delivery,
            node="n1",
            data_dir=Path("/nowhere"),
            limits=SampleLimits(signals=limit, signal_bytes=10_000),
            clock=LoopClock(),
        )
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.runner.run(self._stop, grace_s=9))

    async def stop(self):
        """End it; returns the number of undelivered signals, and how long the end took in seconds."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._stop.set()
        return await self._task, loop.time() - begun


def test_sampling_starts_soon_and_keeps_its_jittered_interval():
    """The first sample comes within a second, then one about every ten; 10 hours make about 3,600."""

    async def scenario():
        ticker = Ticker()
        run = Run(ticker)
        await asyncio.sleep(36_000)
        await run.stop()
        *times, last = ticker.events
        assert last == "stop"
        assert times[0] <= 1
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(9 <= gap <= 11 for gap in gaps)
        assert 3500 <= len(times) <= 3700
        assert max(gaps) - min(gaps) > 1.5
        assert len(run.broker.received) == len(times)

    run_virtual(scenario())


def test_two_sensors_of_equal_interval_do_not_stay_in_step():
    """The jitter spreads them."""

    async def scenario():
        one, two = Ticker(name="one"), Ticker(name="two")
        run = Run(one, two)
        await asyncio.sleep(3600)
        await run.stop()
        assert len({round(a - b, 1) for a, b in zip(one.events[:-1], two.events[:-1], strict=False)}) > 10

    run_virtual(scenario())


def test_broken_and_hanging_sensors_disturb_nobody():
    """A sensor that raises and one that hangs are reported and tried again, while the third is on time."""

    async def scenario():
        fine, broken, hanging = Ticker(), Broken(name="broken"), Hanging(name="hanging")
        run = Run(fine, broken, hanging)
        await asyncio.sleep(600)
        gaps = [later - earlier for earlier, later in pairwise(fine.events)]
        assert all(9 <= gap <= 11 for gap in gaps)
        status = run.runner.status()
        assert (status["ticker"]["errors"], status["ticker"]["samples"]) == (0, len(fine.events))
        assert status["broken"]["samples"] == status["hanging"]["samples"] == 0
        assert 14 <= status["broken"]["errors"] == len(broken.events) <= 25
        assert status["broken"]["last_error"] == "OSError: gone"
        assert len(hanging.events) > 10
        assert "longer than 10 s" in status["hanging"]["last_error"]
        await run.stop()

    run_virtual(scenario())


def test_a_blocking_sensor_delays_no_other():
    """A plain `sample` that blocks does so in its own thread."""
    release, fifth = threading.Event(), asyncio.Event()

    class Blocking(Sensor):
        name = "blocking"

        def sample(self, context):
            release.wait(10)
            return []

    class Counting(Ticker):
        async def sample(self, context):
            if len(self.events) == 4:
                fifth.set()
            return await super().sample(context)

    async def scenario():
        ticker = Counting(interval_s=0.005)
        run = Run(Blocking(Sensor.Settings(interval_s=0.005), "n1"), ticker, run_blocking=in_daemon_thread)
        await asyncio.wait_for(fifth.wait(), 5)
        assert run.runner.status()["blocking"]["samples"] == 0
        release.set()
        left, _ = await run.stop()
        assert left == 0
        assert len(run.broker.received) >= 5

    asyncio.run(scenario())


def test_sampling_goes_on_while_the_broker_is_away_and_nothing_buffered_is_lost():
    """Everything made during the outage arrives, in order, and nothing was dropped."""

    async def scenario():
        ticker = Ticker()
        run = Run(ticker, broker=FakeBroker(up=False))
        await asyncio.sleep(1000)
        run.broker.up = True
        await asyncio.sleep(20)
        await run.stop()
        made = len(ticker.events) - 1
        assert made > 95
        assert [signal.type for _, signal in run.broker.received] == [f"ticker.{n}" for n in range(1, made + 1)]
        assert run.runner.status()["ticker"]["dropped"] == 0

    run_virtual(scenario())


def test_an_outage_longer_than_the_buffer_drops_the_oldest_and_says_how_many():
    """Sent plus dropped is made; the status tells the drops by sensor."""

    async def scenario():
        ticker = Ticker()
        run = Run(ticker, broker=FakeBroker(up=False), limit=20)
        await asyncio.sleep(1000)
        run.broker.up = True
        await asyncio.sleep(8)
        await run.stop()
        made = len(ticker.events) - 1
        dropped = run.runner.status()["ticker"]["dropped"]
        assert dropped > 50
        assert [signal.type for _, signal in run.broker.received] == [
            f"ticker.{n}" for n in range(dropped + 1, made + 1)
        ]

    run_virtual(scenario())


def test_the_end_closes_the_sensors_and_delivers_what_is_buffered():
    """On stop, nothing more is sampled, every sensor is closed, and the buffer is emptied."""

    async def scenario():
        ticker = Ticker(interval_s=1)
        run = Run(ticker, broker=FakeBroker(up=False))
        await asyncio.sleep(10)
        run.broker.up = True
        left, took = await run.stop()
        assert left == 0
        assert took < 6
        assert ticker.events[-1] == "stop"
        assert len(run.broker.received) == len(ticker.events) - 1

    run_virtual(scenario())


def test_the_end_waits_for_neither_broker_nor_sensor_beyond_its_grace():
    """With the broker away and a sensor hanging, the end comes in time and tells what is left."""

    async def scenario():
        run = Run(Ticker(interval_s=1), Hanging(name="hanging"), broker=FakeBroker(up=False))
        await asyncio.sleep(10)
        made = len(run.delivery.buffer)
        left, took = await run.stop()
        assert left == made > 0
        assert took <= 9.01

    run_virtual(scenario())


def test_the_status_has_the_documented_fields():
    """Tools read these names."""

    async def scenario():
        run = Run(Ticker())
        await asyncio.sleep(5)
        [(name, status)] = run.runner.status().items()
        await run.stop()
        assert name == "ticker"
        assert status.items() >= {"samples": 1, "errors": 0, "dropped": 0, "last_error": None, "interval_s": 10}.items()
        assert status["last_success"].startswith("2026-01-01T00:00:00")

    run_virtual(scenario())


def test_a_node_without_sensors_waits_to_be_stopped():
    """An app may have none."""

    async def scenario():
        run = Run()
        await asyncio.sleep(5)
        assert await run.stop() == (0, 0)

    run_virtual(scenario())
