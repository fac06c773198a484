"""The generated JSON Schemas: up to date, the same everywhere, and as strict as the reader of the envelope."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.catalog import PAYLOADS
from schemas.export import DIRECTORY, drifted, main, schemas, write
from schemas.signal import MalformedSignal, Signal, decode, encode
from tests.support import signals as strategies

ENVELOPE = Draft202012Validator(json.loads((DIRECTORY / "signal.json").read_text()))
ROOT = DIRECTORY.parent.parent


def test_committed_files_are_up_to_date() -> None:
    """The files say what the code says."""
    assert drifted() == [], "run: python -m schemas.export"


def test_output_does_not_depend_on_the_process() -> None:
    """The command finds no drift under another hash seed either, and says so."""
    done = subprocess.run(
        [sys.executable, "-m", "schemas.export", "--check"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all files are up to date\n", "")


def test_check_names_what_drifted_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` exits 1 and names changed, missing and stale files and the command that mends them."""
    write(tmp_path)
    (tmp_path / "alert.json").write_text("{}")
    (tmp_path / "signal.json").unlink()
    (tmp_path / "forgotten.json").write_text("{}")
    assert main(["--check"], directory=tmp_path) == 1
    message = capsys.readouterr().err
    assert "alert.json, forgotten.json, signal.json" in message
    assert "python -m schemas.export" in message
    assert (tmp_path / "alert.json").read_text() == "{}"


def test_writing_mends_what_drifted(tmp_path: Path) -> None:
    """Writing brings every file up to date, removes stale ones, and then has nothing left to do."""
    (tmp_path / "forgotten.json").write_text("{}")
    (tmp_path / "alert.json").write_text("{}")
    assert main([], directory=tmp_path) == 0
    assert drifted(tmp_path) == []
    assert not (tmp_path / "forgotten.json").exists()
    assert write(tmp_path) == []


@pytest.mark.parametrize(("name", "body"), schemas().items(), ids=schemas().keys())
def test_every_schema_is_one(name: str, body: dict[str, Any]) -> None:
    """Each file is a valid 2020-12 schema with an id of its own name, a title and a description."""
    Draft202012Validator.check_schema(body)
    assert body["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert body["$id"] == f"urn:signalbox:schema:{name.removesuffix('.json')}"
    assert body["title"]
    assert body["description"]


def test_every_shipped_type_is_in_one_schema() -> None:
    """A reader finds the schema of any shipped type by searching for the type's name."""
    listed = [name for body in schemas().values() for name in body.get("x-signal-types", ())]
    assert sorted(listed) == sorted(PAYLOADS)


def test_envelope_schema_names_every_attribute() -> None:
    """The hand-written part of the envelope's schema keeps up with `Signal`."""
    named = set(ENVELOPE.schema["properties"])
    assert named == set(Signal.__struct_fields__) - {"extensions"} | {"specversion", "data_base64"}


@settings(deadline=None)
@given(strategies.signals(data=strategies.json_values | st.binary(max_size=40)))
def test_what_is_written_is_valid(signal: Signal[Any]) -> None:
    """Every signal that we write is valid by the envelope's schema."""
    assert [error.message for error in ENVELOPE.iter_errors(json.loads(encode(signal)))] == []


_TEXTS = st.sampled_from(["x", "", "a b", "Zürich", "a\nb", "a\x00", "a\x7f", "b\x85", "line\n"])
_TIMES = st.sampled_from(
    ["2026-01-01T00:00:00Z", "2026-01-01t00:00:00.5+01:00", "2026-01-01T00:00:00", "2026-01-01", "now", "", "\n"]
)
_BASE64 = st.sampled_from(["AA==", "", "AAA=", "AAAA", "AA=", "A", "é", "AA==\n"])
_OTHER = st.sampled_from([None, True, 5, 1.5, [], {}, [1], {"a": 1}])
_VALUES = {
    "specversion": st.sampled_from(["1.0", "1.0.1", "1.0.2", "2.0", ""]),
    "time": _TIMES,
    "deadline": _TIMES,
    "data_base64": _BASE64,
}
_NAMES = st.sampled_from([*Signal.__struct_fields__, "specversion", "data_base64", "tenant", "x1", "A", "a-b", "a\n"])


@st.composite
def objects(draw: st.DrawFn) -> dict[str, Any]:
    """A JSON object that is an event, or nearly one."""
    body: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    for name in draw(st.lists(_NAMES, max_size=3)):
        body[name] = draw(_VALUES.get(name, _TEXTS) | _OTHER)
    if draw(st.integers(0, 9)) == 0:
        del body[draw(st.sampled_from(sorted(body)))]
    return body


@settings(deadline=None, max_examples=300)
@given(objects())
@example({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": 1, "data_base64": "AA=="})
@example({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": None, "data_base64": "AA=="})
def test_schema_and_reader_agree(body: dict[str, Any]) -> None:
    """An object is valid by the envelope's schema exactly when `decode` reads it."""
    try:
        decode(json.dumps(body).encode())
        refusal = None
    except MalformedSignal as error:
        refusal = str(error)
    assert ENVELOPE.is_valid(body) == (refusal is None), refusal
