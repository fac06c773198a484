"""Going back to a copy survives a crash at each of its steps, and keeps what it replaces."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from connectors.recovery import fallback
from connectors.recovery.store import RecoveryStore
from tests.support.recovery import FakeRun, content, flip


class _Crash(BaseException):
    pass


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the process end in front of its n-th change of names in the file system, counted from now."""
    left = [0]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise _Crash
            return change(*arguments, **more)

        return instead

    for name in ("rename", "replace", "mkdir", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    yield lambda number: left.__setitem__(0, number)
    left[0] = 0


@pytest.mark.parametrize("what", ["engine/part-0.sqlite3", "segments"])
def test_each_step_can_be_the_last_of_a_start(tmp_path: Path, what: str, crash_at: Callable[[int], None]) -> None:
    """However far a start has come when it is killed, the next one has the copy in place and damaged files aside."""
    sound = tmp_path / "sound"
    run = FakeRun(sound, groups=2)
    run.epochs(6)
    store = RecoveryStore(sound)
    store.keep_copy(1)
    copied = content(sound)
    run.epochs(4)
    run.drain()
    shutil.rmtree(sound / what) if what == "segments" else flip_header(sound / what)
    crashes = 0
    for step in range(1, 200):
        directory = tmp_path / f"try-{step}"
        shutil.copytree(sound, directory)
        crash_at(step)
        try:
            RecoveryStore(directory).prepare()
        except _Crash:
            crashes += 1
        else:
            break
        finally:
            crash_at(0)
        prepared = RecoveryStore(directory).prepare()
        assert content(directory) == copied, step
        assert prepared.used in ("1-1", None), step
        (aside,) = fallback.set_aside(directory)
        assert (directory / aside / "engine" / "part-0.sqlite3").exists(), step
        assert not (directory / "falling-back.json").exists(), step
        assert not (directory / "restoring").exists(), step
        assert RecoveryStore(directory).prepare().damages == ()
        shutil.rmtree(directory)
    assert crashes > 10


def flip_header(path: Path) -> None:
    """Damage what SQLite knows a database by."""
    path.write_bytes(b"X" + path.read_bytes()[1:])


def test_what_was_set_aside_is_kept_but_not_for_ever(tmp_path: Path) -> None:
    """The last three damaged directories stay for a look into them; state among them is still its owner's alone."""
    store = RecoveryStore(tmp_path)
    for generation in range(1, 6):
        run = FakeRun(tmp_path)
        run.epochs(4)
        store.keep_copy(generation)
        run.drain()
        flip_header(tmp_path / "engine" / "part-0.sqlite3")
        assert store.prepare().used == f"{generation}-{generation}"
    assert len(store.report().set_aside) == 3
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.seg")}
    assert modes == {0o600}


def test_a_marked_directory_is_read_to_the_last_piece(tmp_path: Path) -> None:
    """A flipped byte of a piece passes a quick look; once a worker has met it, the next start finds it and mends it."""
    run = FakeRun(tmp_path)
    run.epochs(6)
    store = RecoveryStore(tmp_path)
    store.keep_copy(1)
    run.drain()
    flip(max((tmp_path / "segments").rglob("*.seg"), key=os.path.getsize), Random(7))
    assert store.prepare().damages == ()
    assert [damage.lost.rpartition(" ")[0] for damage in store.report().damages] == ["state of agents of key group"]
    store.suspect("a worker met it")
    assert store.prepare().used == "1-1"
    assert store.report().damages == ()
