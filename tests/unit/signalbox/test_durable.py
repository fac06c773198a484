"""Documents that are whole or absent, and twins of which one is enough."""

import contextlib
from pathlib import Path
from random import Random

import pytest

from signalbox.durable import Unreadable, read_document, read_twins, twin_of, write_document, write_twins
from tests.support.recovery import MISFORTUNES, delete

CONTENT = {"signals-0": 17, "signals-1": 4}
Content = dict[str, int]


@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_what_was_changed_is_never_read_as_something_else(tmp_path: Path, misfortune: object) -> None:
    """After any flip, cut or deletion a document says what it said, or that it cannot be read."""
    path, rng = tmp_path / "a.json", Random(5)
    for _ in range(200):
        write_document(path, CONTENT)
        misfortune(path, rng)  # type: ignore[operator]  # each of them is a function
        with contextlib.suppress(Unreadable):
            assert read_document(path, Content) == CONTENT
    assert not list(tmp_path.glob("*.tmp"))


def test_another_shape_is_unreadable(tmp_path: Path) -> None:
    """A sound document with other content than was asked for is refused."""
    write_document(tmp_path / "a.json", ["x"])
    with pytest.raises(Unreadable, match="not as it was written"):
        read_document(tmp_path / "a.json", Content)


def test_one_twin_is_enough(tmp_path: Path) -> None:
    """Either of two is read; none of both is None; both damaged is an error that says how it shows."""
    path = tmp_path / "a.json"
    assert read_twins(path, Content) is None
    for lost in (path, twin_of(path)):
        write_twins(path, CONTENT)
        delete(lost, Random(1))
        assert read_twins(path, Content) == CONTENT
    path.write_bytes(b"x")
    twin_of(path).write_bytes(b"")
    with pytest.raises(Unreadable):
        read_twins(path, Content)
