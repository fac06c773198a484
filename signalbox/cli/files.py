"""Text files named on the command line, where `-` is stdin."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from signalbox.errors import UsageError


@contextlib.contextmanager
def lines_of(name: str) -> Iterator[Iterator[str]]:
    r"""The lines of a file, or of stdin if the name is `-`, as they come and without their ends.

    Nothing else is taken from a line; only `\n` and `\r\n` end one. Bytes that are not UTF-8 become lone surrogates.

    Raises:
        UsageError: the file cannot be opened.
    """
    if name == "-":
        text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape", newline="\n")
        try:
            yield _without_ends(text)
        finally:
            text.detach()
        return
    try:
        file = Path(name).open(encoding="utf-8", errors="surrogateescape", newline="\n")  # noqa: SIM115  # closed below
    except OSError as error:
        msg = f"cannot read {name}: {error.strerror}"
        raise UsageError(msg) from None
    with file:
        yield _without_ends(file)


def _without_ends(text: io.TextIOWrapper) -> Iterator[str]:
    for line in text:
        yield line.removesuffix("\n").removesuffix("\r")
