"""What the kernel lets this process use: memory and CPU limits of its control groups, version 2 and version 1.

A limit of any ancestor binds as much as one's own, so every level up to the mount point is read. Inside a container
without its own cgroup namespace the mount shows only a part of the tree; `/proc/self/mountinfo` says which.
Nothing here raises: a file that is missing or cannot be understood means that no limit is known on that level.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Version 1 says "no limit" as the largest multiple of the page size; no machine has so much memory.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGroup:
    """A level with a memory limit. `used_bytes` leaves out page cache that the kernel can drop at once."""

    used_bytes: int
    limit_bytes: int

    @property
    def ratio(self) -> float:
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuGroup:
    """A level with a CPU limit: `cores` it may keep busy, and the CPU time it has used since it was made."""

    path: Path
    used_s: float
    cores: float


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """One mounted tree of groups: where it is mounted, and where this process is below the mount point."""

    mount: Path
    here: PurePosixPath

    def levels(self) -> Iterator[PurePosixPath]:
        yield self.here
        yield from self.here.parents


class ControlGroups:
    """Reads the limits of the present process. `root` stands for `/`, so that a test can lay out its own machine."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def memory(self) -> list[MemoryGroup]:
        """Every level that limits memory, from the process's own group upwards."""
        trees = self._hierarchies()
        if tree := trees.get("memory"):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif tree := trees.get(""):
            names = ("memory.max", "memory.current", "inactive_file")
        else:
            return []
        found = (_memory_group(tree.mount / level, *names) for level in tree.levels())
        return [group for group in found if group]

    def cpu(self) -> list[CpuGroup]:
        """Every level that limits CPU time, from the process's own group upwards."""
        trees = self._hierarchies()
        if tree := trees.get("cpu"):
            accounting = trees.get("cpuacct", tree)
            found = (_cpu_group_v1(tree.mount / level, accounting.mount / level) for level in tree.levels())
        elif tree := trees.get(""):
            found = (_cpu_group_v2(tree.mount / level) for level in tree.levels())
        else:
            return []
        return [group for group in found if group]

    def _hierarchies(self) -> dict[str, _Hierarchy]:
        """The mounted trees by controller; the one of version 2 under the empty name."""
        mounts = {controller: (point, top) for controller, point, top in self._mounts()}
        trees = {}
        for line in _lines(self._root / "proc/self/cgroup"):
            _, _, rest = line.partition(":")
            controllers, _, group = rest.partition(":")
            for controller in controllers.split(","):
                if controller in mounts and group.startswith("/"):
                    point, top = mounts[controller]
                    trees[controller] = _Hierarchy(self._root / point.lstrip("/"), _below(group, top))
        return trees

    def _mounts(self) -> Iterator[tuple[str, str, str]]:
        """(controller, mount point, the group that is mounted there) of every cgroup mount."""
        for line in _lines(self._root / "proc/self/mountinfo"):
            before, _, after = line.partition(" - ")
            left, right = before.split(), after.split()
            if len(left) < 5 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
                continue
            for controller in [""] if right[0] == "cgroup2" else right[2].split(","):
                yield controller, left[4].replace("\\040", " "), left[3]


def _below(group: str, top: str) -> PurePosixPath:
    """`group` as seen below a mount whose top is `top`; the top itself when the group lies outside of it."""
    path = PurePosixPath(group)
    return path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()


def _memory_group(directory: Path, limit_name: str, usage_name: str, droppable_name: str) -> MemoryGroup | None:
    limit = _integer(directory / limit_name)
    usage = _integer(directory / usage_name)
    if not limit or usage is None or limit >= _NO_LIMIT_BYTES:
        return None
    droppable = _keyed(directory / "memory.stat").get(droppable_name, 0)
    return MemoryGroup(used_bytes=max(0, usage - droppable), limit_bytes=limit)


def _cpu_group_v2(directory: Path) -> CpuGroup | None:
    words = " ".join(_lines(directory / "cpu.max")).split()
    used_us = _keyed(directory / "cpu.stat").get("usage_usec")
    if len(words) != 2 or used_us is None or not all(word.isdigit() and int(word) for word in words):
        return None
    quota_us, period_us = map(int, words)
    return CpuGroup(path=directory, used_s=used_us / 1e6, cores=quota_us / period_us)


def _cpu_group_v1(directory: Path, accounting: Path) -> CpuGroup | None:
    quota_us = _integer(directory / "cpu.cfs_quota_us")
    period_us = _integer(directory / "cpu.cfs_period_us")
    used_ns = _integer(accounting / "cpuacct.usage")
    if not quota_us or quota_us < 0 or not period_us or used_ns is None:
        return None
    return CpuGroup(path=directory, used_s=used_ns / 1e9, cores=quota_us / period_us)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _integer(path: Path) -> int | None:
    try:
        return int(" ".join(_lines(path)))
    except ValueError:  # "max", or nothing
        return None


def _keyed(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
