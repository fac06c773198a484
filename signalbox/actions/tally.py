"""Counts what the agents of each pool ask of actions: how much, how much of it ended, and how long one takes.

The executor bumps the counts; the worker's inspection socket tells them, and the load sensor makes rates of them.
"""

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

#: So many of the latest durations are kept per pool.
_DURATIONS = 200


class Tally:
    """Counts since the start of the process. Those who begin, who end and who ask may be three threads."""

    def __init__(self, pool_of: Callable[[str], str | None] = lambda _agent_id: None) -> None:
        """`pool_of` gives the name of the pool that an agent id belongs to, if it is one's."""
        self.pool_of = pool_of
        self._asked: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._durations: dict[str, deque[float]] = {}

    def asked(self, agent_id: str) -> None:
        """An agent's action is taken on."""
        if (pool := self.pool_of(agent_id)) is not None:
            self._asked[pool] += 1

    def ended(self, agent_id: str, duration_s: float) -> None:
        """An agent's action has ended, or is left for the next start; it ran for so many seconds in all."""
        if (pool := self.pool_of(agent_id)) is not None:
            self._durations.setdefault(pool, deque(maxlen=_DURATIONS)).append(duration_s)
            self._ended[pool] += 1

    def told(self) -> dict[str, dict[str, Any]]:
        """By pool: `asked` and `ended` since the start, and `service_s`, the 95th percentile of the latest ones."""
        # The counts of those that ended first: an action must not seem to have ended before it was asked for.
        ended = dict(self._ended)
        return {
            pool: {
                "asked": asked,
                "ended": ended.get(pool, 0),
                "service_s": percentile(list(self._durations.get(pool, ())), 0.95),
            }
            for pool, asked in dict(self._asked).items()
        }


def percentile(values: list[float], share: float) -> float | None:
    """The value that so large a share of the values does not exceed, by nearest rank; None of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
