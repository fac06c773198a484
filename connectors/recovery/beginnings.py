"""The files that say how a data directory began, and their twins: `origins.json`, `pools.json`, and `*.backup.json`.

They are written a few times in a directory's life and what they said stays, so keeping them twice costs nothing, and a
single damaged file is mended from the other. What is in them is decided by `connectors.kafka.origins` and
`signalbox.agents.pools`.
"""

from pathlib import Path
from typing import Any

import msgspec

from signalbox.durable import Unreadable, read_document, read_twins, twin_of, write_twins
from signalbox.errors import StateDamaged
from signalbox.ports import Damage

ORIGINS = "origins.json"
_POOLS = "pools.json"


class Origins(msgspec.Struct):
    """The content of the one: the Kafka cluster that it is about, and offsets by partition name."""

    cluster_id: str
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}


ORIGINS_LOST = "the Kafka cluster it belongs to, and where partitions begin that have no position yet"
_KINDS: dict[str, tuple[Any, str]] = {
    ORIGINS: (Origins, ORIGINS_LOST),
    _POOLS: (dict[str, int], "the sizes that pools began with"),
}
FILES = tuple(str(file) for name in _KINDS for file in (name, twin_of(Path(name))))


def read_origins(directory: Path) -> Origins | None:
    """What the file or its twin says; None if there is neither.

    Raises:
        StateDamaged: neither can be read.
    """
    try:
        return read_twins(directory / ORIGINS, Origins)
    except Unreadable as error:
        msg = f"{directory / ORIGINS}: {error}, and its twin neither"
        raise StateDamaged(msg, hint="the next start goes back to the newest sound copy") from error


def write_origins(directory: Path, content: Origins) -> None:
    """Write the file and its twin."""
    write_twins(directory / ORIGINS, content)


def beginnings(directory: Path) -> tuple[dict[str, Any], list[Damage]]:
    """What can be read, by file name, and what is wrong with files and twins; neither being there is no damage."""
    found: dict[str, Any] = {}
    damages: list[Damage] = []
    for name, (kind, lost) in _KINDS.items():
        problems: dict[Path, str] = {}
        files = (directory / name, twin_of(directory / name))
        for file in files:
            try:
                found[name] = read_document(file, kind)
            except Unreadable as error:
                problems[file] = str(error)
        if any(file.exists() for file in files):
            gone = "nothing: its twin says the same" if name in found else lost
            damages += [Damage(file=file.name, what=what, lost=gone) for file, what in problems.items()]
    return found, damages


def write_beginnings(directory: Path, found: dict[str, Any]) -> None:
    """Write files and twins with what `beginnings` has found, elsewhere or here."""
    for name, content in found.items():
        write_twins(directory / name, content)
