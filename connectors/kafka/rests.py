"""When the engine is to ask partitions for records again.

While an epoch is being saved, or a cluster finds itself, the engine may not take records. It looks again and again
whether it may, with all the power of a processor, once the time to ask has come. So partitions sleep for as long as it
usually takes. Where there are more workers than processors, those that look keep those that save from their work, and
what would take 50 ms takes a second or two: there partitions sleep for longer than saving ever should take. A worker
alone saves on the very thread that would look, so there is nobody to disturb and no need to sleep.
"""

import time
from datetime import UTC, datetime, timedelta

from signalbox.machine import processors

#: After a poll that brought less than so much, all partitions wait so long and are then asked together. Were each asked
#: in its own time, every few records would take a round through the whole flow, which costs more than handling them.
_PLENTY = 100
_REST = timedelta(milliseconds=1.5)
#: The least that is slept while an epoch is saved, what the first time, which saves more than others, and the most, if
#: one worker is alone, if there are processors enough, and if not; and by how much less each time, to find out what is
#: enough.
_ALONE_S, _ROOMY_S, _CROWDED_S = (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), (0.15, 0.2, 0.3)
_LESS = 0.9
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
        shared = _CROWDED_S if workers > processors() else _ROOMY_S
        self._least_s, self._saving_s, self._longest_s = shared if workers > 1 else _ALONE_S
        self._polled: datetime | None = None

    def first_awake(self) -> datetime | None:
        """When a partition is to be asked for the first time; None is at once."""
        return datetime.now(UTC) + GATHERING if self._workers > 1 else None

    def polled(self, count: int) -> None:
        """A poll brought so many records."""
        self._polled = None if count >= _PLENTY else datetime.now(UTC) + _REST

    def saved(self, took_s: float) -> None:
        """An epoch was saved everywhere; after so many seconds the engine took records again."""
        wanted_s = took_s if took_s > self._saving_s / _LESS else _LESS * self._saving_s
        self._saving_s = min(max(wanted_s, self._least_s), self._longest_s)

    def next_awake(self, began_s: float) -> datetime | None:
        """When a partition is to be asked again that began its epoch then, on the monotonic clock; None is at once."""
        if time.monotonic() - began_s >= self._epoch_s:
            return datetime.now(UTC) + max(_REST, timedelta(seconds=self._saving_s))
        return self._polled
