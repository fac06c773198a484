"""`plain` for latency: one record per poll, no waiting to fill batches on either side.

The lower bound of a Python process between two topics: decode, compare, send. It keeps the same state as `plain`.
"""

import signal

import confluent_kafka
import msgspec
from harness.job import ALERT_TYPE, PARTITIONS, THRESHOLD

from contenders.plain import Alert, AlertData, Reading
from contenders.work import Orders, PatternTable


def main() -> None:
    """Run until SIGTERM."""
    orders = Orders.from_environment()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": orders.bootstrap, "group.id": orders.group})
    consumer.assign([confluent_kafka.TopicPartition(orders.source, number, 0) for number in range(PARTITIONS)])
    producer = confluent_kafka.Producer({"bootstrap.servers": orders.bootstrap, "linger.ms": 0})
    try:
        _loop(consumer, producer, orders.sink)
    except KeyboardInterrupt:
        consumer.close()


def _loop(consumer: confluent_kafka.Consumer, producer: confluent_kafka.Producer, sink: str) -> None:
    decode = msgspec.json.Decoder(Reading).decode
    encode = msgspec.json.Encoder().encode
    routes = PatternTable()
    states: dict[str, tuple[int, float]] = {}
    while True:
        record = consumer.poll(0.1)
        if record is None or record.error():
            continue
        reading = decode(record.value())  # type: ignore[arg-type]  # no record of the input is empty
        if routes[reading.type] != "reading":
            continue
        value, subject = reading.data.value, reading.subject
        count, maximum = states.get(subject, (0, 0.0))
        states[subject] = count + 1, max(maximum, value)
        if value > THRESHOLD:
            data = AlertData(value, *states[subject])
            alert = Alert(f"{reading.id}/alert", "bench/plain", ALERT_TYPE, subject, reading.time, reading.id, data)
            producer.produce(sink, encode(alert), subject)
            producer.poll(0)


if __name__ == "__main__":
    main()
