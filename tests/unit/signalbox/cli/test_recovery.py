"""`recovery inspect` and `recovery verify`, on directories as workers leave them."""

import json
from pathlib import Path
from random import Random

import pytest

from connectors.recovery.store import RecoveryStore
from tests.support.recovery import FakeRun, delete, flip
from tests.unit.signalbox.cli.conftest import Cli


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The recovery directory of a flow with one copy."""
    directory = tmp_path / ".signalbox" / "recovery" / "agents"
    run = FakeRun(directory)
    run.epochs(6)
    RecoveryStore(directory).keep_copy(3)
    run.drain()
    return directory


def test_what_is_saved_is_shown(bare_cli: Cli, directory: Path) -> None:
    """For people it is a line per flow; of one flow programs get its positions and copies too."""
    lines = bare_cli("recovery", "inspect").stdout.splitlines()
    assert lines[0].split()[:5] == ["FLOW", "STATE", "EPOCH", "WORKERS", "GROUPS"]
    assert lines[1].split()[:5] == ["agents", "sound", "7", "1", "6"]
    told = json.loads(bare_cli("recovery", "inspect", "agents", "-o", "json").stdout)
    assert told["inputs"] == {"signals-0": 60, "signals-1": 60}
    assert told["outputs"] == {"results-0": 42, "results-1": 42}
    assert [(copy["name"], copy["generation"], copy["epoch"], copy["sound"]) for copy in told["copies"]] == [
        ("3-1", 3, 7, True)
    ]


def test_a_sound_directory_passes(bare_cli: Cli, directory: Path) -> None:
    """Nothing damaged is exit 0, and it says how many copies are sound."""
    result = bare_cli("recovery", "verify")
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, [])
    assert "agents: sound, with 1 sound of 1 copies" in result.stderr
    with RecoveryStore(directory).in_use():
        assert bare_cli("recovery", "verify").exit_code == 0
        assert json.loads(bare_cli("recovery", "inspect", "-o", "json").stdout)[0]["state"] == "running"


def test_damage_is_named_and_what_would_be_used(bare_cli: Cli, directory: Path) -> None:
    """A damaged file is exit 1 with its name and what is lost; it tells which copy a start would use, if any."""
    piece = next((directory / "segments").rglob("*.seg"))
    delete(piece, Random(1))
    result = bare_cli("recovery", "verify", "-o", "json")
    assert result.exit_code == 1
    group = piece.parent.name
    assert json.loads(result.stdout) == [
        {
            "flow": "agents",
            "place": "in use",
            "file": f"segments/{group}/{piece.name}",
            "problem": "it is missing",
            "lost": f"state of agents of key group {group}",
        }
    ]
    assert "goes back to copy 3-1" in result.stderr
    flip(directory / "copies" / "3-1" / "manifest.json", Random(1))
    result = bare_cli("recovery", "verify", "agents", "-o", "json")
    assert [row["place"] for row in json.loads(result.stdout)] == ["in use", "3-1"]
    assert "nothing is sound" in result.stderr
    assert "recover.md" in result.stderr


def test_looking_changes_nothing(bare_cli: Cli, directory: Path) -> None:
    """No file that is saved is other than before, sound or damaged."""
    for _ in range(2):
        before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        bare_cli("recovery", "inspect")
        bare_cli("recovery", "verify")
        assert {path: path.read_bytes() for path in before} == before
        flip(directory / "engine" / "part-0.sqlite3", Random(3))


def test_nothing_saved_is_not_found(bare_cli: Cli, directory: Path) -> None:
    """No saved state, or none of the flow that was named, is exit 5 and says where it looked."""
    assert bare_cli("recovery", "verify", "other").exit_code == 5
    result = bare_cli("--data-dir", "elsewhere", "recovery", "inspect")
    assert result.exit_code == 5
    assert "elsewhere/recovery" in result.stderr
