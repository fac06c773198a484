"""Follows the topic `control` for the supervisor, which obeys what is for it (`scaler.py`), each command once.

Where to go on is the caller's to remember, as offsets by partition. Commands that nobody could obey are the agents
flow's to set aside; here they are passed on as they are read.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from schemas.signal import MalformedSignal, Signal, decode
from signalbox import plugins
from signalbox.config import Settings
from signalbox.ports import Reader, Record
from signalbox.supervision.follower import Follower

#: Records carry their sender's time, which may be behind ours.
_EARLIER = timedelta(minutes=5)


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
        self._follower = Follower("control", self._follow, trouble="commands cannot be read; trying again")
        self._start: datetime | Literal["now"] = "now"
        self._read: dict[int, int] = {}
        self._tell: Callable[..., object] = lambda *_: None
        self._settled = asyncio.Event()

    async def release(self, since_s: float | None, read: Mapping[int, int]) -> None:
        """Begin to follow the topic; returns when it is settled from where on, if not for the broker, by the clock.

        Args:
            since_s: Unix seconds; earlier commands are left out. None leaves out all there are.
            read: by partition, the offset of the next command; earlier ones are left out. While it is empty, `since_s`
                is all that tells old commands from new ones, and is taken at its word.
        """
        self._read = dict(read)
        since = None if since_s is None else datetime.fromtimestamp(since_s, UTC)
        self._start = "now" if since is None else since - (_EARLIER if read else timedelta())
        self._tell = asyncio.get_running_loop().call_soon_threadsafe
        self._settled = asyncio.Event()
        self._follower.release()
        await self._settled.wait()

    async def hold(self) -> None:
        """Stop following."""
        await self._follower.hold()

    def _follow(self, stop: threading.Event) -> None:
        asked = datetime.now(UTC)
        try:
            records = self._make_reader().read(
                [self._settings.topic("control")], start=self._start, follow=True, timeout_s=None, stop=stop.is_set
            )
        finally:
            if self._start == "now":
                self._start = asked
            self._tell(self._settled.set)
        for record in records:
            following = self._read.get(record.partition, 0)
            if record.offset >= following and (command := _command(record)) is not None:
                self._tell(self._obey, command)
            self._read[record.partition] = max(record.offset + 1, following)


def _command(record: Record) -> Command | None:
    try:
        return Command(decode(record.value, list(record.headers)), record)
    except MalformedSignal:
        return None
