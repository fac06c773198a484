"""From the buffer to a broker that comes and goes, in virtual time."""

import asyncio

from schemas.signal import new_signal
from signalbox.sensors.buffer import SignalBuffer
from signalbox.sensors.delivery import Delivery
from tests.unit.signalbox.sensors.fakes import FakeBroker
from tests.unit.signalbox.sensors.virtual_time import inline, run_virtual


def signals(count, start=0):
    return [new_signal("x", source="s", id=f"{number:06}") for number in range(start, start + count)]


def names(count, start=0):
    return [signal.id for signal in signals(count, start)]


def make_delivery(broker, limit=10_000):
    return Delivery(SignalBuffer(limit), broker.publisher, "pre.signals", run_blocking=inline)


async def finish(delivery, running):
    delivery.close()
    await running


def test_everything_arrives_once_in_order_on_the_given_topic():
    """With the broker there, delivery is plain."""

    async def scenario():
        broker = FakeBroker()
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(3))
        await asyncio.sleep(1)
        delivery.put("s", signals(1200, start=3))
        await finish(delivery, running)
        assert broker.ids == names(1203)
        assert {topic for topic, _ in broker.received} == {"pre.signals"}
        assert len(broker.publishers) == 1
        assert broker.publishers[0].closed

    run_virtual(scenario())


def test_what_was_buffered_while_the_broker_was_away_arrives_when_it_is_back():
    """Nothing within the limit is lost, order is kept, and it takes seconds."""

    async def scenario():
        broker = FakeBroker(up=False)
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        for number in range(600):
            delivery.put("s", signals(1, start=number))
            await asyncio.sleep(1)
        assert len(delivery.buffer) == 600
        broker.up = True
        await asyncio.sleep(6)
        assert broker.ids == names(600)
        assert not delivery.buffer.dropped
        await finish(delivery, running)

    run_virtual(scenario())


def test_a_full_buffer_drops_the_oldest_and_counts_them():
    """With the broker away for too long, the newest signals survive and the loss is exact."""

    async def scenario():
        broker = FakeBroker(up=False)
        delivery = make_delivery(broker, limit=100)
        running = asyncio.create_task(delivery.run())
        for number in range(0, 250, 2):
            delivery.put("a", signals(1, start=number))
            delivery.put("b", signals(1, start=number + 1))
            await asyncio.sleep(0.07)
        broker.up = True
        await asyncio.sleep(6)
        assert broker.ids == names(100, start=150)
        assert delivery.buffer.dropped == {"a": 75, "b": 75}
        await finish(delivery, running)

    run_virtual(scenario())


def test_a_publisher_that_failed_is_closed_and_never_used_again():
    """Its queue may hold what the buffer holds too, so memory is bounded only if it goes."""

    async def scenario():
        broker = FakeBroker(up=False)
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(800))
        await asyncio.sleep(60)
        assert len(broker.publishers) > 3
        assert all(publisher.closed for publisher in broker.publishers)
        assert max(len(publisher.queue) for publisher in broker.publishers) <= 500
        broker.up = True
        await finish(delivery, running)

    run_virtual(scenario())


def test_a_late_arrival_is_published_again_under_the_same_id():
    """At least once: an acknowledgement that never came costs a duplicate that can be told by its id."""

    async def scenario():
        broker = FakeBroker(up=False)
        broker.late = True
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(2))
        await asyncio.sleep(0.1)
        assert broker.ids == names(2)
        broker.up = True
        await finish(delivery, running)
        assert broker.ids == names(2) * 2

    run_virtual(scenario())


def test_retries_become_rarer_but_never_stop(caplog):
    """A broker that is away for an hour is asked some 720 times, and a dozen lines of the log tell of it."""

    async def scenario():
        broker = FakeBroker(up=False)
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(1))
        await asyncio.sleep(3600)
        assert 700 <= len(broker.publishers) <= 740
        assert 8 <= len(caplog.records) <= 12
        running.cancel()

    run_virtual(scenario())


def test_after_an_outage_everything_is_as_before():
    """The next outage is noticed as quickly as the first, and batches are large again."""

    async def scenario():
        broker = FakeBroker(up=False)
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(2000))
        await asyncio.sleep(3600)
        broker.up = True
        await asyncio.sleep(6)
        assert broker.ids == names(2000)
        broker.up, before = False, len(broker.publishers)
        delivery.put("s", signals(2000, start=2000))
        await asyncio.sleep(0.5)
        assert len(broker.publishers) == before + 1
        assert len(broker.publishers[before - 1].queue) == 500
        broker.up = True
        await finish(delivery, running)

    run_virtual(scenario())


def test_after_a_failure_a_single_signal_tries_the_broker():
    """A broker that takes signals and never acknowledges them gets one again and again, not hundreds."""

    async def scenario():
        broker = FakeBroker(up=False)
        broker.late = True
        delivery = make_delivery(broker)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(100))
        await asyncio.sleep(60)
        assert broker.ids[100:] == names(1) * (len(broker.publishers) - 1)
        broker.up = True
        await finish(delivery, running)
        assert broker.ids[-100:] == names(100)

    run_virtual(scenario())


def test_a_publisher_that_cannot_be_made_is_an_outage_like_any_other():
    """An error from the factory is retried, not raised."""

    async def scenario():
        broker = FakeBroker()
        attempts = []

        def make():
            attempts.append(1)
            if len(attempts) < 3:
                raise RuntimeError("no such host")
            return broker.publisher()

        delivery = Delivery(SignalBuffer(10), make, "signals", run_blocking=inline)
        running = asyncio.create_task(delivery.run())
        delivery.put("s", signals(1))
        await finish(delivery, running)
        assert broker.ids == names(1)

    run_virtual(scenario())
