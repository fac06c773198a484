"""The wheel, built from a copy of the tree, installed into an empty folder and run from `/` with nothing else of ours.

Not shown here: that pip resolves the dependencies. Those come from the environment that runs the tests.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "signalbox", "connectors", "flows")
#: What surrounds the packages in a clone, and must stay out.
AROUND = ("config", "docs", "examples", "tests", "benchmarks")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def checked(*command: str, **more: object) -> str:
    """Run a command and return its stdout; it has to succeed."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built without the network."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in (*PACKAGES, *AROUND):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    checked(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(tree))
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp("site")
    checked(*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return target


def run(site: Path, *words: str) -> str:
    """Run Python from `/` on the installed wheel and the dependencies.

    `-S` leaves `.pth` files unread, so an editable install of this very tree cannot lend what the wheel lacks.
    """
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return checked(sys.executable, "-S", *words, cwd="/", env=environment)


def test_the_wheel_holds_every_module_and_no_other(wheel):
    """All modules of the four packages are in it, and no tests, `.pth` files or further top-level names."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"signalbox-{_version()}.dist-info"}
    assert not [name for name in names if name.endswith(".pth")]


def test_the_wheel_holds_its_data(wheel):
    """Schemas, profiles, type markers and the licence travel along."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"schemas/json/{path.name}" for path in (ROOT / "schemas" / "json").iterdir()} <= names
    assert {f"signalbox/profiles/{path.name}" for path in (ROOT / "config").glob("*.toml")} <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert f"signalbox-{_version()}.dist-info/licenses/LICENSE" in names


def test_the_packages_are_those_of_the_wheel(site):
    """Outside the tree the four names mean the installed packages."""
    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{package}.__file__' for package in PACKAGES)})"
    assert run(site, "-c", code).split() == [str(site / package / "__init__.py") for package in PACKAGES]


def test_the_command_tells_its_version(site):
    """`signalbox --version` is the version of the project file."""
    assert run(site, str(site / "bin" / "signalbox"), "--version") == f"signalbox {_version()}\n"


def test_the_profiles_are_found(site):
    """Settings of a profile are read from inside the package."""
    code = "from signalbox.config import load_settings as s; print(s(profile='prod').agents['task_agent'].size)"
    assert run(site, "-c", code).strip() == "20"


def test_the_app_and_its_processes_start(site):
    """The shipped app fits together, and the processes that a node starts can be imported."""
    assert "task_agent" in run(site, "-m", "signalbox.cli", "check", "-o", "json")
    assert "python -m flows.worker" in run(site, "-m", "flows.worker", "--help")
    run(site, "-c", "import flows.agents, signalbox.sensors.__main__, signalbox.supervision.node, signalbox.testing")


def test_the_changelog_is_kept():
    """The changelog has a place for what comes next, or names the version of the project file."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{_version()}]" in text


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
