"""Tokens are shared out fairly, and always come back."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from signalbox.clock import SystemClock, VirtualClock
from signalbox.errors import NotFound
from signalbox.resources import PoolUsage, ResourceExhausted, ResourceManager
from tests.support.loops import in_loop, settle
from tests.support.resources import make_manager


def usage(manager: ResourceManager) -> PoolUsage:
    return manager.usage()["p"]


def test_tokens_run_out_and_come_back():
    """What is out cannot be had, and what was released can."""
    manager = make_manager()
    first = manager.try_acquire("p", 3, holder="a")
    with pytest.raises(ResourceExhausted, match="3 of 4 are in use") as refusal:
        manager.try_acquire("p", 2, holder="b")
    assert refusal.value.retryable
    manager.release(first)
    assert manager.try_acquire("p", 4, holder="b").tokens == 4


def test_a_release_counts_once():
    """Releasing again changes nothing."""
    manager = make_manager()
    token = manager.try_acquire("p", 3, holder="a")
    for _ in range(3):
        manager.release(token)
    assert usage(manager) == PoolUsage(total=4, used=0, waiting=0)


def test_more_than_there_is_is_refused_at_once():
    """A request that can never be met does not wait, and is not to be repeated."""
    manager = make_manager()
    with pytest.raises(ResourceExhausted, match="has 4 in all") as refusal:
        asyncio.run(manager.acquire("p", 5, holder="a"))
    assert (refusal.value.retryable, refusal.value.hint) == (False, "raise resources.pools.p.tokens")


def test_an_unknown_pool_is_told():
    """The error names the pool, the hint those that there are."""
    with pytest.raises(NotFound, match="no resource pool 'q'") as error:
        make_manager().try_acquire("q", holder="a")
    assert "p" in str(error.value.hint)


def test_less_than_one_token_makes_no_sense():
    """Nothing, and less than nothing, cannot be asked for."""
    with pytest.raises(ValueError, match="one is the least"):
        make_manager().try_acquire("p", 0, holder="a")


def test_workers_never_have_more_than_the_node():
    """Each worker has its part; one without any refuses, and says that there are too many workers."""
    managers = [make_manager(workers=6, index=index) for index in range(6)]
    assert [usage(manager).total for manager in managers] == [1, 1, 1, 1, 0, 0]
    with pytest.raises(ResourceExhausted, match="has 0 in all") as refusal:
        managers[5].try_acquire("p", holder="a")
    assert not refusal.value.retryable
    assert "fewer workers" in str(refusal.value.hint)
    assert [one.resource for one in managers[5].readings()] == ["memory"]


@in_loop
async def test_a_small_request_does_not_overtake():
    """Who came first is served first, though a later and smaller request would fit at once."""
    manager, order = make_manager(), []

    async def take(name: str, tokens: int) -> None:
        await manager.acquire("p", tokens, holder=name)
        order.append(name)

    held = manager.try_acquire("p", 3, holder="a")
    large = asyncio.create_task(take("large", 3))
    await settle()
    small = asyncio.create_task(take("small", 1))
    await settle()
    assert (order, usage(manager).waiting) == ([], 4)
    with pytest.raises(ResourceExhausted):
        manager.try_acquire("p", holder="pushy")
    manager.release(held)
    await asyncio.gather(large, small)
    assert order == ["large", "small"]


@in_loop
async def test_who_gives_up_makes_way():
    """A request that is cancelled leaves the queue, and those behind it that fit are served."""
    manager = make_manager()
    manager.try_acquire("p", 3, holder="a")
    large = asyncio.create_task(manager.acquire("p", 2, holder="large"))
    await settle()
    small = asyncio.create_task(manager.acquire("p", 1, holder="small"))
    await settle()
    large.cancel()
    assert (await small).holder == "small"
    assert usage(manager) == PoolUsage(total=4, used=4, waiting=0)


@in_loop
async def test_a_token_that_arrives_at_the_cancelled_is_not_lost():
    """Who is cancelled in the moment of being served gives back what he got."""
    manager = make_manager()
    held = manager.try_acquire("p", 4, holder="a")
    waiting = asyncio.create_task(manager.acquire("p", 4, holder="b"))
    await settle()
    manager.release(held)
    assert usage(manager).used == 4
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert usage(manager) == PoolUsage(total=4, used=0, waiting=0)


@in_loop
async def test_a_wait_can_be_bounded():
    """After `wait_s` the request is refused and leaves no trace."""
    manager = make_manager()
    manager.try_acquire("p", 4, holder="a")
    with pytest.raises(ResourceExhausted, match=r"after 0\.01 s"):
        await manager.acquire("p", holder="b", wait_s=0.01)
    assert usage(manager) == PoolUsage(total=4, used=4, waiting=0)


@in_loop
async def test_holding_ends_with_the_block():
    """`hold` gives back at the end of its block, also when the block fails."""
    manager = make_manager()

    async def fail() -> None:
        async with manager.hold("p", 2, holder="a") as token:
            assert usage(manager).used == token.tokens == 2
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert usage(manager).used == 0


def test_who_forgets_loses(caplog):
    """After `ttl_s` a token is free again, its holder is named, and the late release changes nothing."""
    clock = VirtualClock()
    manager = make_manager(clock=clock)
    token = manager.try_acquire("p", 4, holder="forgetful")
    clock.advance(timedelta(seconds=9.9))
    with pytest.raises(ResourceExhausted):
        manager.try_acquire("p", holder="b")
    clock.advance(timedelta(seconds=0.1))
    assert manager.try_acquire("p", 3, holder="b").tokens == 3
    assert "forgetful held 4 tokens of p beyond their time" in caplog.text
    manager.release(token)
    assert usage(manager).used == 3


def test_who_renews_keeps():
    """A renewed token lives `ttl_s` from then on; one that is over cannot be renewed."""
    clock = VirtualClock()
    manager = make_manager(clock=clock)
    kept, lost = manager.try_acquire("p", holder="a"), manager.try_acquire("p", holder="b")
    clock.advance(timedelta(seconds=6))
    assert manager.renew(kept)
    clock.advance(timedelta(seconds=6))
    assert usage(manager).used == 1
    assert (manager.renew(kept), manager.renew(lost)) == (True, False)


@in_loop
async def test_who_waits_outlives_the_forgetful():
    """Those who wait look for expired tokens themselves, every `cleanup_interval_s`; no request is needed."""
    clock = VirtualClock()
    manager = make_manager(clock=clock, cleanup_interval_s=0.01)
    manager.try_acquire("p", 4, holder="forgetful")
    waiting = asyncio.create_task(manager.acquire("p", holder="b"))
    await settle()
    clock.advance(timedelta(seconds=10))
    assert (await asyncio.wait_for(waiting, 5)).holder == "b"


@pytest.mark.parametrize(("used", "queue", "level"), [(3, 0, "normal"), (4, 0, "warning"), (4, 1, "critical")])
@in_loop
async def test_a_reading_tells_when_a_pool_is_used_up(used, queue, level):
    """A pool is worth a warning from `alert_threshold` on, and is critical when somebody waits."""
    manager = make_manager()
    manager.try_acquire("p", used, holder="a")
    waiting = [asyncio.create_task(manager.acquire("p", holder="b")) for _ in range(queue)]
    await settle()
    [reading] = [one for one in manager.readings() if one.resource == "pool.p"]
    assert (reading.ratio, reading.level) == (used / 4, level)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_a_waiter_whose_loop_is_gone_hurts_nobody():
    """A release by others succeeds though the event loop of one who waited has been closed."""
    manager = make_manager()
    held = manager.try_acquire("p", 4, holder="a")
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(manager.acquire("p", holder="gone"))
    loop.run_until_complete(settle())
    loop.close()
    manager.release(held)
    assert usage(manager).used == 1
    del waiting


@pytest.mark.timeout(30)
def test_threads_and_loops_share_one_manager():
    """However many threads and loops ask, there are never more tokens out than there are, and all come back."""
    manager = make_manager(clock=SystemClock(), pools={"p": {"tokens": 3}})
    lock, out, most = threading.Lock(), 0, 0

    def count(change: int) -> None:
        nonlocal out, most
        with lock:
            out += change
            most = max(most, out)

    def by_thread() -> int:
        done = 0
        for _ in range(300):
            try:
                token = manager.try_acquire("p", holder="thread")
            except ResourceExhausted:
                continue
            count(1)
            done += 1
            count(-1)
            manager.release(token)
        return done

    async def one(number: int) -> None:
        tokens = 1 + number % 3
        async with manager.hold("p", tokens, holder="loop"):
            count(tokens)
            try:
                await asyncio.sleep(0)
            finally:
                count(-tokens)

    async def all_of_them() -> None:
        tasks = [asyncio.create_task(one(number)) for number in range(150)]
        await asyncio.sleep(0)
        for task in tasks[::5]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [error for error in ended if error and not isinstance(error, asyncio.CancelledError)] == []

    with ThreadPoolExecutor(4) as threads:
        loops = [threads.submit(asyncio.run, all_of_them()) for _ in range(2)]
        others = [threads.submit(by_thread) for _ in range(2)]
        for future in (*loops, *others):
            future.result(20)
    assert usage(manager) == PoolUsage(total=3, used=0, waiting=0)
    assert 1 <= most <= 3
