"""The runner with the real publisher on a broker that is stopped and started again."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from signalbox import plugins
from signalbox.sensors import Sensor
from signalbox.sensors.buffer import SignalBuffer
from signalbox.sensors.delivery import Delivery
from signalbox.sensors.runner import SensorRunner
from signalbox.sensors.sampling import SampleLimits
from tests.support.eventually import eventually


class Numbers(Sensor):
    """Yields the next `todo` numbers at its next sample."""

    name = "numbers"
    made = 0
    todo = 0

    def sample(self, context):
        while self.todo:
            self.todo -= 1
            self.made += 1
            yield context.signal("number", {"n": self.made})


class Node:
    """A runner with one sensor, in the loop of a test."""

    def __init__(self, broker: Any, folder: Path, *, limit: int = 10_000) -> None:
        settings = broker.settings(folder)
        self.numbers = Numbers(Numbers.Settings(interval_s=0.02), "n1")
        self.buffer = SignalBuffer(limit)
        self.publishers = 0

        def make_publisher():
            self.publishers += 1
            return plugins.publisher(settings.kafka)

        delivery = Delivery(self.buffer, make_publisher, "signals")
        self.runner = SensorRunner(
            [self.numbers],
            delivery,
            node="n1",
            data_dir=folder,
            limits=SampleLimits(signals=10_000, signal_bytes=10_000),
        )
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.runner.run(self._stop, grace_s=20))

    async def make(self, count: int) -> None:
        """Have so many signals sampled."""
        wanted = self.numbers.made + count
        self.numbers.todo = count
        await until(lambda: self.numbers.made == wanted and not self.numbers.todo)

    async def delivered(self) -> None:
        await until(lambda: len(self.buffer) == 0)

    async def stop(self) -> int:
        self._stop.set()
        return await self._task


async def until(check: Callable[[], bool]) -> None:
    await asyncio.to_thread(lambda: eventually(check, timeout_s=30))


async def arrived(broker: Any) -> list[int]:
    """The numbers on the topic, in order, each signal once: delivery is at least once."""
    signals = await asyncio.to_thread(broker.signals)
    return list({signal.id: signal.data["n"] for signal in signals}.values())


def test_nothing_buffered_is_lost_when_the_broker_goes_and_comes_back(broker, tmp_path):
    """Signals sampled while the broker is stopped are all on the topic soon after it is back, in order."""

    async def scenario():
        node = Node(broker, tmp_path)
        await node.make(10)
        await node.delivered()
        assert await arrived(broker) == list(range(1, 11))

        await asyncio.to_thread(broker.stop)
        for _ in range(10):
            await node.make(50)
        assert len(node.buffer) == 500, "sampling goes on"
        await asyncio.to_thread(broker.restart)
        await node.delivered()
        await node.make(5)
        assert await node.stop() == 0

        assert await arrived(broker) == list(range(11, 516))
        assert node.runner.status()["numbers"]["dropped"] == 0

    asyncio.run(scenario())


def test_an_outage_that_outlasts_acknowledgement_and_buffer_loses_what_it_counts(broker, tmp_path):
    """With a buffer of 100 and a broker away until deliveries fail, the newest arrive and the rest is counted."""

    async def scenario():
        node = Node(broker, tmp_path, limit=100)
        await asyncio.to_thread(broker.stop)
        await node.make(1)
        await until(lambda: node.publishers >= 2)
        for _ in range(5):
            await node.make(60)
        assert len(node.buffer) == 100
        await asyncio.to_thread(broker.restart)
        await node.delivered()
        assert await node.stop() == 0

        seen = await arrived(broker)
        dropped = node.runner.status()["numbers"]["dropped"]
        assert dropped + len(seen) == 301
        assert seen[-99:] == list(range(203, 302))
        assert 200 <= dropped <= 201

    asyncio.run(scenario())
