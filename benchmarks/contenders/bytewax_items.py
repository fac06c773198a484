"""`bytewax_items`: the job as the Bytewax guide writes it, one item at a time.

Source: the Bytewax 0.21 documentation of `bytewax.connectors.kafka`, `bytewax.operators` and recovery.

* `KafkaSource` with `batch_size=10_000`; its default of 1000 is "a suitable starting point" and was slower here.
  `fetch.queue.backoff.ms` as in `plain`. `KafkaSink` for the output.
* `map` to decode, `filter` by the pattern table, `key_on` the subject, `stateful_map`, `filter_value`, `map`.
* JSON through msgspec with the same typed struct as `plain`; Bytewax leaves the decoder to its user.
* Recovery on, one partition, a snapshot each second (`-s 1`), which is what signalbox is measured with.
"""

import signal
from datetime import timedelta

import bytewax.operators as op
import confluent_kafka
import msgspec
from bytewax.connectors import kafka
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from harness.job import ALERT_TYPE, THRESHOLD

from contenders.plain import Alert, AlertData, Reading
from contenders.work import Orders, PatternTable, timed_consumer

State = tuple[int, float, float]
"""Count, last and maximum of one subject."""

_decode = msgspec.json.Decoder(Reading).decode
_encode = msgspec.json.Encoder().encode


def update(state: State | None, reading: Reading) -> tuple[State, tuple[Reading, State]]:
    """Fold one reading into its subject's state."""
    count, _, maximum = state or (0, 0.0, 0.0)
    value = reading.data.value
    new = (count + 1, value, max(maximum, value))
    return new, (reading, new)


def to_alert(keyed: tuple[str, tuple[Reading, State]]) -> kafka.KafkaSinkMessage[bytes, bytes]:
    """The record that tells of a reading over the threshold."""
    subject, (reading, (count, value, maximum)) = keyed
    alert = Alert(
        f"{reading.id}/alert", "bench/bytewax", ALERT_TYPE, subject, reading.time, reading.id,
        AlertData(value, count, maximum),
    )  # fmt: skip
    return kafka.KafkaSinkMessage(key=subject.encode(), value=_encode(alert))


def build_flow(orders: Orders) -> Dataflow:
    """The dataflow."""
    routes = PatternTable()
    flow = Dataflow("bench")
    source = kafka.KafkaSource(
        [orders.bootstrap], [orders.source], batch_size=10_000, add_config={"fetch.queue.backoff.ms": "5"}
    )
    records = op.input("signals", flow, source)
    readings = op.map("decode", records, lambda record: _decode(record.value))  # type: ignore[union-attr,arg-type]
    routed = op.filter("route", readings, lambda reading: routes[reading.type] == "reading")
    keyed = op.key_on("subject", routed, lambda reading: reading.subject)
    states = op.stateful_map("state", keyed, update)
    high = op.filter("threshold", states, lambda item: item[1][0].data.value > THRESHOLD)
    alerts = op.map("alert", high, to_alert)
    op.output("alerts", alerts, kafka.KafkaSink([orders.bootstrap], orders.sink))
    return flow


def main() -> None:
    """Run as `python -m bytewax.run -r DIR -s 1` does."""
    orders = Orders.from_environment()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    timed = timed_consumer(confluent_kafka.Consumer, orders, ("bytewax", "confluent-kafka", "msgspec"))
    kafka.Consumer = timed  # type: ignore[attr-defined]
    orders.state_dir.mkdir()
    init_db_dir(orders.state_dir, 1)  # type: ignore[no-untyped-call]
    cli_main(  # type: ignore[no-untyped-call]
        build_flow(orders),
        epoch_interval=timedelta(seconds=1),
        recovery_config=RecoveryConfig(orders.state_dir),  # type: ignore[no-untyped-call]
    )


if __name__ == "__main__":
    main()
