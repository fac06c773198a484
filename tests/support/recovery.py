"""Recovery directories as a worker leaves them, without a worker: the engine's schema, and rows as it writes them."""

import pickle
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
from bytewax.recovery import init_db_dir

from connectors.recovery import engine
from connectors.recovery.beginnings import Origins, write_beginnings
from connectors.segments import GroupSnapshot, Piece, SegmentStore

GROUPS = 6
INPUTS = ("signals-0", "signals-1")
#: As flows keep files that are no longer named.
_KEEP_SNAPSHOTS = 3
OUTPUTS = ("results-0", "results-1")


class FakeRun:
    """One execution of a flow that touches a few of its groups in each epoch."""

    def __init__(self, directory: Path, *, groups: int = GROUPS, piece_bytes: int = 100) -> None:
        self.directory = directory
        self._piece_bytes = piece_bytes
        self._groups = [str(number) for number in range(groups)]
        self._store = SegmentStore(directory / "segments")
        if not (directory / "engine").exists():
            (directory / "engine").mkdir(parents=True)
            init_db_dir(directory / "engine", 1)
            origins = Origins("a-cluster", dict.fromkeys(INPUTS, 0), dict.fromkeys(OUTPUTS, 0))
            write_beginnings(directory, {"origins.json": origins, "pools.json": {"task_agent": 5}})
        before = engine.read_state(directory / "engine", thorough=False)
        self._number = before.executions
        self.epoch = max(1, before.epoch)
        self._pieces: dict[str, list[Piece]] = dict(before.groups)
        self._named = [self._pieces]
        self._database = sqlite3.connect(directory / "engine" / engine.FILE)
        self._database.execute("PRAGMA synchronous = OFF")
        self._write("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (?, 1, ?)", self._number, self.epoch)

    def epochs(self, count: int) -> None:
        """Complete so many epochs. Every third begins new files, and removes those that nothing names any more."""
        for _ in range(count):
            for index, group in enumerate(self._groups):
                if (self.epoch + index) % 2 == 0:
                    self._touch(group, fresh=self.epoch % 3 == 0)
            for part in INPUTS:
                self._snap("agents.inputs", part, self.epoch * 10)
            for part in OUTPUTS:
                self._snap("agents.write", part, self.epoch * 7)
            self.epoch += 1
            self._write(
                "INSERT OR REPLACE INTO fronts (ex_num, worker_index, worker_frontier) VALUES (?, 0, ?)",
                self._number,
                self.epoch,
            )
            self._write("INSERT OR REPLACE INTO commits (part_index, commit_epoch) VALUES (0, ?)", self.epoch - 1)
            self._write(
                """DELETE FROM snaps WHERE (step_id, state_key, snap_epoch) NOT IN
                   (SELECT step_id, state_key, MAX(snap_epoch) FROM snaps GROUP BY step_id, state_key)"""
            )
            self._named = [*self._named[-_KEEP_SNAPSHOTS:], dict(self._pieces)]
            for group in self._pieces:
                self._store.forget_others(group, [piece for named in self._named for piece in named.get(group, ())])

    def drain(self) -> None:
        """End in order."""
        self._database.close()

    def kill(self) -> None:
        """Leave the files as they are now, the engine's log among them."""
        store = self.directory / "engine"
        shutil.copytree(store, store.with_name("engine.killed"))
        self._database.close()
        shutil.rmtree(store)
        store.with_name("engine.killed").rename(store)

    def _touch(self, group: str, *, fresh: bool) -> None:
        payload = f"{group}:{self.epoch}:".encode().ljust(self._piece_bytes, b"x")
        piece = self._store.append(group, payload, fresh=fresh)
        self._pieces[group] = [piece] if fresh else [*self._pieces.get(group, []), piece]
        self._snap("agents.agents", group, msgspec.msgpack.encode(GroupSnapshot(1, group, self._pieces[group])))

    def _snap(self, step: str, key: str, state: bytes | int) -> None:
        self._write(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)",
            step,
            key,
            self.epoch,
            pickle.dumps(state, protocol=4),
        )

    def _write(self, statement: str, *values: object) -> None:
        with self._database:
            self._database.execute(statement, values)


def content(directory: Path) -> object:
    """What a start would resume from, down to the bytes of each group's state."""
    state = engine.read_state(directory / "engine", thorough=True)
    store = SegmentStore(directory / "segments")
    bytes_of = {group: [store.read(group, piece) for piece in pieces] for group, pieces in state.groups.items()}
    return state.epoch, state.inputs, state.outputs, bytes_of


def flip(path: Path, rng: Random) -> None:
    """Change one bit."""
    before = bytearray(path.read_bytes())
    before[rng.randrange(len(before))] ^= 1 << rng.randrange(8)
    path.write_bytes(before)


def truncate(path: Path, rng: Random) -> None:
    """Cut off the end."""
    before = path.read_bytes()
    path.write_bytes(before[: rng.randrange(len(before))])


def delete(path: Path, rng: Random) -> None:
    """Remove it."""
    path.unlink()


MISFORTUNES: tuple[Callable[[Path, Random], None], ...] = (flip, truncate, delete)

#: Where damage matters most, it is made most often.
_WEIGHTS = {"engine": 6, "segments": 6, "copies": 2}


def damage(directory: Path, rng: Random) -> str:
    """Flip, cut or delete one file of all those in a recovery directory; returns of which kind it was."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(directory.rglob("*")):
        kind = path.relative_to(directory).parts[0]
        if path.is_file() and path.stat().st_size and not kind.startswith("damaged-"):
            kinds[kind].append(path)
    kind = rng.choices(list(kinds), [_WEIGHTS.get(kind, 1) for kind in kinds])[0]
    path, misfortune = rng.choice(kinds[kind]), rng.choice(MISFORTUNES)
    print(f"{misfortune.__name__} {path.relative_to(directory)}", flush=True)
    misfortune(path, rng)
    return kind
