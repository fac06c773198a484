"""One pool of tokens and the queue before it. Not safe for threads; `ResourceManager` holds the lock.

The queue is fair: who came first is served first, and a small request does not overtake a large one that waits.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from signalbox.errors import SignalboxError


class ResourceExhausted(SignalboxError):
    """There is not enough of a resource.

    Attributes:
        retryable: whether there may be enough later.
    """

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Token:
    """A claim on some of a pool, until it is released or expires."""

    id: int
    pool: str
    tokens: int
    """How many of the pool's tokens it stands for."""
    holder: str
    """Who has it, for people who wonder."""


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """A pool at one moment, in tokens."""

    total: int
    used: int
    waiting: int
    """Asked for by those in the queue."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue of a pool."""

    tokens: int
    holder: str
    wake: Callable[[], None]
    """Called once, when `token` is there."""
    token: Token | None = None


class Pool:
    """Tokens in use and requests that wait. Invariant: if the first in the queue fits, it has been served."""

    def __init__(self, name: str, total: int, ttl_s: float) -> None:
        self.name = name
        self.total = total
        self._ttl_s = ttl_s
        self._ids = itertools.count(1)
        self.used = 0
        """Tokens that are out."""
        self._held: dict[int, tuple[Token, float]] = {}
        """Tokens and when they expire, by id; the one that expires next comes first."""
        self._queue: deque[Waiter] = deque()

    def usage(self) -> PoolUsage:
        return PoolUsage(self.total, self.used, sum(waiter.tokens for waiter in self._queue))

    def take(self, tokens: int, holder: str, now_s: float) -> Token | None:
        """A token, or None if somebody waits already or there are too few."""
        return None if self._queue else self._take(tokens, holder, now_s)

    def enqueue(self, waiter: Waiter) -> None:
        self._queue.append(waiter)

    def withdraw(self, waiter: Waiter, now_s: float) -> None:
        """Forget a request, whether it still waits or has just been served."""
        if waiter.token is not None:
            self.release(waiter.token, now_s)
        elif waiter in self._queue:
            self._queue.remove(waiter)
            self._serve(now_s)

    def release(self, token: Token, now_s: float) -> None:
        """Take a token back; one that is back already changes nothing."""
        if self._held.pop(token.id, None) is not None:
            self.used -= token.tokens
            self._serve(now_s)

    def renew(self, token: Token, now_s: float) -> bool:
        """Let a token's time begin anew; False if it is over."""
        if self._held.pop(token.id, None) is None:
            return False
        self._held[token.id] = (token, now_s + self._ttl_s)
        return True

    def expire(self, now_s: float) -> list[Token]:
        """Take back and give the tokens whose time is over."""
        late = [token for token, _ in itertools.takewhile(lambda held: held[1] <= now_s, self._held.values())]
        for token in late:
            self.release(token, now_s)
        return late

    def _take(self, tokens: int, holder: str, now_s: float) -> Token | None:
        if tokens > self.total - self.used:
            return None
        token = Token(next(self._ids), self.name, tokens, holder)
        self.used += tokens
        self._held[token.id] = (token, now_s + self._ttl_s)
        return token

    def _serve(self, now_s: float) -> None:
        while self._queue and (token := self._take(self._queue[0].tokens, self._queue[0].holder, now_s)) is not None:
            waiter = self._queue.popleft()
            waiter.token = token
            waiter.wake()
