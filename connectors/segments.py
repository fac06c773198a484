"""Files that hold the bulk of agent state: one directory per key group, append-only, named by the run that wrote them.

The engine's own recovery data holds only the list of pieces (`Piece`) that make up a group's state, so an epoch costs
what was touched in it, however many agents there are. A piece is never changed once written; a run never appends to a
file of another run. What is written survives the death of the process at once, and of the machine when the operating
system has written it out, like a Kafka log. Every piece is checked when it is read back.
"""

import os
import uuid
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from signalbox.errors import StateDamaged


class Piece(msgspec.Struct, array_like=True, frozen=True):
    """Where some bytes lie: file name, offset, length in bytes, CRC-32."""

    file: str
    offset: int
    length: int
    crc: int


class GroupSnapshot(msgspec.Struct, array_like=True):
    """What the engine keeps of a key group: the pieces that make up its state, oldest first."""

    version: int
    key: str
    pieces: list[Piece]


decode_snapshot = msgspec.msgpack.Decoder(GroupSnapshot).decode


class SegmentStore:
    """The segment files of one worker's groups, under one directory that all workers of a node share.

    Args:
        directory: of the files.
        on_damage: told of damage before it is raised. When one of several workers fails, its peers' end may take it
            down before its exception gets anywhere.
    """

    def __init__(self, directory: Path, on_damage: Callable[[str], None] = lambda _: None) -> None:
        self._directory = directory
        self._on_damage = on_damage
        self._run = uuid.uuid4().hex[:12]
        self._files: dict[str, int] = {}

    def append(self, group: str, payload: bytes, *, fresh: bool) -> Piece:
        """Write `payload` for a group, in a new file if `fresh`; returns where it lies."""
        sequence = self._files.get(group, 0) + (1 if fresh or group not in self._files else 0)
        self._files[group] = sequence
        folder = self._directory / group
        if sequence == 1:
            folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._run}-{sequence}.seg"
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            offset = os.lseek(descriptor, 0, os.SEEK_END)
            view = memoryview(payload)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        return Piece(name, offset, len(payload), zlib.crc32(payload))

    def read(self, group: str, piece: Piece) -> bytes:
        """The bytes of a piece.

        Raises:
            StateDamaged: the file is gone, too short, or its bytes are not those written.
        """
        path = self._directory / group / piece.file
        try:
            with path.open("rb") as file:
                file.seek(piece.offset)
                payload = file.read(piece.length)
        except OSError as error:
            raise self._damaged(path, f"cannot be read: {error.strerror}") from error
        if len(payload) != piece.length or zlib.crc32(payload) != piece.crc:
            raise self._damaged(path, f"is not as it was written at {piece.offset} for {piece.length} bytes")
        return payload

    def forget_others(self, group: str, keep: Iterable[Piece]) -> None:
        """Delete the files of a group that hold none of the pieces in `keep`."""
        wanted = {piece.file for piece in keep}
        for path in (self._directory / group).glob("*.seg"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def _damaged(self, path: Path, what: str) -> StateDamaged:
        error = StateDamaged(
            f"saved agent state {path} {what}", hint="the next start goes back to the newest sound copy"
        )
        self._on_damage(str(error))
        return error
