"""How many records to take at once, so that a round through the flow stays short, and how busy a worker is with them.

Large rounds are cheap per record, but nothing interrupts one: neither the end of an epoch nor a drain. Records that
take microseconds go in rounds of thousands; when a handler takes milliseconds, a round is a few dozen.
"""

#: What a round is meant to take at most.
_ROUND_S = 0.05
_LEAST = 16
#: The engine asks all partitions in one go; only what takes longer than this can have been a round through the flow.
_ONE_GO_S = 0.0002


class Pace:
    """Learns from each round how large the next may be. Times are seconds on the monotonic clock."""

    def __init__(self, most: int) -> None:
        """`most` records are taken at once in any case."""
        self.records = most
        """How many records to take at once."""
        self._most = most
        self._busy_s = 0.0
        self._handed = 0
        self._handed_at: float | None = None
        self._last_s = 0.0

    def handed(self, count: int, now: float) -> None:
        """So many records go into the flow."""
        if self._handed_at is None:
            self._handed_at = now
        self._handed += count
        self._last_s = now

    def returned(self, now: float) -> None:
        """The flow comes back for more: what went in before is done."""
        if self._handed_at is None or now - self._last_s < _ONE_GO_S:
            return
        took_s = now - self._handed_at
        self._busy_s += took_s
        if took_s > _ROUND_S:
            fitting = int(self._handed * _ROUND_S / took_s)
            self.records = min(self.records, max(_LEAST, fitting))
        elif self._handed >= self.records:
            self.records = min(self._most, 2 * self.records)
        self._handed, self._handed_at = 0, None

    def busy_s(self, now: float) -> float:
        """Seconds spent on records so far, the round under way included. Another thread may call it."""
        began = self._handed_at
        return self._busy_s + (max(0.0, now - began) if began is not None else 0.0)
