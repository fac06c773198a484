"""The sensor process: `python -m signalbox.sensors`, started and watched by the supervisor.

SIGTERM or SIGINT: stop sampling, deliver what is buffered, exit 0. It dies with its supervisor. It answers `status` on
the inspection socket `sensors`.
"""

import asyncio
import signal
import sys
from functools import partial

from signalbox import plugins
from signalbox.config import Settings, load_settings
from signalbox.errors import SignalboxError
from signalbox.sensors.buffer import SignalBuffer
from signalbox.sensors.contract import Sensor, build_sensors
from signalbox.sensors.delivery import Delivery
from signalbox.sensors.runner import SensorRunner
from signalbox.sensors.sampling import SampleLimits
from signalbox.supervision import inspection
from signalbox.supervision.parent import die_with_parent
from signalbox.telemetry import logs

PROCESS = "sensors"
#: Signals that sensors make go where agents read.
TOPIC = "signals"
#: Of the time that the supervisor grants before it kills; the rest is for the interpreter's end.
_GRACE_SHARE = 0.6

log = logs.get_logger(__name__)


def main() -> int:
    """Run until told to stop; returns the exit code."""
    die_with_parent()
    try:
        settings = load_settings()
        logs.configure(settings, process=PROCESS)
        sensors = build_sensors(plugins.load(settings.node.app).sensors, settings)
        asyncio.run(_serve(settings, sensors))
    except SignalboxError as error:
        log.error("the sensor process cannot run", error=str(error), hint=error.hint)
        return error.exit_code
    return 0


async def _serve(settings: Settings, sensors: list[Sensor]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    buffer = SignalBuffer(settings.limits.sensor_buffer)
    delivery = Delivery(buffer, partial(plugins.publisher, settings.kafka), settings.topic(TOPIC))
    limits = SampleLimits(signals=settings.limits.sensor_buffer, signal_bytes=settings.limits.signal_bytes)
    runner = SensorRunner(
        sensors,
        delivery,
        node=settings.node.name,
        data_dir=settings.node.data_dir,
        limits=limits,
        settings=settings,
    )
    server = inspection.serve(
        inspection.socket_path(settings.node.data_dir, PROCESS), {"status": lambda _params: runner.status()}
    )
    log.info("sensors started", sensors=[sensor.name for sensor in sensors])
    try:
        await runner.run(stop, grace_s=settings.supervision.drain_timeout_s * _GRACE_SHARE)
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
