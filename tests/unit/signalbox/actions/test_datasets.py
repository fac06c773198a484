"""Files of rows: read as they are, never outside of a root, never more than a row at a time."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.actions import ActionError
from signalbox.actions.datasets import MAX_ROW_BYTES, BadRow, OutputFile, open_dataset, rows_of
from signalbox.config import DatasetSettings

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES | st.lists(VALUES, max_size=3), max_size=4), max_size=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


def settings(*roots, **others):
    return DatasetSettings(roots=roots, **others)


def rows(root, name, content=None):
    if content is not None:
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with open_dataset(name, settings(root)) as file:
        return [str(row) if isinstance(row, BadRow) else row for row in rows_of(file, name)]


@given(rows_in=ROWS, indent=st.sampled_from([None, 0, 3]))
def test_what_was_written_is_read(root, rows_in, indent):
    """An array and lines of JSON give the rows that they were made of, in order, however they are laid out."""
    assert rows(root, "a.json", json.dumps(rows_in, indent=indent, ensure_ascii=False)) == rows_in
    assert rows(root, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows_in)) == rows_in


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)] * 2),
        max_size=8,
    )
)
def test_cells_of_any_text_are_read(root, cells):
    """A CSV file gives texts under the names of its columns, line breaks and quotes included."""
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [("x", "y"), *cells]]
    assert rows(root, "a.csv", "\r\n".join(quoted)) == [{"x": x, "y": y} for x, y in cells]


def test_long_files_are_read_in_pieces(root):
    """Elements of an array that lie across the pieces that are read are whole, numbers too."""
    content = [*range(50_000), {"text": "é" * 300_000}, 7]
    found = rows(root, "long.json", json.dumps(content, ensure_ascii=False))
    assert found == content


def test_a_byte_order_mark_is_no_data(root):
    """Files that begin with one, as spreadsheets write them, are read all the same."""
    assert rows(root, "b.csv", b"\xef\xbb\xbfx\r\n1\r\n") == [{"x": "1"}]
    assert rows(root, "b.json", b'\xef\xbb\xbf[{"x": 1}]') == [{"x": 1}]


def test_bad_rows_do_not_end_the_reading(root):
    """A line that is no JSON, or a row with too many or too few cells, is told, and the next one is read."""
    lines = rows(root, "c.jsonl", b'{"x": 1}\n{"x":\n\n\xff\n{"x": 2}')
    assert (lines[0], lines[-1]) == ({"x": 1}, {"x": 2})
    assert [line.partition(":")[0] for line in lines[1:-1]] == ["it is no JSON"] * 2
    cells = rows(root, "c.csv", "x,y\n1\n1,2,3\n\n4,5\n")
    assert cells == [
        "it has 1 cells, and there are 2 columns",
        "it has 3 cells, and there are 2 columns",
        {"x": "4", "y": "5"},
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '{"x": 1}'),
        ("d.json", "[1, 2"),
        ("d.json", "[1 2]"),
        ("d.json", "[1, ]"),
        ("d.json", "[NaN]"),
        ("d.json", ""),
        ("d.json", b"[\xff]"),
        ("d.json", "[" * 100_000),
        ("d.json", '["' + "x" * 2 * MAX_ROW_BYTES),
        ("d.jsonl", '"' + "x" * MAX_ROW_BYTES + '"\n'),
        ("d.csv", "x,x\n1,2\n"),
        ("d.csv", 'x\n"open\n' + "more\n" * (MAX_ROW_BYTES // 5)),
        ("d.csv", "x\n" + '"a\nb",' * (MAX_ROW_BYTES // 5)),
        ("d.csv", b"x\n\xff\n"),
        ("d.csv", 'x\n"a"b\n'),
    ],
)
def test_what_cannot_be_told_apart_ends_the_reading(root, name, content):
    """Beyond a mistake of the file as a whole, and beyond a row too large for memory, nothing is read."""
    with pytest.raises(ActionError) as error:
        rows(root, name, content)
    assert error.value.type == "invalid_dataset"


@pytest.mark.parametrize("content", ['["' + "x" * 10 * MAX_ROW_BYTES, "x" * 10 * MAX_ROW_BYTES], ids=["json", "jsonl"])
def test_a_row_without_end_is_not_read_to_the_end(root, content):
    """What is too large for a row is given up before it fills the memory."""
    name = "e.json" if content.startswith("[") else "e.jsonl"
    (root / name).write_text(content)
    with open_dataset(name, settings(root)) as file:
        with pytest.raises(ActionError, match="more than"):
            list(rows_of(file, name))
        assert file.tell() < 4 * MAX_ROW_BYTES


@pytest.fixture
def house(tmp_path):
    """A root with a file, one outside of it, and links that lead there."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "in.jsonl").write_text("{}\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text("{}\n")
    (root / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (root / "inward.jsonl").symlink_to(root / "inner" / "in.jsonl")
    (root / "up").symlink_to(outside)
    (root / "folder.jsonl").mkdir()
    os.mkfifo(root / "pipe.jsonl")
    return root


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.jsonl",
        "inner/../../outside/secret.jsonl",
        "inner/../inner/in.jsonl",
        "link.jsonl",
        "inward.jsonl",
        "up/secret.jsonl",
        "folder.jsonl",
        "pipe.jsonl",
        "",
        ".",
        "inner/in.jsonl\0",
        "inner/in.txt",
    ],
)
def test_no_path_leads_out_of_a_root(house, path):
    """Nothing but a regular file below a root is opened: no `..`, no link, no pipe, and none of another kind."""
    with pytest.raises(ActionError) as error:
        open_dataset(path, settings(house))
    assert error.value.type == "dataset_refused"


