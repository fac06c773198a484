"""`faust`: the job as a faust-streaming agent with a table.

Source: the docstrings of `faust.types.settings`, the faust-streaming documentation on agents, tables and settings.
"""

import os
import sys

import faust
import orjson
from contenders.work import Orders, PatternTable, report_first
from harness.job import ALERT_TYPE, PARTITIONS, THRESHOLD

orders = Orders.from_environment()
app = faust.App(
    orders.group,
    broker=f"kafka://{orders.bootstrap}",
    store=os.environ.get("FSTORE", "memory://"),
    datadir=str(orders.state_dir),
    topic_partitions=PARTITIONS,
    topic_disable_leader=True,
    stream_buffer_maxsize=int(os.environ.get("FBUF", "4096")),
    broker_commit_interval=1.0,
    stream_recovery_delay=0.0,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    producer_linger=float(os.environ.get("FLINGER","0")),
    producer_threaded=bool(os.environ.get("FTHREAD","")),
    producer_max_batch_size=int(os.environ.get("FBATCH","16384")),
    producer_acks=int(os.environ.get("FACKS","-1")),
)
signals = app.topic(orders.source, key_type=bytes, key_serializer="raw", value_serializer="raw", value_type=bytes)
alerts = app.topic(orders.sink, key_type=bytes, key_serializer="raw", value_serializer="raw", value_type=bytes)
table = app.Table("readings", key_type=str, value_type=None, default=None, partitions=PARTITIONS)
routes = PatternTable()


def step(value):
    reading = orjson.loads(value)
    if routes[reading["type"]] != "reading":
        return None
    value = reading["data"]["value"]
    subject = reading["subject"]
    count, _, maximum = table.get(subject) or (0, 0.0, 0.0)
    if value > maximum:
        maximum = value
    table[subject] = [count + 1, value, maximum]
    if value > THRESHOLD:
        return orjson.dumps({
            "specversion": "1.0", "id": f"{reading['id']}/alert", "source": "bench/faust", "type": ALERT_TYPE,
            "subject": subject, "time": reading["time"], "causationid": reading["id"],
            "data": {"value": value, "count": count + 1, "maximum": maximum}})
    return None

first = True
@app.agent(signals)
async def readings(stream):
    global first
    async for value in stream:
        if first:
            first = False
            report_first(orders, "faust-streaming", "aiokafka", "mode-streaming")
        alert = step(value)
        if alert is not None:
            await alerts.send(key=orjson.loads(value)["subject"].encode(), value=alert)


if __name__ == "__main__":
    sys.argv = ["faust", *os.environ.get("FARGS", "").split(), "worker", "-l", "warn"]
    app.main()
