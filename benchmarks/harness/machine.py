"""What a result was measured on: machine, software and commit."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from harness.contender import ROOT

#: More waiting processes per core than this, and others are at work on the machine.
_QUIET_LOAD = 0.25


def describe() -> dict[str, Any]:
    """The circumstances of a measurement that is about to begin."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(load, 2),
        "quiet": load / cores <= _QUIET_LOAD,
    }


def commit() -> str:
    """The short git commit, with `+` behind it when tracked files differ from it; `unknown` outside a repository."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    result = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
