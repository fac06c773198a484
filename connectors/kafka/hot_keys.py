"""Sees which key most records of a partition have: its records need one worker, however many there are.

It looks now and then, and only where many records are at hand, which is where a partition falls behind. What the client
still holds back is not seen.
"""

import time
from collections import Counter

from confluent_kafka import Message

#: Fewer records at hand say nothing.
_MANY = 50
_LOOK_EVERY_S = 1.0
#: So many of them are looked at.
_LOOKED_AT = 300
_KEY_CHARACTERS = 256
#: What was seen counts for so long.
_COUNTS_S = 10.0


class HotKeys:
    """The latest look at each partition, by the engine's name of it."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, str | None]] = {}

    def look(self, part: str, messages: list[Message], now: float) -> None:
        """Look at the records at hand if it is time to; `now` is on the monotonic clock."""
        if len(messages) < _MANY:
            return
        seen = self._seen.get(part)
        if seen is None or now - seen[0] >= _LOOK_EVERY_S:
            self._seen[part] = now, _of_most(messages[:_LOOKED_AT])

    def told(self) -> dict[str, str]:
        """The key of more than half of the records, by partition, where there is one. Another thread may ask."""
        since = time.monotonic() - _COUNTS_S
        return {part: key for part, (at, key) in list(self._seen.items()) if key is not None and at >= since}


def _of_most(messages: list[Message]) -> str | None:
    [(key, count)] = Counter(message.key() for message in messages).most_common(1)
    if key is None or count <= len(messages) / 2:
        return None
    return (key.decode(errors="replace") if isinstance(key, bytes) else str(key))[:_KEY_CHARACTERS]
