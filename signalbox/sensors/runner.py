"""Runs all sensors of a node in one process, side by side: a slow, broken or hanging one delays none of the others.

Sampling (`sampling.py`) and publishing (`delivery.py`) meet only in a bounded buffer, so sampling goes on while the
broker is away. Delivery is at least once; what the buffer dropped is counted and gone.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from signalbox.clock import Clock, SystemClock
from signalbox.config import Settings
from signalbox.sensors.contract import SampleContext, Sensor
from signalbox.sensors.delivery import Delivery
from signalbox.sensors.sampling import SampleLimits, Sampler
from signalbox.telemetry.logs import get_logger

log = get_logger(__name__)


class SensorRunner:
    """The sensors and their delivery. `run` once; `status` may be asked from any thread meanwhile."""

    def __init__(
        self,
        sensors: Sequence[Sensor],
        delivery: Delivery,
        *,
        node: str,
        data_dir: Path,
        limits: SampleLimits,
        clock: Clock | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._delivery = delivery
        self._samplers = [
            Sampler(
                sensor,
                SampleContext(
                    sensor=sensor.name,
                    node=node,
                    data_dir=data_dir,
                    clock=clock or SystemClock(),
                    node_settings=settings,
                ),
                limits,
                delivery.put,
            )
            for sensor in sensors
        ]

    async def run(self, stop: asyncio.Event, *, grace_s: float) -> int:
        """Sample and deliver until `stop` is set, then close the sensors and deliver the rest.

        Args:
            stop: set it to end.
            grace_s: how long the end may take; a third of it is for the sensors, the rest for the broker.

        Returns:
            How many buffered signals could not be delivered in time.
        """
        async with asyncio.TaskGroup() as group:
            delivering = group.create_task(self._delivery.run())
            driving = [group.create_task(self._drive(sampler)) for sampler in self._samplers]
            await stop.wait()
            for task in driving:
                task.cancel()
            await asyncio.gather(*driving, return_exceptions=True)
            await asyncio.gather(*(sampler.stop(grace_s / 3) for sampler in self._samplers))
            self._delivery.close()
            await asyncio.wait({delivering}, timeout=grace_s * 2 / 3)
            delivering.cancel()
        left = len(self._delivery.buffer)
        if left:
            log.warning("signals were not delivered before the end", count=left)
        return left

    def status(self) -> dict[str, dict[str, Any]]:
        """How each sensor is doing, by name; `dropped` counts its signals that the full buffer lost."""
        dropped = self._delivery.buffer.dropped
        return {
            sampler.name: {**asdict(sampler.status), "dropped": dropped[sampler.name]} for sampler in self._samplers
        }

    async def _drive(self, sampler: Sampler) -> None:
        delay_s = sampler.first_delay_s()
        while True:
            await asyncio.sleep(delay_s)
            delay_s = await sampler.attempt()
