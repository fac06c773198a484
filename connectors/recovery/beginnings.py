"""The file that says where a data directory began, and its twin: `origins.json` and `origins.backup.json`.

It is written a few times in a directory's life and never changes what it said, so keeping it twice costs nothing, and a
single damaged file is mended from the other. What is in it is decided by `connectors.kafka.origins`.
"""

from pathlib import Path

import msgspec

from connectors.durable import Unreadable, read_document, write_document
from signalbox.errors import StateDamaged
from signalbox.ports import Damage

ORIGINS, TWIN = "origins.json", "origins.backup.json"
LOST = "the Kafka cluster it belongs to, and where partitions begin that have no position yet"


class Origins(msgspec.Struct):
    """The file's content: the cluster it is about, and offsets by partition name."""

    cluster_id: str
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}


def read_origins(directory: Path) -> Origins | None:
    """What the file or its twin says; None if there is neither.

    Raises:
        StateDamaged: neither can be read.
    """
    found, damages = _look(directory)
    if found is None and any((directory / name).exists() for name in (ORIGINS, TWIN)):
        msg = "; ".join(f"{directory / damage.file}: {damage.what}" for damage in damages)
        raise StateDamaged(msg, hint="the next start goes back to the newest sound copy")
    return found


def write_origins(directory: Path, content: Origins) -> None:
    """Write the file and its twin."""
    for name in (ORIGINS, TWIN):
        write_document(directory / name, content)


def origins_damage(directory: Path) -> tuple[Origins | None, list[Damage]]:
    """What the file or its twin says, and what is wrong with either; neither being there is no damage."""
    found, damages = _look(directory)
    if found is None and not any((directory / name).exists() for name in (ORIGINS, TWIN)):
        return None, []
    return found, damages


def _look(directory: Path) -> tuple[Origins | None, list[Damage]]:
    found: Origins | None = None
    problems: dict[str, str] = {}
    for name in (ORIGINS, TWIN):
        try:
            found = read_document(directory / name, Origins)
        except Unreadable as error:
            problems[name] = str(error)
    lost = LOST if found is None else "nothing: its twin says the same"
    return found, [Damage(file=name, what=what, lost=lost) for name, what in problems.items()]
