"""Where a data directory began: the offset of every topic partition when this system first saw it.

Until a partition has its first snapshot, this is where its input starts and where its output is read back from, so a
crash before that snapshot neither skips nor doubles anything. Recorded once per partition and never changed, and kept
twice, so that one damaged file costs nothing.
"""

import fcntl
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]  # re-exported without saying so

from connectors.kafka.client import CALL_TIMEOUT_S, client_config, translating
from connectors.kafka.parts import part_name
from connectors.recovery.beginnings import ORIGINS, Origins, read_origins, write_origins
from signalbox.config import KafkaSettings
from signalbox.errors import Conflict, NotFound, StateDamaged

Places = dict[tuple[str, int], int]
"""Topic without prefix and partition -> offset."""


def origins(
    directory: Path, settings: KafkaSettings, *, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[Places, Places]:
    """The starts of the inputs and of the outputs; those of partitions that are new are recorded now.

    Raises:
        Conflict: the directory belongs to another Kafka cluster.
        NotFound: a topic does not exist.
        Unreachable: no broker answers.
        StateDamaged: neither the file nor its twin can be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (
        closing(Consumer(client_config(settings, **{"group.id": "signalbox.origins"}))) as consumer,
        (directory / "origins.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        with translating(settings, "list the topics"):
            cluster = consumer.list_topics(timeout=CALL_TIMEOUT_S)
        partitions = _partitions(settings, cluster, {*inputs, *outputs})
        known = _known(directory, settings, cluster)
        before = msgspec.json.encode(known)
        reading_from_end = settings.start == "latest"
        starts = _record(consumer, settings, known.inputs, inputs, partitions, from_end=reading_from_end)
        ends = _record(consumer, settings, known.outputs, outputs, partitions, from_end=True)
        if msgspec.json.encode(known) != before or not (directory / ORIGINS).exists():
            write_origins(directory, known)
    return starts, ends


def _partitions(settings: KafkaSettings, cluster: ClusterMetadata, topics: set[str]) -> dict[str, int]:
    there = {name: len(topic.partitions) for name, topic in cluster.topics.items()}
    missing = sorted(settings.topic_prefix + topic for topic in topics if settings.topic_prefix + topic not in there)
    if missing:
        msg = f"there is no topic {', '.join(missing)} at {settings.bootstrap}"
        raise NotFound(msg, hint="`signalbox up` creates the topics that are missing")
    return {topic: there[settings.topic_prefix + topic] for topic in topics}


def _known(directory: Path, settings: KafkaSettings, cluster: ClusterMetadata) -> Origins:
    cluster_id = cluster.cluster_id or ""
    known = read_origins(directory)
    if known is None:
        if (directory / "segments").exists() or (directory / "copies").exists():
            msg = f"{directory / ORIGINS} is missing, and its twin too, though there is saved state"
            raise StateDamaged(msg, hint="the next start goes back to the newest sound copy")
        return Origins(cluster_id)
    if known.cluster_id != cluster_id:
        msg = f"{directory} belongs to Kafka cluster {known.cluster_id}; {settings.bootstrap} is cluster {cluster_id}"
        raise Conflict(msg, hint="give the broker that it was made with, or another --data-dir")
    return known


def _record(
    consumer: Consumer,
    settings: KafkaSettings,
    known: dict[str, int],
    topics: Sequence[str],
    partitions: dict[str, int],
    *,
    from_end: bool,
) -> Places:
    places: Places = {}
    for topic in topics:
        for partition in range(partitions[topic]):
            name = part_name(topic, partition)
            if name not in known:
                place = TopicPartition(settings.topic_prefix + topic, partition)
                with translating(settings, f"learn the ends of {place.topic}"):
                    low, high = consumer.get_watermark_offsets(place, timeout=CALL_TIMEOUT_S, cached=False)
                known[name] = high if from_end else low
            places[topic, partition] = known[name]
    return places
