"""From a signal's type to the routes that match it, in the order in which they are tried.

The more specific pattern comes first, then the higher priority, then the earlier registration; priority never beats
specificity. Asked again for the same type, a router answers from memory. It does not look into signals: conditions on
data and state (`signalbox.routing.conditions`) are for the caller to check. One thread at a time may use a router.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from signalbox.errors import ConfigError
from signalbox.routing.pattern import Pattern, is_valid_type
from signalbox.routing.trie import Trie

T = TypeVar("T")
"""What a route leads to; the router only hands it back."""

MIN_PRIORITY = -1000
MAX_PRIORITY = 1000
# Types come from outside, so what is remembered about them is bounded in number, in length and in total. Ten
# thousand different types are a very large system; the bounds together come to some tens of megabytes.
REMEMBERED_TYPES = 100_000
REMEMBERED_TYPE_LENGTH = 256
REMEMBERED_ROUTES = 1_000_000
"""Summed over all remembered types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[T]):
    """One registration. `index` counts the registrations of its router from 0 and is never used again."""

    pattern: Pattern
    target: T
    priority: int
    index: int


class Router(Generic[T]):
    """Routes by pattern. The cost of `route` depends on the type and on what matches, not on how many routes exist."""

    __slots__ = ("_by_pattern", "_memo", "_ordered", "_registered", "_remembered_routes", "_trie")

    def __init__(self) -> None:
        self._by_pattern: dict[str, list[Route[T]]] = {}
        self._registered = 0
        self._memo: dict[str, tuple[Route[T], ...]] = {}
        self._remembered_routes = 0
        self._ordered: list[Route[T]] = []
        self._trie: Trie | None = None
        """Compiled from `_ordered` when the first type is asked for; None while the routes have changed since."""

    def add(self, pattern: str | Pattern, target: T, *, priority: int = 0) -> None:
        """Register a route. The same pattern and target registered twice are two routes.

        Raises:
            InvalidPattern: the text is not a pattern.
            ConfigError: the priority lies outside -1000 to 1000.
        """
        parsed = pattern if isinstance(pattern, Pattern) else Pattern.parse(pattern)
        if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
            msg = f"the route {parsed.text!r} has priority {priority}"
            raise ConfigError(msg, hint=f"a priority lies between {MIN_PRIORITY} and {MAX_PRIORITY}; the default is 0")
        route = Route(pattern=parsed, target=target, priority=priority, index=self._registered)
        self._registered += 1
        self._by_pattern.setdefault(parsed.text, []).append(route)
        self._changed()

    def remove(self, pattern: str | Pattern, target: T | None = None) -> None:
        """Remove the routes of exactly this pattern, or only those to a target equal to `target`.

        A pattern or target that is not registered changes nothing. Routes of longer patterns stay.
        """
        text = str(pattern)
        routes = self._by_pattern.get(text, [])
        kept = [] if target is None else [route for route in routes if route.target != target]
        if len(kept) == len(routes):
            return
        if kept:
            self._by_pattern[text] = kept
        else:
            del self._by_pattern[text]
        self._changed()

    def has_route(self, pattern: str | Pattern) -> bool:
        """Whether a route of exactly this pattern is registered."""
        return str(pattern) in self._by_pattern

    def routes(self) -> list[Route[T]]:
        """Every route, in the order in which `route` gives them."""
        self._compiled()
        return list(self._ordered)

    def route(self, type: str) -> tuple[Route[T], ...]:
        """The routes whose pattern matches, each once, in order. A type that is not valid has none."""
        try:
            return self._memo[type]
        except KeyError:
            return self._look_up(type)

    def _look_up(self, type: str) -> tuple[Route[T], ...]:
        if not is_valid_type(type):
            return ()
        ranks = self._compiled().match(type.split("."))
        found = tuple([self._ordered[rank] for rank in ranks])
        if len(type) <= REMEMBERED_TYPE_LENGTH:
            self._remember(type, found)
        return found

    def _remember(self, type: str, found: tuple[Route[T], ...]) -> None:
        if len(self._memo) >= REMEMBERED_TYPES or self._remembered_routes >= REMEMBERED_ROUTES:
            self._forget()
        self._memo[type] = found
        self._remembered_routes += len(found)

    def _forget(self) -> None:
        self._memo.clear()
        self._remembered_routes = 0

    def _changed(self) -> None:
        self._trie = None
        self._forget()

    def _compiled(self) -> Trie:
        if self._trie is None:
            every = (route for routes in self._by_pattern.values() for route in routes)
            self._ordered = sorted(every, key=_order)
            self._trie = Trie(route.pattern for route in self._ordered)
        return self._trie


def _order(route: Route[T]) -> tuple[int, int, int]:
    return -route.pattern.specificity, -route.priority, route.index
