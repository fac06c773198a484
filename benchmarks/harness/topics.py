"""Topics of a benchmark run: the input, loaded once, and outputs that are new for every run."""

import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from harness.job import PARTITIONS, SIGNAL_TYPE, Job, readings
from signalbox.config import TOPICS

PREFIX = "bench-"
SOURCE = f"{PREFIX}signals"
SINK = f"{PREFIX}alerts"
#: Every contender gets the topics that signalbox needs, so that all run on the same broker state.
OUTPUTS = [f"{PREFIX}{name}" for name in TOPICS if name != "signals"]
#: Quix Streams names topics of its own so.
_FOREIGN_PREFIX = f"changelog__{PREFIX}"
_ADMIN_TIMEOUT_S = 30.0


class Topics:
    """Creates, fills and deletes topics on one broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def names(self, prefix: str) -> list[str]:
        """The topics whose names begin with `prefix`."""
        return [name for name in self._admin.list_topics(timeout=_ADMIN_TIMEOUT_S).topics if name.startswith(prefix)]

    def create(self, *names: str, partitions: int = PARTITIONS, append_time: bool = False) -> None:
        """Create topics; with `append_time` records carry the time at which the broker took them."""
        config = {"message.timestamp.type": "LogAppendTime"} if append_time else {}
        topics = [NewTopic(name, num_partitions=partitions, replication_factor=1, config=config) for name in names]
        for future in self._admin.create_topics(topics, operation_timeout=_ADMIN_TIMEOUT_S).values():
            future.result()
        self._wait_until(lambda present: present.issuperset(names))

    def delete(self, names: Iterable[str]) -> None:
        """Delete topics and wait until the broker no longer names them."""
        doomed = list(names)
        if not doomed:
            return
        for future in self._admin.delete_topics(doomed, operation_timeout=_ADMIN_TIMEOUT_S).values():
            future.result()
        self._wait_until(lambda present: present.isdisjoint(doomed))

    def clear(self, keep: str | None = None) -> None:
        """Delete every topic of earlier runs but `keep`."""
        names = self.names(PREFIX) + self.names(_FOREIGN_PREFIX)
        self.delete(name for name in names if name != keep)

    def load(self, topic: str, job: Job) -> None:
        """Create the input topic and write the job's signals to it, unless it already holds that many."""
        if topic in self.names(topic):
            if self.size(topic) == job.signals:
                return
            self.delete([topic])
        self.create(topic)
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "linger.ms": 50, "batch.size": 1_000_000, "acks": "all"}
        )
        for reading in readings(job):
            headers: list[tuple[str, str | bytes | None]] = [("ce_id", reading.id), ("ce_type", SIGNAL_TYPE)]
            while True:
                try:
                    producer.produce(topic, reading.encode(), reading.subject, reading.partition, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        if left := producer.flush(60):
            msg = f"{left} signals could not be loaded into {topic}"
            raise RuntimeError(msg)

    def size(self, topic: str) -> int:
        """How many records the topic holds."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench-size"})
        try:
            marks = [consumer.get_watermark_offsets(TopicPartition(topic, number)) for number in range(PARTITIONS)]
        finally:
            consumer.close()
        return sum(high - low for low, high in marks)

    def _wait_until(self, holds: Callable[[set[str]], bool]) -> None:
        deadline = time.monotonic() + _ADMIN_TIMEOUT_S
        while not holds(set(self._admin.list_topics(timeout=_ADMIN_TIMEOUT_S).topics)):
            if time.monotonic() > deadline:
                msg = "the broker did not carry out the change of topics in time"
                raise RuntimeError(msg)
            time.sleep(0.05)
