"""Small files that must be whole or absent, and that tell when they are not as they were written.

A document is JSON with a checksum of its content; it is written beside its place, forced to the disk and renamed, so a
crash leaves the old one or the new one. Bulk state is written by `connectors.segments`, which promises less at once.
"""

import contextlib
import os
import zlib
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Unreadable(Exception):
    """A document is missing, or not as it was written; the message says which of the two and how it shows."""


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    crc32: int
    content: msgspec.Raw


def write_document(path: Path, content: object) -> None:
    """Replace a document by this content, which msgspec can encode."""
    encoded = msgspec.json.encode(content)
    write_durably(path, msgspec.json.encode(_Document(zlib.crc32(encoded), msgspec.Raw(encoded))) + b"\n")


def read_document(path: Path, type: type[T]) -> T:
    """The content of a document.

    Raises:
        Unreadable: it is missing, or is not as it was written.
    """
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
        if zlib.crc32(document.content) != document.crc32:
            msg = "its checksum does not fit its content"
            raise Unreadable(msg)
        return msgspec.json.decode(document.content, type=type)
    except FileNotFoundError as error:
        msg = "it is missing"
        raise Unreadable(msg) from error
    except OSError as error:
        msg = f"it cannot be read: {error.strerror}"
        raise Unreadable(msg) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        msg = f"it is not as it was written: {error}"
        raise Unreadable(msg) from error


def twin_of(path: Path) -> Path:
    """Where the second copy of a document lies that is kept twice."""
    return path.with_name(f"{path.stem}.backup{path.suffix}")


def write_twins(path: Path, content: object) -> None:
    """Replace a document and its twin by this content."""
    for one in (path, twin_of(path)):
        write_document(one, content)


def read_twins(path: Path, type: type[T]) -> T | None:
    """The content of a document or of its twin, whichever is as it was written; None if there is neither.

    Raises:
        Unreadable: neither is as it was written.
    """
    problem: Unreadable | None = None
    for one in (path, twin_of(path)):
        try:
            return read_document(one, type)
        except Unreadable as error:
            problem = error if one.exists() else problem
    if problem is not None:
        raise problem
    return None


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file at once, and return when it is on the disk."""
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    sync_directory(path.parent)


def write_at_once(path: Path, content: bytes) -> None:
    """Replace a file at once, so that a reader sees all of it or nothing; after a power failure it may be gone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".new")
    scratch.write_bytes(content)
    scratch.replace(path)


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk; does nothing if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
