"""Shares out what a worker process may use: tokens of named pools, and memory.

The settings give totals of the node, and each of its worker processes gets a part (`signalbox.resources.shares`), so
that together they never exceed the total and need not talk to each other. Any thread may use a manager, and so may any
event loop. It has no thread of its own: a holder that forgot its token loses it when the next one asks, or waits.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from signalbox.clock import Clock
from signalbox.config import ResourceSettings
from signalbox.errors import NotFound
from signalbox.resources.memory import MemoryWatch
from signalbox.resources.pool import Pool, PoolUsage, ResourceExhausted, Token, Waiter
from signalbox.resources.shares import share

log = logging.getLogger(__name__)

_MIB = 1 << 20


Level: TypeAlias = Literal["normal", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class ResourceReading:
    """How much of one resource is in use."""

    resource: str
    """`memory`, or `pool.` and the pool's name."""
    ratio: float
    """Used as a ratio of what there is; above 1 for memory beyond its limit."""
    level: Level
    """`warning` from `resources.alert_threshold` on; `critical` where requests are refused or wait."""


class ResourceManager:
    """The part of the node's resources that one of `workers` processes has."""

    def __init__(
        self,
        settings: ResourceSettings,
        clock: Clock,
        *,
        workers: int = 1,
        index: int = 0,
        memory: MemoryWatch | None = None,
    ) -> None:
        """`memory` stands in for this process's own, which is watched against its part of `memory_mb`."""
        self._settings = settings
        self._clock = clock
        self._workers = workers
        self._pools = {
            name: Pool(name, share(pool.tokens, workers=workers, index=index), pool.ttl_s)
            for name, pool in settings.pools.items()
        }
        self.memory = memory or MemoryWatch(share(settings.memory_mb * _MIB, workers=workers, index=index), clock)
        self._lock = threading.Lock()

    def try_acquire(self, pool: str, tokens: int = 1, *, holder: str) -> Token:
        """Take tokens that are there now and that nobody waits for.

        Raises:
            ResourceExhausted: there are too few now, or at all, or memory is short.
            NotFound: there is no such pool.
        """
        found = self._admitted(pool, tokens)
        with self._lock:
            token = self._take(found, tokens, holder)
        if token is None:
            raise _busy(found, tokens)
        return token

    async def acquire(self, pool: str, tokens: int = 1, *, holder: str, wait_s: float | None = None) -> Token:
        """Take tokens as soon as there are enough and all who came before have theirs; wait at most `wait_s`.

        Raises:
            ResourceExhausted: it took longer than `wait_s`, there are too few at all, or memory is short.
            NotFound: there is no such pool.
        """
        found = self._admitted(pool, tokens)
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # its loop has ended; then the token expires
                loop.call_soon_threadsafe(woken.set)

        waiter = Waiter(tokens, holder, wake)
        with self._lock:
            waiter.token = self._take(found, tokens, holder)
            if waiter.token is None:
                found.enqueue(waiter)
        try:
            async with asyncio.timeout(wait_s):
                while waiter.token is None:
                    await self._look_again(woken)
        except BaseException as error:
            with self._lock:
                found.withdraw(waiter, self._clock.monotonic())
            if isinstance(error, TimeoutError):
                raise _busy(found, tokens, waited_s=wait_s) from None
            raise
        return waiter.token

    @contextlib.asynccontextmanager
    async def hold(
        self, pool: str, tokens: int = 1, *, holder: str, wait_s: float | None = None
    ) -> AsyncIterator[Token]:
        """Have tokens for the length of an `async with`; raises as `acquire`."""
        token = await self.acquire(pool, tokens, holder=holder, wait_s=wait_s)
        try:
            yield token
        finally:
            self.release(token)

    def release(self, token: Token) -> None:
        """Give a token back. Once more, or after it expired, changes nothing."""
        with self._lock:
            self._pools[token.pool].release(token, self._clock.monotonic())

    def renew(self, token: Token) -> bool:
        """Say that the holder goes on: the token's `ttl_s` begins anew. False if it is no longer the holder's."""
        self.expire()
        with self._lock:
            return self._pools[token.pool].renew(token, self._clock.monotonic())

    def expire(self) -> None:
        """Take back tokens that were held for longer than their pool's `ttl_s`."""
        with self._lock:
            late = [token for pool in self._pools.values() for token in pool.expire(self._clock.monotonic())]
        for token in late:
            log.warning("%s held %d tokens of %s beyond their time", token.holder, token.tokens, token.pool)

    def require_memory(self) -> None:
        """Check that memory allows more work.

        Raises:
            ResourceExhausted: this process uses more than its part of `resources.memory_mb`.
        """
        if self.memory.ratio > 1:
            used, limit = self.memory.used_bytes // _MIB, self.memory.limit_bytes // _MIB
            msg = f"this process uses {used} MB of memory, and its part is {limit} MB"
            raise ResourceExhausted(msg, hint="raise resources.memory_mb, or do less at once")

    def usage(self) -> dict[str, PoolUsage]:
        """Tokens by pool."""
        self.expire()
        with self._lock:
            return {name: pool.usage() for name, pool in self._pools.items()}

    def readings(self) -> list[ResourceReading]:
        """How much is in use of everything of which this process has a part."""
        found = [self._reading("memory", ratio := self.memory.ratio, critical=ratio > 1)]
        for name, usage in self.usage().items():
            if usage.total:
                # Without a queue, a pool that is used up is as it should be.
                found.append(self._reading(f"pool.{name}", usage.used / usage.total, critical=usage.waiting > 0))
        return found

    def _reading(self, resource: str, ratio: float, *, critical: bool) -> ResourceReading:
        return ResourceReading(resource, ratio, level_of(ratio, self._settings.alert_threshold, critical=critical))

    def _admitted(self, name: str, tokens: int) -> Pool:
        """The pool, if it could ever give so many."""
        pool = self._pools.get(name)
        if pool is None:
            msg = f"there is no resource pool {name!r}"
            raise NotFound(msg, hint=f"add it under resources.pools; there are: {', '.join(self._pools) or 'none'}")
        if tokens < 1:
            msg = f"{tokens} tokens of {name} were asked for; one is the least"
            raise ValueError(msg)
        if tokens > pool.total:
            msg = f"{tokens} tokens of {name} were asked for, and this process has {pool.total} in all"
            hint = f"raise resources.pools.{name}.tokens"
            if self._workers > 1:
                hint += f", or run fewer workers: {self._workers} share the node's tokens"
            raise ResourceExhausted(msg, hint=hint, retryable=False)
        self.require_memory()
        self.expire()
        return pool

    def _take(self, pool: Pool, tokens: int, holder: str) -> Token | None:
        return pool.take(tokens, holder, self._clock.monotonic())

    async def _look_again(self, woken: asyncio.Event) -> None:
        """Wait until there is a token, or until it is time to look for those whose holder forgot them."""
        try:
            async with asyncio.timeout(self._settings.cleanup_interval_s):
                await woken.wait()
        except TimeoutError:
            self.expire()


def level_of(ratio: float, alert_threshold: float, *, critical: bool) -> Level:
    """How serious it is that so much of a resource is in use; `critical` where requests are refused or wait."""
    if ratio < alert_threshold:
        return "normal"
    return "critical" if critical else "warning"


def _busy(pool: Pool, tokens: int, *, waited_s: float | None = None) -> ResourceExhausted:
    waited = "" if waited_s is None else f" after {waited_s:g} s"
    msg = f"{tokens} tokens of {pool.name} are not to be had{waited}: {pool.used} of {pool.total} are in use"
    return ResourceExhausted(msg, hint=f"try again later, or raise resources.pools.{pool.name}.tokens")
