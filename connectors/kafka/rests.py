"""When the engine is to ask partitions for records again.

While an epoch is being saved, or a cluster finds itself, the engine may not take records. It looks again and again
whether it may, with all the power of a processor, once the time to ask has come. Where there are more workers than
processors, those that look keep those that save from their work. So partitions sleep for as long as it usually takes.
"""

import time
from datetime import UTC, datetime, timedelta

#: After a poll that brought less than so much, all partitions wait so long and are then asked together. Were each asked
#: in its own time, every few records would take a round through the whole flow, which costs more than handling them.
_PLENTY = 100
_REST = timedelta(milliseconds=1.5)
#: The longest that is slept while an epoch is saved; and by how much less each time, to find out what is enough.
_LONGEST_S, _LESS = 0.1, 0.9
#: How long several workers take to find each other and to share out what was saved.
GATHERING = timedelta(milliseconds=60)


class Rests:
    """The rests of one worker's partitions.

    Args:
        epoch_s: from one snapshot to the next.
        workers: how many there are in all.
    """

    def __init__(self, *, epoch_s: float, workers: int = 1) -> None:
        self._epoch_s = epoch_s
        self._workers = workers
        self._saving_s = 0.0
        self._polled: datetime | None = None

    def first_awake(self) -> datetime | None:
        """When a partition is to be asked for the first time; None is at once."""
        return datetime.now(UTC) + GATHERING if self._workers > 1 else None

    def polled(self, count: int) -> None:
        """A poll brought so many records."""
        self._polled = None if count >= _PLENTY else datetime.now(UTC) + _REST

    def saved(self, took_s: float) -> None:
        """An epoch was saved everywhere; after so many seconds the engine took records again."""
        more = took_s > self._saving_s / _LESS
        self._saving_s = min(_LONGEST_S, took_s) if more else _LESS * self._saving_s

    def next_awake(self, began_s: float) -> datetime | None:
        """When a partition is to be asked again that began its epoch then, on the monotonic clock; None is at once."""
        if time.monotonic() - began_s >= self._epoch_s:
            return datetime.now(UTC) + max(_REST, timedelta(seconds=self._saving_s))
        return self._polled
