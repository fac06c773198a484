"""Virtual environments under `.bench/` for libraries that cannot live in the project's own.

Each is made from a pinned list in `benchmarks/requirements/` and made anew when that list changes.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness.contender import BENCHMARKS, ENVIRONMENTS, environment_python

TOOLS = "tools"
NAMES = ("quix", "faust", TOOLS)
_STAMP = "requirements.txt"


def set_up(tell: Callable[[str], None]) -> None:
    """Make the environments that are missing or out of date.

    Raises:
        subprocess.CalledProcessError: pip could not install something; its own output says what.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    for name in NAMES:
        if is_current(name):
            tell(f"{name}: is up to date")
            continue
        tell(f"{name}: installing")
        directory = ENVIRONMENTS / name
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        install = [str(environment_python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(_requirements(name))], check=True)
        shutil.copyfile(_requirements(name), directory / _STAMP)


def is_current(name: str) -> bool:
    """Whether an environment was made from its list as it is now."""
    stamp = ENVIRONMENTS / name / _STAMP
    return stamp.exists() and stamp.read_text() == _requirements(name).read_text()


def _requirements(name: str) -> Path:
    return BENCHMARKS / "requirements" / f"{name}.txt"
