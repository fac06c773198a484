"""Follows the topic `control` for the supervisor, which obeys what is for it (`scaler.py`), each command once.

Where to go on is the caller's to remember, as offsets by partition. Commands that nobody could obey are the agents
flow's to set aside; here they are passed on as they are read.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from schemas.signal import MalformedSignal, Signal, decode
from signalbox import plugins
from signalbox.config import Settings
from signalbox.ports import Reader, Record
from signalbox.telemetry.logs import get_logger

_RETRY_S = 1.0
_END_S = 2.0
#: Records carry their sender's time, which may be behind ours.
_EARLIER = timedelta(minutes=5)

log = get_logger(__name__)


class Command(NamedTuple):
    """A signal on `control`, and the record it came in."""

    signal: Signal[Any]
    record: Record


class CommandFeed:
    """Reads the topic in a thread of its own, from `release` to `hold`, and hands commands to the event loop."""

    def __init__(
        self, settings: Settings, obey: Callable[[Command], None], *, make_reader: Callable[[], Reader] | None = None
    ) -> None:
        """Args:
        settings: the broker, and the topic's prefix.
        obey: called in the event loop with each command, in order.
        make_reader: replaces the reader of the broker that the settings name.
        """
        self._settings = settings
        self._obey = obey
        self._make_reader = make_reader or (lambda: plugins.reader(settings.kafka))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def release(self, since_s: float | None, read: Mapping[int, int]) -> None:
        """Begin to follow the topic; returns when it is settled from where on, if not for the broker, by the clock.

        Args:
            since_s: Unix seconds; earlier commands are left out. None leaves out all there are.
            read: by partition, the offset of the next command; earlier ones are left out.
        """
        self._stop = threading.Event()
        loop, settled = asyncio.get_running_loop(), asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop, since_s, dict(read), loop, settled), name="control", daemon=True
        )
        self._thread.start()
        await settled.wait()

    async def hold(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _END_S)

    def _run(
        self,
        stop: threading.Event,
        since_s: float | None,
        read: dict[int, int],
        loop: asyncio.AbstractEventLoop,
        settled: asyncio.Event,
    ) -> None:
        start = "now" if since_s is None else datetime.fromtimestamp(since_s, UTC) - _EARLIER
        while not stop.is_set():
            try:
                records = self._make_reader().read(
                    [self._settings.topic("control")], start=start, follow=True, timeout_s=None, stop=stop.is_set
                )
                loop.call_soon_threadsafe(settled.set)
                for record in records:
                    if record.offset >= read.get(record.partition, 0) and (command := _command(record)) is not None:
                        loop.call_soon_threadsafe(self._obey, command)
                    read[record.partition] = max(record.offset + 1, read.get(record.partition, 0))
            except RuntimeError:  # the loop is closed: the program ends
                return
            except Exception as error:  # noqa: BLE001 - the node outlives whatever the broker does
                log.warning("commands cannot be read; trying again", error=str(error))
                if start == "now":
                    start = datetime.now(UTC)
                loop.call_soon_threadsafe(settled.set)
            stop.wait(_RETRY_S)


def _command(record: Record) -> Command | None:
    try:
        return Command(decode(record.value, list(record.headers)), record)
    except MalformedSignal:
        return None
