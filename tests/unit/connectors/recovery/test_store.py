"""A recovery directory under any single damage: what counts is as before, or as in the newest sound copy."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import pytest

from connectors.recovery.store import RecoveryStore
from signalbox.errors import Conflict, StateDamaged
from tests.support.recovery import MISFORTUNES, FakeRun, content, delete, flip, truncate

SEED = 20_260_101
Misfortune = Callable[[Path, Random], None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the tests' recovery directory is; nothing is there yet."""
    return tmp_path / "recovery"


def _with_copy(directory: Path, *, sealed: bool = True) -> tuple[object, object]:
    """A directory with one copy and some epochs since; returns what the copy holds and what the directory holds."""
    store = RecoveryStore(directory)
    run = FakeRun(directory)
    run.epochs(8)
    store.keep_copy(1)
    copied = content(directory)
    run.epochs(5)
    if sealed:
        run.drain()
        store.seal()
    else:
        run.kill()
    return copied, content(directory) if sealed else None


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_sound_directory_stays_as_it_is(directory: Path) -> None:
    """A start that finds nothing wrong changes nothing that counts, and neither does the next process of it."""
    _, last = _with_copy(directory)
    store = RecoveryStore(directory)
    assert (store.prepare().damages, store.prepare().damages) == ((), ())
    assert content(directory) == last
    assert store.report().set_aside == ()


def test_a_new_directory_is_no_damage(directory: Path) -> None:
    """The first start of all has nothing to check, to seal or to copy."""
    store = RecoveryStore(directory)
    store.seal()
    assert store.keep_copy(1) is None
    assert store.prepare().damages == ()
    assert store.keep_copy(1) is None


@pytest.mark.parametrize("misfortune", MISFORTUNES)
@pytest.mark.parametrize("round", range(4))
def test_any_damage_of_one_file_at_rest_is_mended(directory: Path, misfortune: Misfortune, round: int) -> None:
    """Whichever file is flipped, cut or deleted: a start resumes from what was, or from the copy, and says which."""
    copied, last = _with_copy(directory)
    rng = Random(SEED + round)
    files = _files(directory)
    for path in rng.sample(files, 4):
        twin = directory.with_name("twin")
        shutil.copytree(directory, twin)
        misfortune(twin / path.relative_to(directory), rng)
        store = RecoveryStore(twin)
        store.suspect("so that the pieces are read too, as a worker would")
        prepared = store.prepare()
        assert content(twin) == (copied if prepared.damages else last), (path, prepared)
        assert store.report().damages == (), path

        shutil.rmtree(twin)


@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_any_damage_after_a_kill_is_mended(directory: Path, misfortune: Misfortune) -> None:
    """When nobody could seal it, the engine's log and its index tell of damage; older state is not taken for new."""
    copied, _ = _with_copy(directory, sealed=False)
    twin = directory.with_name("twin")
    shutil.copytree(directory, twin)
    last = content(twin)
    shutil.rmtree(twin)
    rng = Random(SEED)
    for path in [path for path in _files(directory / "engine") for _ in range(3)]:
        shutil.copytree(directory, twin)
        misfortune(twin / path.relative_to(directory), rng)
        prepared = RecoveryStore(twin).prepare()
        assert content(twin) == (copied if prepared.damages else last), (path, prepared)
        shutil.rmtree(twin)


