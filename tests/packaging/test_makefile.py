"""The Makefile's promises: its targets, how it finds a Python, and that it asks the network only when it must.

Stand-ins take the place of Python and write down how they were called.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = {"help", "setup", "demo", "up", "check", "test", "bench", "chaos", "kafka", "docs", "clean"}
TOOLS = ("sh", "make", "cksum", "tr", "cat", "awk", "rm", "cp", "touch", "mkdir", "echo", "pwd")
#: `-c` asks whether it is suitable; `-m venv` makes an environment whose Python is this one.
STAND_IN = """#!/bin/sh
case "$*" in
  "-c "*) exit {suitable} ;;
  --version) echo Python 3.12.1 ;;
  "-m venv"*) echo venv >> calls; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *"pip install"*) echo install >> calls ;;
  *) exit 9 ;;
esac
"""


class Place:
    """A folder with the Makefile, and a PATH that leads to nothing but basic tools and stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.tools / tool).symlink_to(found)
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)

    def add_python(self, name: str, *, suitable: bool) -> Path:
        path = self.tools / name
        path.write_text(STAND_IN.format(suitable=0 if suitable else 1))
        path.chmod(0o755)
        return path

    def make(self, *words: str) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
        return subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env={**environment, "PATH": str(self.tools)},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        calls = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_make_lists_its_targets(place):
    """`make` alone names every target with what it does."""
    listed = [line.split()[1] for line in place.make().stdout.splitlines()]
    assert set(listed) == TARGETS


def test_set_up_once(place):
    """The first set-up makes the environment and installs; the second has nothing to do."""
    place.add_python("python3.12", suitable=True)
    assert (place.make("setup").returncode, place.calls()) == (0, ["venv", "install"])
    assert (place.make("setup").returncode, place.calls()) == (0, [])


def test_set_up_again_when_dependencies_change(place):
    """A changed project file is installed into the environment there is."""
    place.add_python("python3.11", suitable=True)
    place.make("setup")
    place.calls()
    with (place.folder / "pyproject.toml").open("a") as project:
        project.write("# one more\n")
    assert (place.make("setup").returncode, place.calls()) == (0, ["install"])


def test_an_unsuitable_environment_is_replaced(place):
    """A `.venv` of another Python version, or of one that is gone, is made anew."""
    place.add_python("python3.12", suitable=True)
    old = place.folder / ".venv" / "bin"
    old.mkdir(parents=True)
    shutil.copy(place.add_python("python3.13", suitable=False), old / "python")
    assert (place.make("setup").returncode, place.calls()) == (0, ["venv", "install"])


def test_an_unsuitable_python_is_passed_over(place):
    """A `python3.12` that does not work is no reason to give up while there is another."""
    place.add_python("python3.12", suitable=False)
    place.add_python("python3", suitable=True)
    assert (place.make("setup").returncode, place.calls()) == (0, ["venv", "install"])


def test_the_user_may_name_the_python(place):
    """`make PYTHON=...` takes that one."""
    python = place.add_python("elsewhere", suitable=True)
    assert place.make("setup", f"PYTHON={python}").returncode == 0


def test_without_a_python_one_line_says_so(place):
    """Nothing suitable: the versions that work in one line, and a failure."""
    place.add_python("python3", suitable=False)
    result = place.make("setup")
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert result.returncode != 0
    assert len(lines) == 1
    assert "3.11" in lines[0]
    assert "3.12" in lines[0]
    assert not (place.folder / ".venv").exists()


def test_ci_is_check_and_then_test():
    """`.ci/run` can be executed, stops at the first failure, and ends with the tests."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make")] == [
        "make --no-print-directory check",
        "make --no-print-directory test",
    ]
