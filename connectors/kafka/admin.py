"""Asks and arranges things at the broker: topics, their ends, and how far behind a flow is.

Every call is bounded in time and raises `Unreachable` when no broker answers. It may be shared between threads.
"""

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library re-exports without saying so
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    TopicMetadata,
)

from connectors.kafka.client import CALL_TIMEOUT_S, MAX_RECORD_BYTES, LastError, client_config, translating
from connectors.kafka.offsets import Partition, end_offsets
from signalbox.config import REGISTRY_TOPIC, KafkaSettings
from signalbox.errors import NotFound, Unreachable
from signalbox.ports import PartitionLag, TopicInfo

#: What a topic takes at least on any broker we know of; used where the broker does not say.
DEFAULT_MESSAGE_BYTES = 1_000_000
_DOES_NOT_SAY = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)
_INTERNAL_PREFIX = "__"
_TOPIC_CONFIG: Mapping[str, Mapping[str, str]] = {
    # Heartbeats pile up until they are compacted, which happens to closed segments only: hourly then, not weekly.
    REGISTRY_TOPIC: {"cleanup.policy": "compact", "segment.ms": "3600000"},
    "dead-letters": {"max.message.bytes": str(MAX_RECORD_BYTES)},
}


class KafkaAdmin:
    """See `signalbox.ports.Admin`. Topic names are those of the broker, prefix included."""

    def __init__(self, settings: KafkaSettings, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """`timeout_s` bounds each question to the broker; a call asks one to three.

        Raises:
            ConfigError: `kafka.client` is wrong.
        """
        self._settings = settings
        self._timeout_s = timeout_s
        self._last_error = LastError()
        with translating(settings, "make a Kafka client"):
            self._client = AdminClient(client_config(settings, error_cb=self._last_error.note))

    def cluster_id(self) -> str:
        return self._metadata().cluster_id or ""

    def topics(self) -> list[TopicInfo]:
        """See `Admin`. Internal topics are those whose names begin with two underscores."""
        known = {
            name: sorted(topic.partitions)
            for name, topic in sorted(self._metadata().topics.items())
            if not name.startswith(_INTERNAL_PREFIX)
        }
        ends = self._ends([(name, partition) for name, partitions in known.items() for partition in partitions])
        return [
            TopicInfo(
                name=name,
                partitions=len(partitions),
                end_offsets={partition: ends[name, partition] for partition in partitions},
            )
            for name, partitions in known.items()
        ]

    def ensure_topics(self, names: Sequence[str], *, partitions: int, replication: int) -> list[str]:
        """See `Admin`. Returns when the new topics can be used.

        `registry` is compacted and `dead-letters` takes large records, whatever `kafka.topic_prefix` they carry.

        Raises:
            ConfigError: the broker does not allow such topics.
        """
        present = self._metadata().topics
        missing = [name for name in dict.fromkeys(names) if name not in present]
        if not missing:
            return []
        new = [
            NewTopic(
                name,
                num_partitions=partitions,
                replication_factor=replication,
                config=dict(_TOPIC_CONFIG.get(name.removeprefix(self._settings.topic_prefix), {})),
            )
            for name in missing
        ]
        created = []
        for name, future in self._client.create_topics(new, request_timeout=self._timeout_s).items():
            with translating(self._settings, f"create topic {name!r}", self._last_error):
                try:
                    future.result()
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
                else:
                    created.append(name)
        self._await_topics(missing)
        return created

    def lag(self, group: str, topics: Sequence[str]) -> list[PartitionLag]:
        """See `Admin`.

        Raises:
            NotFound: there is no such topic.
        """
        partitions = self._partitions(topics)
        if not partitions:
            return []
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in partitions])
        with translating(self._settings, f"ask for the positions of group {group!r}", self._last_error):
            futures = self._client.list_consumer_group_offsets([asked], request_timeout=self._timeout_s)
            answers = futures[group].result().topic_partitions or []
        positions = {(answer.topic, answer.partition): answer.offset for answer in answers if answer.offset >= 0}
        ends = self._ends(partitions)
        return [
            PartitionLag(topic=place[0], partition=place[1], position=positions.get(place), end=ends[place])
            for place in partitions
        ]

    def max_message_bytes(self, topics: Sequence[str]) -> dict[str, int]:
        """The largest record that each topic takes, in bytes; `DEFAULT_MESSAGE_BYTES` where the broker does not say."""
        told = self._settings_of(topics, "max.message.bytes")
        return {name: int(value) if value else DEFAULT_MESSAGE_BYTES for name, value in told.items()}

    def topic_setting(self, name: str, setting: str) -> str | None:
        """See `Admin`."""
        return self._settings_of([name], setting)[name]

    def _settings_of(self, topics: Sequence[str], setting: str) -> dict[str, str | None]:
        """One setting of each topic; None where the broker does not say."""
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in topics]
        values: dict[str, str | None] = dict.fromkeys(topics)
        if not resources:
            return values
        for resource, future in self._client.describe_configs(resources, request_timeout=self._timeout_s).items():
            with translating(self._settings, f"read the settings of topic {resource.name!r}", self._last_error):
                try:
                    entry = future.result().get(setting)
                except KafkaException as error:
                    if error.args[0].code() not in _DOES_NOT_SAY:
                        raise
                    continue
            values[resource.name] = entry.value if entry is not None else None
        return values

    def _metadata(self) -> ClusterMetadata:
        # Always for all topics: the embedded broker creates one that is asked for by name.
        with translating(self._settings, "list the topics", self._last_error):
            try:
                return self._client.list_topics(timeout=self._timeout_s)
            finally:
                self._client.poll(0)

    def _partitions(self, topics: Sequence[str]) -> list[Partition]:
        known = self._metadata().topics
        for name in topics:
            if name not in known:
                msg = f"there is no topic {name!r} at {self._settings.bootstrap}"
                raise NotFound(msg, hint="`signalbox topic list` shows the topics there are")
        return [(name, partition) for name in topics for partition in sorted(known[name].partitions)]

    def _ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return end_offsets(self._settings, partitions, timeout_s=self._timeout_s)

    def _await_topics(self, names: Sequence[str]) -> None:
        """Wait until the metadata know the topics, and then until the leaders of their partitions know it too."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            known = self._metadata().topics
            waiting = [name for name in names if not _usable(known.get(name))]
            if not waiting:
                self._ends([(name, partition) for name in names for partition in known[name].partitions])
                return
            if time.monotonic() > deadline:
                msg = f"topics were created but cannot be used yet: {', '.join(waiting)}"
                raise Unreachable(msg, hint="is every broker of the cluster up?")
            time.sleep(0.02)


def _usable(topic: TopicMetadata | None) -> bool:
    return topic is not None and all(partition.leader >= 0 for partition in topic.partitions.values())