def test_a_log_that_was_cut_off_is_still_noticed_after_somebody_looked(directory: Path) -> None:
    """A report changes nothing by which the next start tells how long the engine's log was."""
    copied, _ = _with_copy(directory, sealed=False)
    log = directory / "engine" / "part-0.sqlite3-wal"
    frames = log.read_bytes()
    log.write_bytes(frames[: 32 + 4120 * (len(frames) // 4120 // 2)])
    store = RecoveryStore(directory)
    for _ in range(2):
        assert [damage.file for damage in store.report().damages] == ["engine/part-0.sqlite3-wal"]
    assert store.prepare().used == "1-1"
    assert content(directory) == copied


def test_damaged_copies_are_passed_over(directory: Path) -> None:
    """The newest copy that is sound is used; newer ones that are not are set aside with the rest."""
    store = RecoveryStore(directory)
    run, rng = FakeRun(directory), Random(SEED)
    contents = []
    for generation in (1, 2, 3, 4):
        run.epochs(4)
        store.keep_copy(generation)
        contents.append(content(directory))
    run.drain()
    assert [copy.name for copy in store.report().copies] == ["4-4", "3-3", "2-2"]
    flip(directory / "copies" / "4-4" / "engine" / "part-0.sqlite3", rng)
    truncate(directory / "copies" / "3-3" / "manifest.json", rng)
    assert [bool(copy.damages) for copy in store.report().copies] == [True, True, False]
    delete(directory / "engine" / "part-0.sqlite3", rng)
    prepared = store.prepare()
    assert prepared.used == "2-2"
    assert content(directory) == contents[1]
    assert prepared.aside is not None
    assert {path.name for path in (directory / prepared.aside).iterdir()} >= {"4-4", "3-3", "segments", "why.json"}
    assert store.prepare().damages == ()


def test_without_a_copy_yet_all_is_made_again_from_the_beginning(directory: Path) -> None:
    """Damage before the first copy leaves the known beginnings of input and output, and sets the rest aside."""
    run = FakeRun(directory)
    run.epochs(3)
    run.drain()
    delete(directory / "engine" / "part-0.sqlite3", Random(SEED))
    store = RecoveryStore(directory)
    assert store.prepare().used == "beginning"
    assert sorted(path.name for path in directory.glob("origins*")) == ["origins.backup.json", "origins.json"]
    assert sorted(path.name for path in directory.glob("pools*")) == ["pools.backup.json", "pools.json"]
    assert not (directory / "engine").exists()
    assert not (directory / "segments").exists()
    assert store.prepare().damages == ()


def test_when_nothing_is_sound_it_says_what_is_lost_and_how_to_go_on(directory: Path) -> None:
    """With every copy damaged too, nothing is changed, and the error names files, losses and commands that work."""
    _with_copy(directory)
    rng = Random(SEED)
    flip(directory / "copies" / "1-1" / "engine" / "part-0.sqlite3", rng)
    truncate(directory / "engine" / "part-0.sqlite3", rng)
    store = RecoveryStore(directory)
    before = _files(directory)
    for _ in range(2):
        with pytest.raises(StateDamaged, match=r"engine/part-0\.sqlite3: .*Lost: all positions") as caught:
            store.prepare()
    assert [path for path in _files(directory) if "checked" not in path.name] == before
    assert f"mv {directory} {directory}.lost" in (caught.value.hint or "")
    lost = directory.with_name("recovery.lost")
    lost.mkdir()
    for name in ("engine", "segments", "copies"):
        (directory / name).rename(lost / name)
    assert store.prepare().damages == ()


def test_one_of_the_twins_is_mended_from_the_other(directory: Path) -> None:
    """A damaged file of beginnings costs nothing: no copy is needed for it."""
    _, last = _with_copy(directory)
    for kind, misfortune in product(("origins", "pools"), MISFORTUNES):
        before = (directory / f"{kind}.json").read_bytes()
        for name in (f"{kind}.json", f"{kind}.backup.json"):
            misfortune(directory / name, Random(SEED))
            assert [damage.file for damage in RecoveryStore(directory).report().damages] == [name]
            assert RecoveryStore(directory).prepare().damages == ()
            assert (directory / name).read_bytes() == before
    assert content(directory) == last


def test_an_engine_behind_its_copy_is_damage(directory: Path) -> None:
    """Files of an earlier time, though sound in themselves, are not gone on from when a copy knows better."""
    store = RecoveryStore(directory)
    run = FakeRun(directory)
    run.epochs(4)
    run.drain()
    shutil.copytree(directory / "engine", directory.with_name("old"))
    run = FakeRun(directory)
    run.epochs(4)
    store.keep_copy(1)
    copied = content(directory)
    run.drain()
    shutil.rmtree(directory / "engine")
    directory.with_name("old").rename(directory / "engine")
    assert store.prepare().used == "1-1"
    assert content(directory) == copied


def test_nothing_is_replaced_under_a_worker(directory: Path) -> None:
    """While a worker uses the directory, damage is told and nothing is moved; looking tells that it runs."""
    _with_copy(directory)
    truncate(directory / "engine" / "part-0.sqlite3", Random(SEED))
    store = RecoveryStore(directory)
    with store.in_use():
        assert store.report().running
        with pytest.raises(Conflict, match="a worker uses it"):
            store.prepare()
    assert not store.report().running
    assert store.prepare().used == "1-1"


def test_a_seal_that_comes_late_tells_of_no_damage(directory: Path) -> None:
    """Sealing while a worker has begun does nothing, so what that worker writes is not taken for damage."""
    store = RecoveryStore(directory)
    run = FakeRun(directory)
    with store.in_use():
        store.seal()
        run.epochs(4)
    run.drain()
    assert store.prepare().damages == ()
