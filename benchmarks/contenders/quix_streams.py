"""`quix`: the job as a Quix Streams 3 `StreamingDataFrame` with state.

Source: the docstrings of `quixstreams.Application` and the documentation pages on stateful processing, checkpointing
and serialization.

* JSON by the built-in deserializer and serializer (orjson inside); state is one list per key in RocksDB, its store.
* `commit_interval=1.0`: a checkpoint each second, as signalbox snapshots. `processing_guarantee` is the default,
  at-least-once.
* `fetch.queue.backoff.ms` as in `plain`; its own default is 100.
* `use_changelog_topics=False`: state then survives on local disk, as Bytewax's and signalbox's does, and not on Kafka.
  The default, True, costs one more record per signal and was slower.
* The messages keep their key, so no `group_by` (a repartition topic) is needed.
"""

import signal
from typing import Any

import confluent_kafka
import quixstreams.kafka.consumer
from harness.job import ALERT_TYPE, THRESHOLD
from quixstreams import Application, State

from contenders.work import Orders, PatternTable, timed_consumer


def update(signal_: dict[str, Any], state: State) -> dict[str, Any]:
    """Fold one reading into its subject's state, and hand both on."""
    count, _, maximum = state.get("reading") or (0, 0.0, 0.0)
    value = signal_["data"]["value"]
    maximum = max(maximum, value)
    state.set("reading", [count + 1, value, maximum])
    signal_["count"] = count + 1
    signal_["maximum"] = maximum
    return signal_


def to_alert(reading: dict[str, Any]) -> dict[str, Any]:
    """The alert about a reading over the threshold."""
    return {
        "specversion": "1.0",
        "id": f"{reading['id']}/alert",
        "source": "bench/quix",
        "type": ALERT_TYPE,
        "subject": reading["subject"],
        "time": reading["time"],
        "causationid": reading["id"],
        "data": {
            "value": reading["data"]["value"],
            "count": reading["count"],
            "maximum": reading["maximum"],
        },
    }


def build_app(orders: Orders) -> Application:
    """The application with its dataframe."""
    routes = PatternTable()
    app = Application(
        broker_address=orders.bootstrap,
        consumer_group=orders.group,
        auto_offset_reset="earliest",
        commit_interval=1.0,
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        state_dir=orders.state_dir,
        use_changelog_topics=False,
        loglevel="WARNING",
    )
    signals = app.topic(orders.source, value_deserializer="json", key_deserializer="str")
    alerts = app.topic(orders.sink, value_serializer="json", key_serializer="str")
    frame = app.dataframe(signals)
    frame = frame.filter(lambda reading: routes[reading["type"]] == "reading")
    frame = frame.apply(update, stateful=True)
    frame = frame.filter(lambda reading: reading["data"]["value"] > THRESHOLD)
    frame.apply(to_alert).to_topic(alerts)
    return app


def main() -> None:
    """Run until SIGTERM."""
    orders = Orders.from_environment()
    distributions = ("quixstreams", "confluent-kafka", "orjson", "rocksdict")
    quixstreams.kafka.consumer.ConfluentConsumer = timed_consumer(confluent_kafka.Consumer, orders, distributions)
    app = build_app(orders)
    signal.signal(signal.SIGTERM, lambda *_: app.stop())
    app.run()


if __name__ == "__main__":
    main()
