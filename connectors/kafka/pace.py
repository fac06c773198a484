"""How many records to take at once, so that a round through the flow stays short, and how busy a worker is with them.

Large rounds are cheap per record, but nothing interrupts one: neither the end of an epoch nor a drain. Records that
take microseconds go in rounds of thousands; when a handler takes milliseconds, a round is a few dozen.
"""

from collections.abc import Hashable

#: What a round is meant to take at most.
_ROUND_S = 0.05
_LEAST = 16
#: A worker begins with small rounds: who has been waiting while it started sees its first answers soon.
_FIRST = 100


class Pace:
    """Learns from each round how large the next may be. Times are seconds on the monotonic clock."""

    def __init__(self, most: int) -> None:
        """`most` records are taken at once in any case."""
        self.records = min(most, _FIRST)
        """How many records to take at once."""
        self._most = most
        self._busy_s = 0.0
        self._handed_at: float | None = None
        self._asked: set[Hashable] = set()
        """Who was asked in this round; the engine asks nobody twice."""
        self._handed = 0
        self._round_s = 0.0

    def asked(self, part: Hashable, now: float) -> None:
        """The flow comes for records of a partition: what went in before is done."""
        if self._handed_at is not None:
            took_s = now - self._handed_at
            self._busy_s += took_s
            self._round_s += took_s
            self._handed_at = None
        if part in self._asked:
            self._learn()
            self._asked.clear()
        self._asked.add(part)

    def handed(self, count: int, now: float) -> None:
        """So many records go into the flow."""
        self._handed += count
        self._handed_at = now

    def busy_s(self, now: float) -> float:
        """Seconds spent on records so far, those under way included. Another thread may call it."""
        began = self._handed_at
        return self._busy_s + (max(0.0, now - began) if began is not None else 0.0)

    def _learn(self) -> None:
        if self._handed and (self._round_s > _ROUND_S or self._handed >= self.records):
            fitting = int(self._handed * _ROUND_S / max(self._round_s, 1e-9))
            self.records = max(_LEAST, min(fitting, 2 * self.records, self._most))
        self._handed, self._round_s = 0, 0.0
