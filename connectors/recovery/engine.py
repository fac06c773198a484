"""What the engine's own recovery store says: where it would resume, and from which positions and pieces of state.

The store is SQLite as Bytewax 0.21 writes it (`recovery.rs`): `exs` has a row per execution, `fronts` how far each of
its workers has got, `snaps` the state of every step and key by epoch. An execution resumes at the smallest frontier of
the last one, with the newest state before it. It is opened read-only, while the engine runs too. States are pickled;
they are never unpickled here: `_literals` only reads the numbers and bytes that stand in one.
"""

import pickletools
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from connectors.segments import GroupSnapshot, Piece, decode_snapshot

#: The one file of the store, in its directory.
FILE = "part-0.sqlite3"
#: The engine's sources run at most one epoch ahead of the last one that is complete.
_AHEAD = 2
_BUSY_S = 5.0
_STATES = """
    SELECT step_id, state_key, MAX(snap_epoch), ser_change FROM snaps WHERE snap_epoch < ? GROUP BY step_id, state_key
"""


class EngineDamaged(Exception):
    """The store cannot be read, or contradicts itself."""


@dataclass(slots=True, kw_only=True)
class EngineState:
    """Where an execution would resume."""

    executions: int = 0
    workers: int = 0
    epoch: int = 0
    inputs: dict[str, int] = field(default_factory=dict)
    """Offset of the next record, by input partition."""
    outputs: dict[str, int] = field(default_factory=dict)
    """Offset from which what was written is read back, by output partition."""
    groups: dict[str, list[Piece]] = field(default_factory=dict)
    """The pieces of saved state, oldest first, by key group."""


def read_state(directory: Path, *, thorough: bool) -> EngineState:
    """Read where an execution would resume.

    Args:
        directory: of the store; nothing in it is changed but SQLite's shared index.
        thorough: check every page and index of the file too.

    Raises:
        EngineDamaged: the file is no SQLite database, or is missing, damaged or contradictory.
    """
    try:
        with closing(_open(directory / FILE)) as connection:
            return _state(connection, thorough=thorough)
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise EngineDamaged(str(error)) from error


def copy_store(directory: Path, target: Path) -> None:
    """Copy the store as of one moment into the directory `target`. The engine may run, and is not held up.

    Raises:
        EngineDamaged: the file cannot be read as a database.
    """
    try:
        with closing(_open(directory / FILE)) as source, closing(sqlite3.connect(target / FILE)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise EngineDamaged(str(error)) from error


def _open(file: Path) -> sqlite3.Connection:
    if not file.is_file():
        msg = "it is missing"
        raise EngineDamaged(msg)
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)


def _state(connection: sqlite3.Connection, *, thorough: bool) -> EngineState:
    connection.execute("BEGIN")  # everything as of one moment
    if thorough and (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise EngineDamaged(found)
    if (parts := connection.execute("SELECT part_index, part_count FROM parts").fetchall()) != [(0, 1)]:
        msg = f"it should be the first of 1 parts, and says {parts}"
        raise EngineDamaged(msg)
    latest = connection.execute("SELECT ex_num, worker_count, resume_epoch FROM exs ORDER BY 1 DESC LIMIT 1").fetchone()
    if latest is None:
        return EngineState()
    number, workers, resumed = latest
    fronts = connection.execute("SELECT worker_frontier FROM fronts WHERE ex_num = ?", (number,)).fetchall()
    reached = [front for (front,) in fronts] + [resumed] * (workers - len(fronts))
    state = EngineState(executions=number + 1, workers=workers, epoch=min(reached))
    _check_epochs(connection, state.epoch)
    for step, key, _, change in connection.execute(_STATES, (state.epoch,)):
        if change is not None:
            _add(state, step, key, change)
    return state


def _check_epochs(connection: sqlite3.Connection, epoch: int) -> None:
    """Every epoch has a snapshot of each input; the committed one and the newest lie around the frontier."""
    (newest,) = connection.execute("SELECT MAX(snap_epoch) FROM snaps").fetchone()
    (committed,) = connection.execute("SELECT MAX(commit_epoch) FROM commits").fetchone()
    if newest is not None and not epoch - _AHEAD <= newest <= epoch + _AHEAD:
        msg = f"it resumes at epoch {epoch}, and its newest state is of epoch {newest}"
        raise EngineDamaged(msg)
    if committed is not None and committed > epoch:
        msg = f"it resumes at epoch {epoch}, before epoch {committed} that is committed"
        raise EngineDamaged(msg)


def _add(state: EngineState, step: str, key: str, change: bytes) -> None:
    match _literals(change):
        case [bytes() as encoded, *_]:
            state.groups[key] = _snapshot(key, encoded).pieces
        case [int() as position, *_]:
            (state.inputs if step.endswith(".inputs") else state.outputs)[key] = position
        case _:
            pass


def _snapshot(key: str, encoded: bytes) -> GroupSnapshot:
    try:
        snapshot = decode_snapshot(encoded)
    except msgspec.MsgspecError as error:
        msg = f"the list of pieces of group {key} is not as it was written: {error}"
        raise EngineDamaged(msg) from error
    if snapshot.key != key:
        msg = f"the list of pieces of group {key} says that it is of group {snapshot.key}"
        raise EngineDamaged(msg)
    return snapshot


def _literals(pickled: bytes) -> list[Any]:
    """The numbers and bytes in a pickle, in order; nothing is built or imported from it."""
    operations = pickletools.genops(pickled)
    return [
        argument
        for operation, argument, _ in operations
        if isinstance(argument, int | bytes) and operation.name not in ("PROTO", "FRAME")
    ]
