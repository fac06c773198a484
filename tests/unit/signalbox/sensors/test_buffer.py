"""The buffer alone. How it is filled and emptied: test_delivery.py and test_runner.py."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import new_signal
from signalbox.sensors.buffer import SignalBuffer

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("confirm"), st.none()),
        st.tuples(st.just("release"), st.none()),
    ),
    max_size=80,
)


@given(limit=st.integers(1, 8), operations=OPERATIONS)
def test_every_signal_is_delivered_in_order_or_kept_or_counted_as_dropped(limit, operations):
    """Whatever happens, the buffer stays within its limit, keeps order and accounts for every single signal."""
    buffer = SignalBuffer(limit)
    made: dict[str, str] = {}
    delivered: list[str] = []
    in_flight: list[str] = []
    refused = 0
    for operation, argument in operations:
        if operation == "add":
            signal = new_signal("x", source="s", id=f"{len(made):04}")
            made[signal.id] = argument
            refused += not buffer.add(argument, signal)
        elif operation == "take":
            in_flight = [signal.id for signal in buffer.take(argument)]
            assert len(in_flight) <= argument
        elif operation == "confirm":
            delivered += in_flight
            in_flight = []
            buffer.confirm()
        else:
            in_flight = []
            buffer.release()
        assert len(buffer) <= limit

    kept = [signal.id for signal in buffer.take(limit)]
    assert kept[: len(in_flight)] == in_flight, "what is in flight is never dropped"
    assert delivered + kept == sorted(delivered + kept), "order is kept"
    lost = made.keys() - set(delivered) - set(kept)
    assert buffer.dropped == Counter(made[id] for id in lost)
    assert refused == len(lost)


def test_the_oldest_waiting_signal_is_the_one_that_is_dropped():
    """A full buffer prefers news to history."""
    buffer = SignalBuffer(3)
    for number in range(5):
        buffer.add("s", new_signal("x", source="s", id=str(number)))
    assert [signal.id for signal in buffer.take(10)] == ["2", "3", "4"]