def test_no_absolute_path_is_followed(house):
    """Not even one that leads below a root."""
    with pytest.raises(ActionError, match="relative to a root"):
        open_dataset(str(house / "inner" / "in.jsonl"), settings(house))


def test_without_roots_no_file_is_opened(house, monkeypatch):
    """By default files are refused, and the message names the setting."""
    monkeypatch.chdir(house)
    with pytest.raises(ActionError, match=r"actions\.datasets\.roots") as error:
        open_dataset("inner/in.jsonl", settings())
    assert error.value.type == "dataset_refused"


def test_the_first_root_that_has_it_counts(house, tmp_path):
    """Roots are looked through in order, and a file that none has is not found."""
    other = tmp_path / "other"
    other.mkdir()
    roots = settings(tmp_path / "missing", other, house)
    with open_dataset("inner/in.jsonl", roots) as file:
        assert file.read() == b"{}\n"
    with pytest.raises(ActionError) as error:
        open_dataset("inner/none.jsonl", roots)
    assert error.value.type == "dataset_not_found"


def test_a_file_has_a_size_limit(house):
    """A file beyond `file_bytes` is not opened."""
    with pytest.raises(ActionError, match="file_bytes allows 2"):
        open_dataset("inner/in.jsonl", settings(house, file_bytes=2))


def test_an_output_appears_when_it_is_complete(house):
    """Until `finish` its name is free; then it holds every row, in place of an earlier file."""
    for value in (1, 2):
        output = OutputFile("inner/out.jsonl", settings(house), key="k")
        for row in ({"x": value}, {"x": "é"}, {}):
            output.write(row)
        before = (house / "inner" / "out.jsonl").exists()
        output.finish()
        output.close()
        assert before == (value == 2)
        assert (house / "inner" / "out.jsonl").read_text() == f'{{"x":{value}}}\n{{"x":"é"}}\n{{}}\n'
    assert sorted(os.listdir(house / "inner")) == ["in.jsonl", "out.jsonl"]


def test_an_output_that_is_not_finished_leaves_nothing(house):
    """A run that fails leaves no file behind, and one that a crash ended is no obstacle to the next."""
    output = OutputFile("inner/out.jsonl", settings(house), key="k")
    output.write({})
    again = OutputFile("inner/out.jsonl", settings(house), key="k")
    again.close()
    output.close()
    assert os.listdir(house / "inner") == ["in.jsonl"]


@pytest.mark.parametrize(
    "path", ["../out.jsonl", "up/out.jsonl", "none/out.jsonl", "out.csv", "inner/in.jsonl/out.jsonl", ""]
)
def test_no_output_lies_outside_of_a_root(house, path):
    """What may not be read may not be written either, folders are not made, and the format is JSON lines."""
    with pytest.raises(ActionError) as error:
        OutputFile(path, settings(house), key="k").close()
    assert error.value.type == "dataset_refused"


def test_an_output_takes_the_place_of_a_link(house, tmp_path):
    """A link under the name of the output is replaced, and what it leads to stays as it is."""
    output = OutputFile("link.jsonl", settings(house), key="k")
    output.finish()
    output.close()
    assert not (house / "link.jsonl").is_symlink()
    assert (tmp_path / "outside" / "secret.jsonl").read_text() == "{}\n"
