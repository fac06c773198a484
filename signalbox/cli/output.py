"""Data on stdout: tables for people, JSON and YAML for programs.

`json` is one document, `jsonl` one object per line as they come, `yaml` one document, `none` nothing. A table is
wrapped to the width of a terminal, and as wide as it needs to be elsewhere. Messages for people are no
business of this module: they go to stderr.
"""

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

Format = Literal["table", "json", "jsonl", "yaml", "none"]
Row = Mapping[str, Any]

#: What a table is laid out on where no terminal limits it; a signal's data is the longest that stands in a cell.
_UNLIMITED_WIDTH = 1_000_000


class Output:
    """Writes records in one format."""

    def __init__(self, format: Format) -> None:
        self.format = format

    def records(self, rows: Iterable[Row], columns: Sequence[str] = ()) -> None:
        """Write a list of records.

        Args:
            rows: all of them are held at once, but for `jsonl`; `stream` writes as they come.
            columns: the keys shown in a table, in this order; all keys of the first row if empty.
        """
        match self.format:
            case "table":
                _write(_table(list(rows), columns))
            case "json":
                _write(_json([dict(row) for row in rows]))
            case "yaml":
                _write(_yaml([dict(row) for row in rows]))
            case "jsonl":
                for row in rows:
                    _write(_line(row))
            case "none":
                for _ in rows:
                    pass

    def record(self, row: Row) -> None:
        """Write one record; as a table, its keys and values below each other."""
        match self.format:
            case "table":
                flat = ({"name": name, "value": value} for name, value in flattened(row))
                _write(_table(list(flat), ("name", "value"), heads=False))
            case "json":
                _write(_json(dict(row)))
            case "yaml":
                _write(_yaml(dict(row)))
            case "jsonl":
                _write(_line(row))
            case "none":
                pass

    def stream(self, rows: Iterable[Row], widths: Mapping[str, int]) -> None:
        """Write records as they come, so that a reader sees each at once. What was written is whole at any end.

        Args:
            rows: may take their time, and may end in an exception.
            widths: the columns of a table with their least widths.
        """
        match self.format:
            case "table":
                _write(_aligned({name: name.upper() for name in widths}, widths))
                for row in rows:
                    _write(_aligned(row, widths))
            case "json":
                _stream_json(rows)
            case "yaml":
                for row in rows:
                    _write(_yaml([dict(row)]))
            case _:
                self.records(rows)

    def words(self, words: Iterable[str], name: str) -> None:
        """Write one word per line, as they come; `json`, `jsonl` and `yaml` write objects with the word as `name`."""
        if self.format != "table":
            self.stream(({name: word} for word in words), {})
            return
        for word in words:
            _write(f"{word}\n")


def flattened(row: Row, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names."""
    for name, value in row.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def cell(value: Any) -> str:
    """A value as one line of a table: nothing for None, JSON for lists and objects, control characters made visible."""
    if value is None:
        return ""
    if not isinstance(value, str):
        value = _plain(value)
    if value.isprintable():
        return str(value)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in value)


def _plain(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode().strip('"')


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"


def _line(row: Row) -> str:
    import msgspec

    return msgspec.json.encode(row).decode() + "\n"


def _yaml(value: Any) -> str:
    import msgspec

    return msgspec.yaml.encode(value).decode()


def _stream_json(rows: Iterable[Row]) -> None:
    _write("[")
    separator = "\n"
    try:
        for row in rows:
            _write(f"{separator}{_line(row).rstrip()}")
            separator = ",\n"
    finally:
        _write("\n]\n")


def _aligned(row: Row, widths: Mapping[str, int]) -> str:
    return "  ".join(f"{cell(row.get(name)):<{width}}" for name, width in widths.items()).rstrip() + "\n"


def _table(rows: Sequence[Row], columns: Sequence[str], *, heads: bool = True) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = columns or (list(rows[0]) if rows else [])
    table = Table(box=None, show_header=heads, pad_edge=False, padding=(0, 2, 0, 0), header_style="none")
    for name in names:
        numeric = bool(rows) and all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name.upper(), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in names))
    on_terminal = sys.stdout.isatty()
    text = io.StringIO()
    console = Console(
        file=text, width=None if on_terminal else _UNLIMITED_WIDTH, force_terminal=on_terminal, highlight=False
    )
    console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
