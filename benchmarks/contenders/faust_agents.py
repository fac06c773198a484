"""`faust`: the job as a faust-streaming agent with a table.

Source: the docstrings of `faust.types.settings.settings`, and the faust-streaming documentation on agents and tables.

* Table in memory (`store="memory://"`), the faster of the two stores; either way each change goes to a changelog topic,
  which is how Faust keeps state and cannot be turned off.
* Linger of 50 ms and batches of 200 kB for that changelog: without them it is 1.5 to 2 times slower.
* `uvloop`, orjson, and the Cython extensions that the wheel has; no web server; commits each second.
* Debug records of Faust are switched off at its loggers: the worker's `-l warn` drops them only at the handler.
* Raw bytes in and out and one orjson call, instead of Faust's models, which cost more.
* One event at a time, because `take()` (many at once) does not work together with tables.
"""

import logging
import sys
from typing import Any

import faust
import orjson
from harness.job import ALERT_TYPE, PARTITIONS, THRESHOLD

from contenders.work import Orders, PatternTable, report_first


def build_app(orders: Orders) -> faust.App:
    """The application with its table and its agent."""
    app = faust.App(
        orders.group,
        broker=f"kafka://{orders.bootstrap}",
        store="memory://",
        datadir=str(orders.state_dir),
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.05,
        producer_max_batch_size=200_000,
        stream_recovery_delay=0.0,
        web_enabled=False,
    )
    signals = app.topic(orders.source, key_serializer="raw", value_serializer="raw", value_type=bytes)
    alerts = app.topic(orders.sink, key_serializer="raw", value_serializer="raw", value_type=bytes)
    table = app.Table("readings", key_type=str, partitions=PARTITIONS)
    routes = PatternTable()

    async def readings(stream: Any) -> None:
        for name in ("faust", "mode", "aiokafka"):
            logging.getLogger(name).setLevel(logging.WARNING)
        reported = False
        async for value in stream:
            if not reported:
                reported = True
                report_first(orders, "faust-streaming", "aiokafka", "uvloop", "orjson")
            reading = orjson.loads(value)
            if routes[reading["type"]] != "reading":
                continue
            state = update(table, reading)
            if reading["data"]["value"] > THRESHOLD:
                await alerts.send(key=reading["subject"].encode(), value=orjson.dumps(to_alert(reading, state)))

    app.agent(signals)(readings)
    return app


def update(table: Any, reading: dict[str, Any]) -> list[Any]:
    """Fold one reading into its subject's state: count, last and maximum."""
    subject = reading["subject"]
    value = reading["data"]["value"]
    count, _, maximum = table.get(subject) or (0, 0.0, 0.0)
    state = table[subject] = [count + 1, value, max(maximum, value)]
    return state


def to_alert(reading: dict[str, Any], state: list[Any]) -> dict[str, Any]:
    """The alert about a reading over the threshold."""
    count, value, maximum = state
    return {
        "specversion": "1.0",
        "id": f"{reading['id']}/alert",
        "source": "bench/faust",
        "type": ALERT_TYPE,
        "subject": reading["subject"],
        "time": reading["time"],
        "causationid": reading["id"],
        "data": {"value": value, "count": count, "maximum": maximum},
    }


def main() -> None:
    """Run the worker as Faust's own command line does."""
    sys.argv = ["faust", "--loop", "uvloop", "worker", "--loglevel", "warn"]
    build_app(Orders.from_environment()).main()


if __name__ == "__main__":
    main()
