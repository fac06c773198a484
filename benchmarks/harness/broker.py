"""One Apache Kafka for a whole measurement: a given one, or a local one that ends with it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors.brokers.jars import KAFKA_VERSION
from signalbox import plugins


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and what it is."""

    bootstrap: str
    kind: str


@contextmanager
def apache_kafka(bootstrap: str | None) -> Iterator[Broker]:
    """The broker at `bootstrap`, else a local Apache Kafka in a directory that is removed at the end."""
    if bootstrap is not None:
        yield Broker(bootstrap, f"at {bootstrap}")
        return
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as directory:
        local = plugins.local_broker("kafka", Path(directory))
        try:
            yield Broker(local.start(), f"Apache Kafka {KAFKA_VERSION}, local, one node")
        finally:
            local.stop()
