"""Apache Kafka as a process: what survives a kill, and who may start it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from connectors.brokers.apache import ApacheKafka
from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.publisher import KafkaPublisher
from connectors.kafka.reader import KafkaReader
from schemas.signal import decode, new_signal
from signalbox.config import KafkaSettings
from signalbox.errors import Conflict
from tests.support.eventually import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOPIC = "things"


def publish(settings: KafkaSettings, *ids: str) -> None:
    publisher = KafkaPublisher(settings)
    for id in ids:
        publisher.publish(TOPIC, new_signal("demo.tick", source="test", id=id))
    publisher.flush(20)
    publisher.close()


def read_ids(settings: KafkaSettings) -> list[str]:
    records = KafkaReader(settings).read([TOPIC], start="start", follow=False, timeout_s=20)
    return [decode(record.value).id for record in records]


def test_data_port_and_identity_survive_a_kill(own_kafka: ApacheKafka) -> None:
    """After SIGKILL and a restart the cluster, its port, its topics and every flushed signal are there again."""
    bootstrap = own_kafka.start()
    settings = KafkaSettings(bootstrap=bootstrap)
    admin = KafkaAdmin(settings)
    cluster = admin.cluster_id()
    admin.ensure_topics([TOPIC], partitions=2, replication=1)
    publish(settings, "before")
    stop = threading.Event()
    follower = KafkaReader(settings).read([TOPIC], start="now", follow=True, timeout_s=90, stop=stop.is_set)
    followed: list[str] = []
    following = threading.Thread(target=lambda: followed.extend(decode(record.value).id for record in follower))
    following.start()
    try:
        own_kafka.kill()
        assert not own_kafka.alive()
        assert own_kafka.start() == bootstrap
        assert admin.cluster_id() == cluster
        assert [(info.name, info.partitions) for info in admin.topics()] == [(TOPIC, 2)]
        publish(settings, "after")
        assert sorted(read_ids(settings)) == ["after", "before"]
        eventually(lambda: followed == ["after"], timeout_s=20)
    finally:
        stop.set()
        following.join(10)
    own_kafka.stop()
    assert own_kafka.start(port=int(bootstrap.rpartition(":")[2])) == bootstrap
    assert sorted(read_ids(settings)) == ["after", "before"]


def test_one_directory_has_one_broker(own_kafka: ApacheKafka, tmp_path: Path) -> None:
    """A second broker on the same directory is refused before it touches anything; another directory is free."""
    bootstrap = own_kafka.start()
    began = time.monotonic()
    with pytest.raises(Conflict, match="another broker uses"):
        ApacheKafka(tmp_path).start()
    assert time.monotonic() - began < 5
    other = ApacheKafka(tmp_path / "other")
    try:
        clusters = {KafkaAdmin(KafkaSettings(bootstrap=address)).cluster_id() for address in (bootstrap, other.start())}
        assert len(clusters) == 2
    finally:
        other.kill()
    assert own_kafka.alive()


@pytest.fixture
def foreground(own_kafka: ApacheKafka, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`python -m connectors.brokers.apache` on a directory of its own; `own_kafka` settles whether it can run."""
    command = [sys.executable, "-m", "connectors.brokers.apache", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as process:
        yield process
        process.kill()


def test_in_the_foreground_it_serves_until_it_is_told_to_end(foreground: "subprocess.Popen[str]") -> None:
    """The command prints its address, serves, and on SIGTERM ends with 0 and leaves no broker behind."""
    assert foreground.stdout
    word, bootstrap = foreground.stdout.readline().split()
    assert word == "kafka"
    assert KafkaAdmin(KafkaSettings(bootstrap=bootstrap)).cluster_id()
    (broker,) = psutil.Process(foreground.pid).children()
    foreground.send_signal(signal.SIGTERM)
    assert foreground.wait(20) == 0
    assert not broker.is_running()
