"""What actions need from outside, such as a host or a database, and how much of it they may use.

All actions that name the same dependency share its circuit breaker, its rate and its places; each worker process has
its own.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from signalbox.actions.breaker import Breaker, CircuitBreaker, State
from signalbox.errors import ConfigError

#: Dependencies that a process remembers. Names may come from parameters, such as hosts from URLs.
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `burst` calls at once, and `per_s` calls a second on average."""

    per_s: float
    burst: int = 1

    def __post_init__(self) -> None:
        if self.per_s <= 0 or self.burst < 1:
            msg = f"a rate of {self.per_s} a second in bursts of {self.burst} lets nothing through"
            raise ConfigError(msg, hint="per_s is above 0, burst at least 1")


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something outside that can be slow, fail, or have enough of us."""

    name: str
    """Actions that name the same one share all of this."""
    limit: int | None = None
    """Most calls at once (a bulkhead): the rest of the process keeps its places when this one is slow."""
    rate: Rate | None = None
    """How often it may be called."""
    breaker: Breaker | None = None
    """When it is left alone."""


class TokenBucket:
    """How many calls a rate allows now. Not thread-safe."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._tokens = float(rate.burst)
        self._at_s = monotonic()

    @property
    def available(self) -> int:
        """Calls that may begin now."""
        now_s = self._monotonic()
        self._tokens = min(self._rate.burst, self._tokens + (now_s - self._at_s) * self._rate.per_s)
        self._at_s = now_s
        # A sum of many small parts may stay a hair below the whole that it makes.
        return int(self._tokens + 1e-9)

    def take(self) -> None:
        """Note that an available call begins."""
        self._tokens -= 1

    @property
    def wait_s(self) -> float:
        """Seconds until a further call may begin."""
        return 0.0 if self.available else (1 - self._tokens) / self._rate.per_s


@dataclass(frozen=True, slots=True)
class Shared:
    """What all users of one dependency share."""

    breaker: CircuitBreaker | None
    bucket: TokenBucket | None


class Dependencies:
    """The dependencies of one worker process as they come up; the least recently used are forgotten."""

    def __init__(self, monotonic: Callable[[], float], changed: Callable[[str, State, State], None]) -> None:
        """`changed` hears of every breaker's changes; see `CircuitBreaker`."""
        self._monotonic = monotonic
        self._changed = changed
        self._known: OrderedDict[str, Shared] = OrderedDict()

    def shared(self, dependency: Dependency) -> Shared:
        """The state of a dependency; whoever names it first decides its policy."""
        found = self._known.get(dependency.name)
        if found is None:
            found = self._known[dependency.name] = self._made(dependency)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(dependency.name)
        return found

    def breakers(self) -> dict[str, CircuitBreaker]:
        """The circuit breakers by the name of the dependency. Any thread may ask."""
        return {name: one.breaker for name, one in list(self._known.items()) if one.breaker is not None}

    def _made(self, dependency: Dependency) -> Shared:
        breaker, rate = dependency.breaker, dependency.rate
        return Shared(
            CircuitBreaker(dependency.name, breaker, self._monotonic, self._changed) if breaker else None,
            TokenBucket(rate, self._monotonic) if rate else None,
        )
