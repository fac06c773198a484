"""Copies are whole, sound and of one moment, though a flow writes and removes files while they are made."""

import threading
from pathlib import Path
from random import Random

import pytest

from connectors.recovery.store import RecoveryStore
from signalbox.errors import StateDamaged
from tests.support.recovery import FakeRun, content, flip

_EPOCH_S = 0.01


def test_copies_of_a_running_flow_are_of_one_moment(tmp_path: Path) -> None:
    """A flow that removes old pieces all the time is copied without a stop, each copy as a crash would leave it."""
    directory, ended = tmp_path / "recovery", threading.Event()
    store = RecoveryStore(directory)
    first = FakeRun(directory)
    first.epochs(5)
    first.drain()

    def work() -> None:
        run = FakeRun(directory)
        while not ended.wait(_EPOCH_S):
            run.epochs(1)
        run.drain()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        kept = [store.keep_copy(1) for _ in range(6)]
    finally:
        ended.set()
        worker.join()
    assert [copy.name for copy in kept if copy] == [f"1-{number}" for number in range(1, 7)]
    copies = store.report().copies
    assert [copy.name for copy in copies] == ["1-6", "1-5", "1-4"]
    for copy in copies:
        assert copy.damages == ()
        epoch, inputs, _, _ = content(directory / "copies" / copy.name)
        assert (epoch, set(inputs.values())) == (copy.epoch, {(copy.epoch - 1) * 10})


def test_a_damaged_piece_gets_into_no_copy(tmp_path: Path) -> None:
    """What is damaged already is told when it is to be copied; the copies from before stay, and a start mends it."""
    store = RecoveryStore(tmp_path)
    run = FakeRun(tmp_path)
    run.epochs(6)
    assert store.keep_copy(1) is not None
    piece = next(path for path in (tmp_path / "segments").rglob("*.seg"))
    flip(piece, Random(1))
    with pytest.raises(StateDamaged, match=piece.name):
        store.keep_copy(1)
    piece.unlink()
    with pytest.raises(StateDamaged, match=piece.name):
        store.keep_copy(1)
    assert [(copy.name, copy.damages) for copy in store.report().copies] == [("1-1", ())]
    assert {path.name for path in (tmp_path / "copies").iterdir()} == {"1-1"}
    run.drain()
    assert store.prepare().used == "1-1"
    assert store.report().damages == ()


def test_a_copy_shares_nothing_with_what_it_is_of(tmp_path: Path) -> None:
    """No file of a copy is the flow's own under another name: a flipped byte there does not reach the copy."""
    store = RecoveryStore(tmp_path)
    run = FakeRun(tmp_path)
    run.epochs(6)
    store.keep_copy(1)
    store.keep_copy(1)
    run.drain()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len({path.stat().st_ino for path in files}) == len(files)
