"""Data on stdout in each format."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from signalbox.cli.output import Output, cell, flattened

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROWS = [
    {"name": "a", "count": 1, "at": MOMENT, "more": {"x": [1, 2]}, "none": None},
    {"name": "b c", "count": 22, "at": MOMENT, "more": {}, "none": None},
]
PLAIN = json.loads(json.dumps(ROWS, default=lambda _value: "2026-01-02T03:04:05Z"))


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """`json` writes a list of records as one document, with times in RFC 3339 and numbers as numbers."""
    Output("json").records(ROWS)
    assert json.loads(capsys.readouterr().out) == PLAIN


def test_jsonl_is_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`jsonl` writes each record on a line of its own."""
    Output("jsonl").records(ROWS)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == PLAIN


def test_yaml_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """`yaml` writes what a YAML reader takes for the same records."""
    Output("yaml").records(ROWS)
    assert [{**row, "at": "2026-01-02T03:04:05Z"} for row in yaml.safe_load(capsys.readouterr().out)] == PLAIN


@pytest.mark.parametrize("format", ["json", "jsonl", "yaml"])
def test_a_single_record_is_an_object(capsys: pytest.CaptureFixture[str], format: Any) -> None:
    """A record on its own is an object, not a list."""
    Output(format).record({"name": "a", "more": {"x": 1}})
    assert yaml.safe_load(capsys.readouterr().out) == {"name": "a", "more": {"x": 1}}


def test_none_writes_nothing_but_runs_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    """`none` writes nothing, and what makes the records still happens."""
    seen = []

    def rows() -> Iterator[dict[str, Any]]:
        for row in ROWS:
            seen.append(row)
            yield row

    Output("none").stream(rows(), {})
    Output("none").record(ROWS[0])
    assert (capsys.readouterr().out, seen) == ("", ROWS)


def test_table_shows_the_chosen_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A table has upper-case heads, the columns asked for in their order, and numbers to the right."""
    Output("table").records(ROWS, ("count", "name", "more", "none"))
    assert capsys.readouterr().out == 'COUNT  NAME  MORE         NONE\n    1  a     {"x":[1,2]}\n   22  b c   {}\n'


def test_table_is_never_cut_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """However long a value is, a table that goes to a file or a pipe holds all of it on one line."""
    Output("table").records([{"value": "x" * 5000}])
    assert capsys.readouterr().out.splitlines()[1] == "x" * 5000


def test_an_empty_table_has_its_heads(capsys: pytest.CaptureFixture[str]) -> None:
    """A table without rows still says what its columns are."""
    Output("table").records([], ("id", "type"))
    assert capsys.readouterr().out.split() == ["ID", "TYPE"]


def test_record_as_table_lists_dotted_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A single record is shown as one line per leaf."""
    Output("table").record({"a": {"b": 1, "c": None}, "d": [1]})
    assert capsys.readouterr().out == "a.b  1\na.c\nd    [1]\n"


@pytest.mark.parametrize("format", ["json", "jsonl", "yaml", "table"])
def test_stream_is_whole_when_its_source_fails(capsys: pytest.CaptureFixture[str], format: Any) -> None:
    """What was written before a source failed is still a whole document."""

    def rows() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        yield {"n": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Output(format).stream(rows(), {"n": 3})
    out = capsys.readouterr().out
    if format == "table":
        assert out == "N\n1\n2\n"
    elif format == "jsonl":
        assert out == '{"n":1}\n{"n":2}\n'
    else:
        assert yaml.safe_load(out) == [{"n": 1}, {"n": 2}]


def test_stream_writes_each_record_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A record is on stdout before the next one is asked for."""

    def rows() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        assert capsys.readouterr().out == '{"n":1}\n'
        yield {"n": 2}

    Output("jsonl").stream(rows(), {})


def test_words_are_plain_lines_or_objects(capsys: pytest.CaptureFixture[str]) -> None:
    """Words stand alone on their lines for people and shells, and in objects for programs."""
    Output("table").words(["a", "b"], "id")
    assert capsys.readouterr().out == "a\nb\n"
    Output("jsonl").words(["a", "b"], "id")
    assert capsys.readouterr().out == '{"id":"a"}\n{"id":"b"}\n'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), ("a b", "a b"), ("a\x1b[31m\n", r"a\x1b[31m\n"), (True, "true"), (1.5, "1.5"), (["a"], '["a"]')],
)
def test_cell_is_one_harmless_line(value: object, shown: str) -> None:
    """Control characters of foreign data never reach a terminal through a table."""
    assert cell(value) == shown


def test_flattened_keeps_empty_objects() -> None:
    """An empty object is a leaf, so that it does not vanish."""
    assert list(flattened({"a": {}, "b": {"c": {"d": 1}}})) == [("a", {}), ("b.c.d", 1)]
