"""Traces: those that ship, and those from files."""

import json

import pytest

from signalbox.errors import UsageError
from signalbox.scaling import traces


def test_the_shipped_traces_are_the_same_each_time():
    """All eight are there by name, and made of the same numbers whenever they are made."""
    names = ["step", "ramp", "diurnal", "burst", "hot_key", "noise", "throttled", "broker_bounce"]
    assert list(traces.shipped()) == names
    assert traces.shipped() == traces.shipped()
    assert all(traces.find(name).about for name in names)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_is_read_second_by_second(tmp_path, form):
    """A rate holds until the next line, and the last one as long as the one before; other columns are passed over."""
    points = [(100, 5.0), (102, 7.5), (104, 1.0)]
    file = tmp_path / f"load.{form}"
    if form == "csv":
        file.write_text("\ufeffat,arrivals,more\n" + "".join(f"{at},{rate},x\n" for at, rate in points))
    else:
        file.write_text("\n".join(json.dumps({"at": at, "arrivals": rate}) for at, rate in points) + "\n\n")
    trace = traces.find(str(file))
    assert (trace.name, trace.arrivals) == ("load", (5.0, 5.0, 7.5, 7.5, 1.0, 1.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no lines"),
        ("at,arrivals\n", "no lines"),
        ("at;arrivals\n1;2\n", "line 2"),
        ("at,arrivals\n1,2\n2,many\n", "line 3"),
        ("at,arrivals\n1,-2\n", "out of range"),
        ("at,arrivals\n1,nan\n", "out of range"),
        ("at,arrivals\n1,1e300\n", "out of range"),
        ("at,arrivals\n5,1\n4,1\n", "back in time"),
        ("at,arrivals\n1,1\n9999999,1\n", "at most"),
        ('{"at": 1, "arrivals": 2}\n{"at": 2}\n', "line 2"),
        ('{"at": 1, "arrivals": 2}\n{oops\n', "line 2"),
        ('{"at": 1, "arrivals": 2}\n[1, 2]\n', "line 2"),
        ("at,arrivals\n1," + "9" * 200_000, "line"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, text, said):
    """The error names the file and what is wrong with which line, and says what to do."""
    file = tmp_path / "load"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        traces.find(str(file))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert caught.value.hint


def test_what_is_no_text_is_refused(tmp_path):
    """Bytes that are no text, and names that are no file, are errors of usage."""
    file = tmp_path / "load"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError):
        traces.find(str(file))
    with pytest.raises(UsageError) as caught:
        traces.find("stairs")
    assert "step" in caught.value.hint
