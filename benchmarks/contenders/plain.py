"""`plain`: one Python process with confluent-kafka and msgspec, as fast as we can make it.

It keeps nothing durable and recovers nothing: it is the practical limit, not a product. What was chosen:

* one consumer that is assigned all partitions (a consumer group would add its start-up and nothing else), read with
  `consume(10_000)`, the batch call that confluent-kafka recommends for throughput;
* a typed msgspec struct of just the needed fields, which is faster than any untyped decoder;
* state in one dictionary of small lists; the garbage collector is frozen and made rare, because nothing here is cyclic;
* `fetch.queue.backoff.ms` 5: with the default, a second, a consumer that empties its queue quickly runs dry;
* librdkafka batches the alerts (`linger.ms` 5).
"""

import gc
import signal

import confluent_kafka
import msgspec
from harness.job import ALERT_TYPE, PARTITIONS, THRESHOLD

from contenders.work import Orders, PatternTable, timed_consumer


class Data(msgspec.Struct, gc=False):
    """The payload."""

    value: float
    seq: int


class Reading(msgspec.Struct, gc=False):
    """The fields of a signal that the job needs."""

    id: str
    type: str
    subject: str
    time: str
    data: Data


class AlertData(msgspec.Struct):
    """The payload of an alert."""

    value: float
    count: int
    maximum: float


class Alert(msgspec.Struct, tag_field="specversion", tag="1.0"):
    """An alert as CloudEvents JSON has it."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    causationid: str
    data: AlertData


def main() -> None:
    """Run until SIGTERM."""
    orders = Orders.from_environment()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    consumer = _consumer(orders)
    producer = confluent_kafka.Producer({"bootstrap.servers": orders.bootstrap, "linger.ms": 5})
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
    try:
        _loop(consumer, producer, orders.sink)
    except KeyboardInterrupt:
        producer.flush(10)
        consumer.close()


def _consumer(orders: Orders) -> confluent_kafka.Consumer:
    timed = timed_consumer(confluent_kafka.Consumer, orders, ("confluent-kafka", "msgspec"))
    consumer: confluent_kafka.Consumer = timed(
        {
            "bootstrap.servers": orders.bootstrap,
            "group.id": orders.group,
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(orders.source, number, 0) for number in range(PARTITIONS)])
    return consumer


def _loop(consumer: confluent_kafka.Consumer, producer: confluent_kafka.Producer, sink: str) -> None:
    decode = msgspec.json.Decoder(Reading).decode
    encode = msgspec.json.Encoder().encode
    routes = PatternTable()
    states: dict[str, list[float]] = {}
    find = states.get
    while True:
        for record in consumer.consume(10_000, 0.1):
            reading = decode(record.value())  # type: ignore[arg-type]  # no record of the input is empty
            if routes[reading.type] != "reading":
                continue
            value = reading.data.value
            subject = reading.subject
            state = find(subject)
            if state is None:
                state = states[subject] = [0, 0.0, 0.0]
            state[0] += 1
            state[1] = value
            if value > state[2]:  # noqa: PLR1730 - a call to max() costs more
                state[2] = value
            if value > THRESHOLD:
                alert = Alert(
                    f"{reading.id}/alert", "bench/plain", ALERT_TYPE, subject, reading.time, reading.id,
                    AlertData(value, int(state[0]), state[2]),
                )  # fmt: skip
                producer.produce(sink, encode(alert), subject)
        producer.poll(0)


if __name__ == "__main__":
    main()
