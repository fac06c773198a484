from typing import Any

from schemas.signal import Signal, decode, new_signal
from signalbox.config import Settings
from signalbox.supervision.outbox import Outbox
from tests.support.eventually import eventually
from tests.support.fakes import MemoryBroker, MemoryPublisher


def said(number: int) -> Signal[Any]:
    return new_signal("scaling.paused", {"number": number}, source="test", subject="flow/scaling")


def numbers(broker: MemoryBroker) -> list[int]:
    return [decode(record.value, record.headers).data["number"] for record in broker.records("scaling")]


def outbox_to(broker: MemoryBroker) -> Outbox:
    return Outbox(Settings(), make_publisher=lambda: MemoryPublisher(broker))


def test_what_is_sent_is_written_in_order() -> None:
    """Signals are on the topic in the order in which they were sent, at the latest when the outbox is closed."""
    broker = MemoryBroker(["scaling"])
    outbox = outbox_to(broker)
    for number in range(50):
        outbox.send("scaling", said(number))
    outbox.close(5)
    assert numbers(broker) == list(range(50))


def test_what_the_broker_does_not_take_is_tried_again() -> None:
    """A broker that is away for a moment gets everything when it is back, in order."""
    broker = MemoryBroker(["scaling"])
    broker.up = False
    outbox = outbox_to(broker)
    outbox.send("scaling", said(1))
    outbox.send("scaling", said(2))
    broker.up = True
    eventually(lambda: numbers(broker) == [1, 2])
    outbox.close(5)


def test_a_broker_that_stays_away_does_not_keep_the_end_waiting() -> None:
    """Closing returns although nothing could be written."""
    broker = MemoryBroker(["scaling"])
    broker.up = False
    outbox = outbox_to(broker)
    outbox.send("scaling", said(1))
    outbox.close(1)
    assert numbers(broker) == []


def test_nothing_is_written_while_held_and_what_waited_is_dropped() -> None:
    """Topics that are gone get nothing of what was meant for them; what is sent after they are back is written."""
    broker = MemoryBroker(["scaling"])
    outbox = outbox_to(broker)
    outbox.hold()
    outbox.send("scaling", said(1))
    outbox.hold()
    outbox.release()
    outbox.send("scaling", said(2))
    outbox.close(5)
    assert numbers(broker) == [2]
