"""Copies of a recovery directory: taken while the engine runs, and each with a manifest of what is in it.

A copy is what a crash at that moment would have resumed from. The engine's store is copied by SQLite. The pieces it
names are first linked, so that the running flow cannot remove them, and then replaced by bytes of the copy's own; each
is checked on its way, so a damaged one never gets into a copy. A copy appears under its name when all of it is on the
disk.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from connectors.recovery import checks, engine
from connectors.recovery.beginnings import beginnings, write_beginnings
from connectors.recovery.engine import EngineDamaged, EngineState
from connectors.segments import Piece
from signalbox.durable import Unreadable, read_document, sync_directory, write_document
from signalbox.errors import StateDamaged
from signalbox.ports import Damage, KeptCopy

DIRECTORY, MANIFEST = "copies", "manifest.json"
KEPT = 3
_UNFINISHED = ".unfinished"
#: A running flow removes pieces that no snapshot names any more. One that has just lost them is copied again, from
#: later on; only what was damaged before fails every time.
_ATTEMPTS = 10
_LOST = "this copy"


class Entry(msgspec.Struct, array_like=True):
    """A file of a copy."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """What is in a copy. `files` has every file but the manifest, by relative path."""

    generation: int
    sequence: int
    made_at: datetime
    epoch: int
    files: dict[str, Entry]


def keep_copy(directory: Path, generation: int) -> KeptCopy | None:
    """Copy what a start would resume from, and remove the oldest copies beyond `KEPT`; None if there is nothing yet.

    Raises:
        StateDamaged: what is to be copied is damaged already, or is removed faster than it can be copied.
    """
    if not (directory / checks.ENGINE / engine.FILE).exists():
        return None
    copies = directory / DIRECTORY
    copies.mkdir(exist_ok=True)
    scratch = copies / _UNFINISHED
    try:
        state = _link(directory, scratch)
        if not state.executions:
            return None
        write_beginnings(scratch, beginnings(directory)[0])
        for name, pieces in checks.files_needed(state).items():
            _own(scratch, name, pieces)
        manifest = Manifest(
            generation=generation,
            sequence=max((_sequence(name) for name in names(directory)), default=0) + 1,
            made_at=datetime.now(UTC),
            epoch=state.epoch,
            files={name: _entry(scratch / name) for name in _files(scratch)},
        )
        write_document(scratch / MANIFEST, manifest)
        final = copies / f"{generation}-{manifest.sequence}"
        sync_tree(scratch)
        scratch.rename(final)
        sync_directory(copies)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in names(directory)[KEPT:]:
        remove(copies / old)
    return described(final)


def names(directory: Path) -> list[str]:
    """The names of the copies, newest first."""
    found = [path.name for path in (directory / DIRECTORY).glob("*") if _sequence(path.name)]
    return sorted(found, key=_sequence, reverse=True)


def manifest_of(copy: Path) -> Manifest | None:
    """A copy's manifest; None if it cannot be read."""
    try:
        return read_document(copy / MANIFEST, Manifest)
    except Unreadable:
        return None


def damages_of(copy: Path) -> list[Damage]:
    """Everything that is wrong with a copy; reads all of it."""
    try:
        manifest = read_document(copy / MANIFEST, Manifest)
    except Unreadable as error:
        return [Damage(file=MANIFEST, what=str(error), lost=_LOST)]
    damages = [
        Damage(file=file, what=what, lost=_LOST)
        for file, entry in manifest.files.items()
        if (what := _difference(copy / file, entry))
    ]
    return damages or checks.check(copy, thorough=True)[1]


def described(copy: Path, damages: Sequence[Damage] = ()) -> KeptCopy:
    """What a copy is, as far as its manifest can be read."""
    manifest = manifest_of(copy)
    if manifest is None:
        return KeptCopy(name=copy.name, damages=tuple(damages))
    return KeptCopy(
        name=copy.name,
        generation=manifest.generation,
        made_at=manifest.made_at,
        epoch=manifest.epoch,
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
        damages=tuple(damages),
    )


def remove(path: Path) -> None:
    """Remove a copy, so that no half of it can be taken for one."""
    doomed = path.with_name(f".removed-{path.name}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _link(directory: Path, scratch: Path) -> EngineState:
    """Copy the engine's store as of one moment, and link the files of the pieces that it names."""
    for attempt in range(1, _ATTEMPTS + 1):
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / checks.ENGINE).mkdir(parents=True)
        (scratch / checks.SEGMENTS).mkdir()
        try:
            engine.copy_store(directory / checks.ENGINE, scratch / checks.ENGINE)
            state = engine.read_state(scratch / checks.ENGINE, thorough=True)
        except EngineDamaged as error:
            msg = f"{directory / checks.ENGINE / engine.FILE} cannot be copied: {error}"
            raise StateDamaged(msg, hint="the next start goes back to the newest sound copy") from error
        try:
            for name in checks.files_needed(state):
                (scratch / name).parent.mkdir(exist_ok=True)
                os.link(directory / name, scratch / name)
        except FileNotFoundError as error:
            if attempt == _ATTEMPTS:
                msg = f"{error.filename} is missing"
                raise StateDamaged(msg, hint="the next start goes back to the newest sound copy") from error
        else:
            return state
    raise AssertionError  # the last attempt has returned or raised


def _own(scratch: Path, name: str, pieces: list[Piece]) -> None:
    """Replace a linked file by bytes of the copy's own, as far as its pieces reach."""
    path = scratch / name
    end = max(piece.offset + piece.length for piece in pieces)
    with path.open("rb") as file:
        content = file.read(end)
    if (bad := checks.bad_piece(content, pieces)) is not None:
        damage = checks.piece_damage(name, bad)
        msg = f"{damage.file}: {damage.what}"
        raise StateDamaged(msg, hint="the next start goes back to the newest sound copy")
    path.unlink()
    with open(path, "xb", opener=_private) as file:
        file.write(content)


def _private(path: str, flags: int) -> int:
    """State may hold secrets: it is for its owner alone."""
    return os.open(path, flags, 0o600)


def _entry(path: Path) -> Entry:
    content = path.read_bytes()
    return Entry(len(content), hashlib.sha256(content).hexdigest())


def _difference(path: Path, entry: Entry) -> str | None:
    try:
        found = _entry(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if found == entry else "it is not as it was written"


def _files(directory: Path) -> list[str]:
    return [str(path.relative_to(directory)) for path in sorted(directory.rglob("*")) if path.is_file()]


def sync_tree(directory: Path) -> None:
    """Force a directory and all that is in it to the disk."""
    for name in _files(directory):
        with (directory / name).open("rb") as file:
            os.fsync(file.fileno())
    for path in (*directory.rglob("*"), directory):
        if path.is_dir():
            sync_directory(path)


def _sequence(name: str) -> int:
    generation, _, sequence = name.partition("-")
    return int(sequence) if generation.isdecimal() and sequence.isdecimal() else 0
