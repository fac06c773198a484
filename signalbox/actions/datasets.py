"""Files of rows below the directories that `actions.datasets.roots` names: read as a stream, written as a whole.

A path from outside cannot lead out of a root: it is opened part by part, `..` and absolute paths are refused, and a
symbolic link is not followed, wherever in the path it is. Nothing is held in memory but the row at hand.
"""

import codecs
import contextlib
import csv
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import msgspec

from signalbox.actions.retry import ActionError
from signalbox.config import DatasetSettings
from signalbox.ids import derived_id

MAX_ROW_BYTES = 1_048_576
"""Of one row in a file."""
_BLOCK = 65_536  # characters read at a time from a JSON array
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not to wait for a writer, should the file be a pipe.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BadRow(Exception):
    """A row that cannot be used; the text says why. The rows after it can."""


def open_dataset(path: str, settings: DatasetSettings) -> IO[bytes]:
    """Open a file below the first root that has it.

    Raises:
        ActionError: `dataset_refused` or `dataset_not_found`.
    """
    parts = _parts(path, settings.roots)
    if not path.endswith((".csv", ".json", ".jsonl")):
        raise _refused(path, "its name ends in none of .csv, .json and .jsonl")
    for root in settings.roots:
        try:
            with _directory(root, parts[:-1]) as directory:
                file = os.fdopen(os.open(parts[-1], _READ, dir_fd=directory), "rb")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _refused(path, f"it cannot be opened: {error.strerror}") from error
        return _checked(file, path, settings.file_bytes)
    msg = f"there is no file {path!r} below actions.datasets.roots"
    raise ActionError(msg, type="dataset_not_found")


def rows_of(file: IO[bytes], path: str) -> Iterator[Any]:
    """The rows of a file from its beginning, as JSON values or `BadRow`. Values of a CSV file are texts.

    Raises:
        ActionError: `invalid_dataset`: what follows cannot be told apart into rows.
    """
    file.seek(0)
    if path.endswith(".csv"):
        return _csv_rows(file)
    return _array_rows(file) if path.endswith(".json") else _line_rows(file)


class OutputFile:
    """A `.jsonl` file in the making below the first root. It takes its name when it is complete; see `finish`."""

    def __init__(self, path: str, settings: DatasetSettings, *, key: str) -> None:
        """`key` tells the unfinished file from that of another run.

        Raises:
            ActionError: `dataset_refused`.
        """
        *above, self._name = _parts(path, settings.roots)
        if not path.endswith(".jsonl"):
            raise _refused(path, "the name of an output ends in .jsonl")
        self._partial = f".{derived_id(key, path, 0)}.partial"
        try:
            with _directory(settings.roots[0], above) as directory:
                self._directory = os.dup(directory)
            with contextlib.suppress(FileNotFoundError):  # of an attempt that a crash cut short
                os.unlink(self._partial, dir_fd=self._directory)
            self._file = os.fdopen(os.open(self._partial, _WRITE, 0o640, dir_fd=self._directory), "wb")
        except OSError as error:
            raise _refused(path, f"it cannot be written: {error.strerror}") from error

    def write(self, row: Any) -> None:
        """Append a row."""
        self._file.write(msgspec.json.encode(row) + b"\n")

    def finish(self) -> None:
        """Make sure that it is on disk, and give it its name, in place of an earlier file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._partial, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)

    def close(self) -> None:
        """Let go, and remove what was not finished."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial, dir_fd=self._directory)
        os.close(self._directory)


def _parts(path: str, roots: Sequence[Path]) -> tuple[str, ...]:
    if not roots:
        raise _refused(path, "actions.datasets.roots names no directory; add the one below which files may be used")
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise _refused(path, "a path is relative to a root and does not lead out of it")
    return parts


