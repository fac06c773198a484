"""Which partition a key belongs to, as Java clients and `murmur2_random` of librdkafka decide it.

The sink must know the partition before it produces, because each partition has one writer.
"""

from collections.abc import Mapping

from connectors.kafka.parts import part_name

_REMEMBERED = 100_000
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


class Placement:
    """Places keys on partitions.

    Args:
        partitions: topic without prefix -> its number of partitions.
    """

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self._names = {topic: [part_name(topic, part) for part in range(count)] for topic, count in partitions.items()}
        self._hashes: dict[str, int] = {}

    def part(self, topic: str, key: str) -> str:
        """The engine's name of the partition for a key."""
        value = self._hashes.get(key)
        if value is None:
            if len(self._hashes) >= _REMEMBERED:
                self._hashes.clear()
            value = self._hashes[key] = murmur2(key.encode()) & 0x7FFFFFFF
        names = self._names[topic]
        return names[value % len(names)]

    def all_parts(self) -> list[str]:
        """Every partition of every topic."""
        return [name for names in self._names.values() for name in names]


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 with Kafka's seed, as in org.apache.kafka.common.utils.Utils.murmur2, unsigned."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = (int.from_bytes(data[i : i + 4], "little") * _M) & _MASK
        k ^= k >> 24
        h = ((h * _M) & _MASK) ^ ((k * _M) & _MASK)
    if rest := data[whole:]:
        h = ((h ^ int.from_bytes(rest, "little")) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)
