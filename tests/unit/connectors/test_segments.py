"""Segment files: what is written is read back as it was, or not at all."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.segments import Piece, SegmentStore
from signalbox.errors import StateDamaged


@given(st.lists(st.tuples(st.sampled_from(["0", "17", "127"]), st.binary(max_size=300), st.booleans()), max_size=30))
def test_every_piece_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, bytes, bool]]
) -> None:
    """Pieces of any groups, in new files or behind others, keep their bytes, for this run and for the next."""
    directory = tmp_path_factory.mktemp("segments")
    store = SegmentStore(directory)
    pieces = [(group, payload, store.append(group, payload, fresh=fresh)) for group, payload, fresh in writes]
    for reader in (store, SegmentStore(directory)):
        for group, payload, piece in pieces:
            assert reader.read(group, piece) == payload


def test_a_fresh_piece_begins_a_file_and_others_follow_in_it(tmp_path: Path) -> None:
    """Changes lie behind their base in one file; a new base is in a file of its own, so that the old can be deleted."""
    store = SegmentStore(tmp_path)
    base, change = store.append("1", b"base", fresh=True), store.append("1", b"change", fresh=False)
    other = store.append("1", b"new base", fresh=True)
    assert base.file == change.file != other.file
    assert (base.offset, change.offset, other.offset) == (0, 4, 0)


def test_no_run_appends_to_a_file_of_another(tmp_path: Path) -> None:
    """A run that goes on after a crash writes to its own files, so what the crash left half-written harms nothing."""
    before = SegmentStore(tmp_path).append("1", b"old", fresh=True)
    with (tmp_path / "1" / before.file).open("ab") as file:
        file.write(b"half a pie")
    after = SegmentStore(tmp_path)
    piece = after.append("1", b"new", fresh=False)
    assert piece.file != before.file
    assert after.read("1", before) == b"old"
    assert after.read("1", piece) == b"new"


def test_two_workers_write_beside_each_other(tmp_path: Path) -> None:
    """The stores of several workers of one node share a directory without touching each other's files."""
    one, two = SegmentStore(tmp_path), SegmentStore(tmp_path)
    pieces = [(store, store.append("1", bytes([n]) * 10, fresh=True)) for n, store in enumerate([one, two, one, two])]
    assert [one.read("1", piece) for _, piece in pieces] == [bytes([n]) * 10 for n in range(4)]


def test_forgetting_keeps_the_files_that_are_needed(tmp_path: Path) -> None:
    """Only files of this group that hold none of the kept pieces are deleted."""
    store = SegmentStore(tmp_path)
    pieces = [store.append("1", bytes([n]), fresh=True) for n in range(4)]
    elsewhere = store.append("2", b"x", fresh=True)
    stranger = tmp_path / "1" / "notes.txt"
    stranger.write_text("not ours")
    store.forget_others("1", pieces[2:])
    assert [store.read("1", piece) for piece in pieces[2:]] == [b"\x02", b"\x03"]
    for piece in pieces[:2]:
        with pytest.raises(StateDamaged):
            store.read("1", piece)
    assert store.read("2", elsewhere) == b"x"
    assert stranger.exists()
    store.forget_others("3", [])


def test_after_forgetting_all_a_group_can_be_written_again(tmp_path: Path) -> None:
    """A group whose files are all gone goes on in a file that exists."""
    store = SegmentStore(tmp_path)
    store.append("1", b"a", fresh=True)
    store.forget_others("1", [])
    piece = store.append("1", b"b", fresh=False)
    assert SegmentStore(tmp_path).read("1", piece) == b"b"


@pytest.mark.parametrize("damage", ["missing", "shorter", "flipped", "empty", "wrong place", "folder"])
def test_damage_is_never_read_as_state(tmp_path: Path, damage: str) -> None:
    """A piece that is missing, short or changed raises `StateDamaged`, which names the file and says what to do.

    Before that somebody is told, who may get no other word of it.
    """
    told: list[str] = []
    store = SegmentStore(tmp_path, told.append)
    store.append("1", b"before", fresh=True)
    piece = store.append("1", b"the state", fresh=False)
    path = tmp_path / "1" / piece.file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(content[:-1])
    elif damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 0x10]))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "wrong place":
        piece = Piece(piece.file, 1, piece.length, piece.crc)
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(StateDamaged, match=r"1/.*seg") as caught:
        store.read("1", piece)
    assert "copy" in (caught.value.hint or "")
    assert told == [str(caught.value)]


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """State may hold secrets, so nobody else can read its files."""
    piece = SegmentStore(tmp_path).append("1", b"x", fresh=True)
    assert stat.S_IMODE((tmp_path / "1" / piece.file).stat().st_mode) == 0o600