@contextlib.contextmanager
def _directory(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of a directory below a root; the root itself may be a link."""
    with contextlib.ExitStack() as stack:
        found = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, found)
        for part in parts:
            found = os.open(part, _DIRECTORY, dir_fd=found)
            stack.callback(os.close, found)
        yield found


def _checked(file: IO[bytes], path: str, limit: int) -> IO[bytes]:
    status = os.fstat(file.fileno())
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "it is no regular file"
    elif status.st_size > limit:
        problem = f"it has {status.st_size} bytes; actions.datasets.file_bytes allows {limit}"
    if problem:
        file.close()
        raise _refused(path, problem)
    return file


def _refused(path: str, why: str) -> ActionError:
    return ActionError(f"the file {path!r} is refused: {why}", type="dataset_refused")


def _invalid(what: str) -> ActionError:
    return ActionError(f"the dataset cannot be read: {what}", type="invalid_dataset")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_ROW_BYTES + 1), b""), 1):
        if len(line) > MAX_ROW_BYTES:
            msg = f"line {number} has more than {MAX_ROW_BYTES} bytes"
            raise _invalid(msg)
        yield line


def _line_rows(file: IO[bytes]) -> Iterator[Any]:
    for line in _lines(file):
        if not line.isspace():
            try:
                yield msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield BadRow(f"it is no JSON: {error}")


def _csv_rows(file: IO[bytes]) -> Iterator[Any]:
    try:
        reader = csv.reader(_within_rows(file), strict=True)
        names = next(reader, [])
        if len(set(names)) < len(names):
            msg = "two columns have the same name"
            raise _invalid(msg)
        for cells in reader:
            if len(cells) == len(names):
                yield dict(zip(names, cells, strict=True))
            elif cells:
                yield BadRow(f"it has {len(cells)} cells, and there are {len(names)} columns")
    except (csv.Error, UnicodeDecodeError) as error:
        raise _invalid(str(error)) from None


def _within_rows(file: IO[bytes]) -> Iterator[str]:
    """The lines as text. An open quote makes many of them one row, so that too is bounded."""
    size, quotes = 0, 0
    for number, line in enumerate(_lines(file), 1):
        size, quotes = size + len(line), quotes + line.count(b'"')
        if size > MAX_ROW_BYTES:
            msg = f"the row that ends at line {number} has more than {MAX_ROW_BYTES} bytes"
            raise _invalid(msg)
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        if quotes % 2 == 0:
            size = 0


def _array_rows(file: IO[bytes]) -> Iterator[Any]:
    """The elements of a JSON array, without reading the array as a whole."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    text = _Text(file)
    if text.next_character() != "[":
        msg = "a .json file holds an array of objects"
        raise _invalid(msg)
    text.skip()
    if text.next_character() == "]":
        return
    while True:
        yield text.value(decoder)
        follows = text.next_character()
        text.skip()
        if follows == "]":
            return
        if follows != ",":
            msg = f"an element of the array is followed by {follows or 'nothing'!r}"
            raise _invalid(msg)


class _Text:
    """The text of a file, of which only the part at hand is in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._held = ""
        self._at = 0
        self._ended = False

    def next_character(self) -> str:
        """The next one that is no white space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._held):
                if not self._held[self._at].isspace():
                    return self._held[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._read(_BLOCK)

    def skip(self) -> None:
        """Take one character."""
        self._at += 1

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Take one JSON value."""
        self.next_character()
        while True:
            try:
                found, end = decoder.raw_decode(self._held, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    msg = f"no JSON: {error}"
                    raise _invalid(msg) from None
            else:
                # A number may go on in what has not been read.
                if end < len(self._held) or self._ended:
                    self._at = end
                    return found
            if len(self._held) - self._at > MAX_ROW_BYTES:
                msg = f"no JSON, or an element of more than {MAX_ROW_BYTES} characters"
                raise _invalid(msg)
            self._read(max(_BLOCK, len(self._held) - self._at))  # twice as much each time: few attempts

    def _read(self, size: int) -> None:
        block = self._file.read(size)
        self._ended = not block
        try:
            self._held = self._held[self._at :] + self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise _invalid(str(error)) from None
        self._at = 0


def _no_number(name: str) -> None:
    msg = f"{name} is no JSON"
    raise _invalid(msg)
