"""Whether a recovery directory, or a copy of one, is as it was written.

A quick check reads the engine's store and looks whether each file that it names is there and long enough; a thorough
one reads every byte that counts. What a quick check passes over, the worker that reads it meets (`SegmentStore.read`).
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from connectors.recovery import engine
from connectors.recovery.beginnings import ORIGINS, ORIGINS_LOST, beginnings
from connectors.recovery.engine import EngineDamaged, EngineState
from connectors.recovery.wal import log_damage
from connectors.segments import Piece
from signalbox.durable import Unreadable, read_document
from signalbox.ports import Damage

ENGINE, SEGMENTS, SEAL = "engine", "segments", "sealed.json"
#: The engine's store and its log. The log's index beside them is made again by whoever opens them first.
ENGINE_FILES = tuple(f"{ENGINE}/{engine.FILE}{suffix}" for suffix in ("", "-wal"))
_POSITIONS = "all positions in input and output, and which pieces of saved state count"


class Seal(msgspec.Struct):
    """SHA-256 of the engine's files at rest, by relative path; None for one that is missing or empty."""

    files: dict[str, str | None]


def check(directory: Path, *, thorough: bool, running: bool = False) -> tuple[EngineState, list[Damage]]:
    """What the directory holds, and everything that is wrong with it. Nothing in it is changed.

    Args:
        directory: of one flow, or a copy of it.
        thorough: read all saved state.
        running: workers may write there meanwhile, so what changes all the time is not checked.
    """
    found, damages = beginnings(directory)
    store = directory / ENGINE / engine.FILE
    if not store.exists():
        if _was_used(directory):
            damages.append(_engine_damage("", "it is missing"))
        return EngineState(), damages
    sealed = False
    if not running:
        sealed, broken = _seal_damage(directory)
        if not sealed and (what := log_damage(store)):
            broken = [_engine_damage("-wal", what)]
        if broken:
            return EngineState(), [*damages, *broken]
    try:
        state = _read(store.parent, thorough=thorough or not sealed, running=running)
    except EngineDamaged as error:
        return EngineState(), [*damages, _engine_damage("", str(error))]
    if state.executions and ORIGINS not in found and not damages:
        damages.append(Damage(file=ORIGINS, what="it is missing", lost=ORIGINS_LOST))
    return state, [*damages, *_pieces_damage(directory, state, thorough=thorough)]


def files_needed(state: EngineState) -> dict[str, list[Piece]]:
    """The pieces that count, by the path of their file relative to the recovery directory."""
    needed: dict[str, list[Piece]] = defaultdict(list)
    for group, pieces in state.groups.items():
        for piece in pieces:
            needed[f"{SEGMENTS}/{group}/{piece.file}"].append(piece)
    return needed


def bad_piece(content: bytes, pieces: Iterable[Piece]) -> Piece | None:
    """The first of the pieces that is not in the content of its file as it was written."""
    view = memoryview(content)
    for piece in pieces:
        part = view[piece.offset : piece.offset + piece.length]
        if len(part) != piece.length or zlib.crc32(part) != piece.crc:
            return piece
    return None


def piece_damage(file: str, piece: Piece) -> Damage:
    """The damage of a piece that is not as it was written."""
    what = f"it is not as it was written at {piece.offset} for {piece.length} bytes"
    return Damage(file=file, what=what, lost=_state_of(file))


def seal_of(directory: Path) -> Seal:
    """Of the directory as it is now."""
    return Seal({name: _sha256(directory / name) for name in ENGINE_FILES})


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            # SQLite makes an empty log when it is only looked at.
            return hashlib.file_digest(file, "sha256").hexdigest() if os.fstat(file.fileno()).st_size else None
    except FileNotFoundError:
        return None


def _read(store: Path, *, thorough: bool, running: bool) -> EngineState:
    """Read the engine's store; at rest from a copy of it, for SQLite rewrites the shared index of what it opens.

    That index is what shows that a log was cut off, and a second look must find it as the first did.
    """
    if running:
        return engine.read_state(store, thorough=thorough)
    with tempfile.TemporaryDirectory(prefix="signalbox-") as scratch:
        for name in ENGINE_FILES:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(store.parent / name, Path(scratch, Path(name).name))
        return engine.read_state(Path(scratch), thorough=thorough)


def _was_used(directory: Path) -> bool:
    """Whether something says that there was an engine's store."""
    return any(next((directory / name).glob("*"), None) for name in (SEGMENTS, "copies"))


def _seal_damage(directory: Path) -> tuple[bool, list[Damage]]:
    """Whether there is a seal to go by, and what differs from it."""
    try:
        seal = read_document(directory / SEAL, Seal)
    except Unreadable:
        return False, []  # of no consequence: then everything is looked at without its help
    found = seal_of(directory).files
    changed = [name for name, digest in seal.files.items() if found.get(name) != digest]
    return True, [
        _engine_damage(
            name.removeprefix(f"{ENGINE}/{engine.FILE}"),
            "it is not as it was when the last worker ended" if found.get(name) else "it is missing",
        )
        for name in changed
    ]


def _pieces_damage(directory: Path, state: EngineState, *, thorough: bool) -> Iterator[Damage]:
    for name, pieces in files_needed(state).items():
        end = max(piece.offset + piece.length for piece in pieces)
        try:
            if thorough:
                bad = bad_piece((directory / name).read_bytes(), pieces)
                if bad is not None:
                    yield piece_damage(name, bad)
            elif (size := (directory / name).stat().st_size) < end:
                yield Damage(file=name, what=f"it has {size} of {end} bytes", lost=_state_of(name))
        except OSError as error:
            what = "it is missing" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror}"
            yield Damage(file=name, what=what, lost=_state_of(name))


def _state_of(file: str) -> str:
    return f"state of agents of key group {file.split('/')[1]}"


def _engine_damage(suffix: str, what: str) -> Damage:
    return Damage(file=f"{ENGINE}/{engine.FILE}{suffix}", what=what, lost=_POSITIONS)
