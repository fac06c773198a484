"""How a topic partition is called in the engine."""


def part_name(topic: str, partition: int) -> str:
    """The engine's name of a topic partition."""
    return f"{topic}-{partition}"


def split_part(name: str) -> tuple[str, int]:
    """Topic and partition of an engine partition's name."""
    topic, _, partition = name.rpartition("-")
    return topic, int(partition)
