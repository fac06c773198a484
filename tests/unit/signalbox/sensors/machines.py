"""Lays out a fake `/proc` and `/sys` below a folder, as kernels and container runtimes lay them out."""

from collections.abc import Mapping
from pathlib import Path

_V2_MOUNT = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
_V1_MOUNT = "{id} 23 0:3{id} {top} /sys/fs/cgroup/{name} rw,nosuid - cgroup cgroup rw,{name}"
_OTHER = "22 23 0:5 / /proc rw,nosuid - proc proc rw"
#: What version 1 says for "no limit".
UNLIMITED = "9223372036854771712"

Files = Mapping[str, str | int]


def write(root: Path, files: Files) -> Path:
    """Write files, named by their path below `root`, over those that are there."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def version_2(root: Path, group: str, files: Files, *, top: str = "/") -> Path:
    """A machine with the unified hierarchy; `files` are below the mount point."""
    write(root, {"proc/self/cgroup": f"0::{group}", "proc/self/mountinfo": f"{_OTHER}\n{_V2_MOUNT.format(top=top)}"})
    return write(root, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def version_1(root: Path, groups: Mapping[str, str], files: Files, *, top: str = "/") -> Path:
    """A machine with one hierarchy per entry of `groups`, named by its controllers, and an unused unified one."""
    lines = [f"{number}:{name}:{group}" for number, (name, group) in enumerate(groups.items(), 2)]
    mounts = [_V1_MOUNT.format(id=number, name=name, top=top) for number, name in enumerate(groups, 2)]
    unified = _V2_MOUNT.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    write(root, {"proc/self/cgroup": "\n".join([*lines, "1:name=systemd:/", "0::/"])})
    write(root, {"proc/self/mountinfo": "\n".join([_OTHER, *mounts, unified])})
    return write(root, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
