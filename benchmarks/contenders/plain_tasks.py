"""`plain` for actions: an asyncio loop that consumes tasks, awaits the work of each, and produces the result.

The lower bound of a Python process that does this: no journal, no retries, no state. What is in flight when it ends is
lost, or done twice.
"""

import asyncio
import signal
import time
from typing import Any

import confluent_kafka
import msgspec
from harness.job import PARTITIONS

from contenders.work import Orders


class _Params(msgspec.Struct):
    seconds: float = 0.0


class _Task(msgspec.Struct):
    task_id: str
    params: _Params


class _Submitted(msgspec.Struct):
    id: str
    data: _Task


class _Loop:
    """Consumes in a thread, works in the loop."""

    def __init__(self, orders: Orders) -> None:
        config: dict[str, Any] = {"bootstrap.servers": orders.bootstrap}
        self._sink = orders.sink
        self._consumer = confluent_kafka.Consumer({**config, "group.id": orders.group})
        self._consumer.assign(
            [confluent_kafka.TopicPartition(orders.source, number, 0) for number in range(PARTITIONS)]
        )
        self._producer = confluent_kafka.Producer({**config, "linger.ms": 0})
        self._decode = msgspec.json.Decoder(_Submitted).decode
        self._encode = msgspec.json.Encoder().encode
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            records = await asyncio.to_thread(self._consume)
            for record in records:
                task = asyncio.create_task(self._work(self._decode(record)))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    def _consume(self) -> list[bytes]:
        """At least one record, and all others that have come."""
        first = self._consumer.poll(0.1)
        rest = self._consumer.consume(1000, 0) if first is not None else []
        found = [record for record in (first, *rest) if record is not None and not record.error()]
        return [value for record in found if (value := record.value()) is not None]

    async def _work(self, submitted: _Submitted) -> None:
        task = submitted.data
        await asyncio.sleep(task.params.seconds)
        result = {
            "specversion": "1.0",
            "id": f"{submitted.id}/result",
            "source": "bench/plain",
            "type": "task.completed",
            "time": time.time(),
            "data": {"task_id": task.task_id, "result": task.params.seconds},
        }
        self._producer.produce(self._sink, self._encode(result), task.task_id)
        self._producer.poll(0)


def main() -> None:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(_Loop(Orders.from_environment()).run())
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
