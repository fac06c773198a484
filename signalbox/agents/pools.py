"""How many members a pool is to have, and which of them a key group is to hold while that changes.

A pool's size is not one number at one moment. Each partition of the input has its own, which is part of its snapshot
and changes only between two epochs, so a crash repeats every signal to the member that had it the first time.
`PoolSizes` is what a worker process wants, `Declared` what follows for one group from what the partitions say. Who uses
the sizes: `connectors.kafka.source`; who runs the members: `signalbox.agents.group`.
"""

import fcntl
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from signalbox.agents.contract import Pool
from signalbox.agents.plan import Kind, Plan
from signalbox.durable import Unreadable, read_twins, write_twins
from signalbox.errors import ConfigError, NotFound, StateDamaged

log = logging.getLogger(__name__)

Sizes = Mapping[str, int]
"""Members by the name of the pool's agent class. One that was handed out is replaced and never changed."""


class _Wanted(msgspec.Struct):
    size: int


class _Told(msgspec.Struct):
    pools: dict[str, _Wanted] = {}


class PoolSizes:
    """The sizes that the pools of one worker process are to have. Any thread may ask and tell.

    Args:
        pools: by name, as the app and its settings declare them.
        record: file that keeps the sizes that the data directory began with. None keeps them in memory.
        told: file in which a supervisor leaves the sizes that are wanted, for a process that starts. It is read when
            the sizes are first needed, so a process that stands by begins with the latest.
    """

    def __init__(self, pools: Mapping[str, Pool], *, record: Path | None = None, told: Path | None = None) -> None:
        self._pools = dict(pools)
        self._told = told
        self._wanted: Sizes | None = None
        declared = {name: pool.size for name, pool in pools.items()}
        self._first = declared if record is None else _recorded(record, self._fitting(self.wanted()))
        self._wanted = None

    def wanted(self) -> Sizes:
        """The sizes that are wanted now."""
        if self._wanted is None:
            self._wanted = self._fitting({name: pool.size for name, pool in self._pools.items()} | self._read())
        return self._wanted

    def size(self, pool: str) -> int:
        """The size that is wanted for one of the pools now."""
        return self.wanted()[pool]

    def at_start(self, saved: Sizes | None) -> Sizes:
        """The sizes by which a partition begins.

        They are those of its snapshot. Without one they are those that the data directory began with, and not those
        that are wanted now: whatever a crash makes it repeat has to go the same way again.
        """
        return self._fitting({**self._first, **(saved or {})})

    def resize(self, pools: Mapping[str, Any]) -> None:
        """Want other sizes; pools that are not named keep theirs.

        Raises:
            NotFound: there is no such pool.
            ConfigError: a size is no number from 1 to the pool's maximum. Then nothing is changed.
        """
        for name, size in pools.items():
            if name not in self._pools:
                msg = f"there is no pool {name!r}"
                raise NotFound(msg, hint=f"there are: {', '.join(sorted(self._pools)) or 'none'}")
            if not _is_number(size) or not 1 <= size <= self._pools[name].max:
                msg = f"{name} cannot have {size!r} members"
                raise ConfigError(msg, hint=f"give a number from 1 to {self._pools[name].max}")
        self._wanted = {**self.wanted(), **pools}

    def _fitting(self, sizes: Sizes) -> dict[str, int]:
        """Those of the app's pools. A size that was kept by a run whose pools were larger is cut to what there is."""
        return {name: min(sizes.get(name, pool.size), pool.max) for name, pool in self._pools.items()}

    def _read(self) -> dict[str, int]:
        if self._told is None or not self._told.exists():
            return {}
        try:
            told = msgspec.json.decode(self._told.read_bytes(), type=_Told).pools
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read, so pools have the sizes of the settings: %s", self._told, error)
            return {}
        return {name: max(1, one.size) for name, one in told.items()}


class Declared:
    """The declared agents of one key group, singletons and members of pools: who has to be there, and who no longer."""

    def __init__(self, plan: Plan, key: str) -> None:
        self._here = [(kind, members) for kind in plan.kinds if (members := kind.members_of(key))]
        self._pools = [kind for kind in plan.kinds if isinstance(kind.addressing, Pool)]
        self._sizes: dict[str, Sizes] = {}
        self._latest: Sizes | None = None
        self._beyond: set[str] = set()
        self.surplus: set[str] = set()
        """Members that no partition counts on, whether or not they are there."""

    def __iter__(self) -> Iterator[tuple[str, Kind]]:
        """The ids that there can be, with the kinds they belong to."""
        return ((member, kind) for kind, members in self._here for _, member in members)

    def found(self, agent_ids: Iterable[str]) -> None:
        """Take note of members that were saved when their pool could be larger than it can be now."""
        prefixes = tuple(f"{kind.name}_" for kind in self._pools)
        candidates = {one for one in agent_ids if one.startswith(prefixes)} - {member for member, _ in self}
        self._beyond = {one for one in candidates if any(kind.owns(one) for kind in self._pools)}
        self.surplus |= self._beyond

    def resized(self, part: str, sizes: Sizes) -> bool:
        """From here on this partition counts on so many members of each pool. Tells whether that may change a thing."""
        # At a start each partition says what the one before it said.
        repeats = part not in self._sizes and sizes == self._latest
        self._sizes[part] = self._latest = sizes
        if repeats:
            return False
        self.surplus = self._beyond | {member for member, _ in self} - {member for member, _ in self.needed()}
        return True

    def needed(self) -> Iterator[tuple[str, Kind]]:
        """The singletons, and the members that some partition counts on."""
        for kind, members in self._here:
            is_pool = isinstance(kind.addressing, Pool)
            count = max((sizes[kind.name] for sizes in self._sizes.values()), default=0) if is_pool else 1
            yield from ((member, kind) for number, member in members if number <= count)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _recorded(path: Path, sizes: dict[str, int]) -> dict[str, int]:
    """The sizes that were recorded first; those of pools that are new are recorded now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            known = read_twins(path, dict[str, int]) or {}
        except Unreadable as error:
            msg = f"the sizes that pools began with cannot be read from {path}: {error}"
            raise StateDamaged(msg, hint="the next start goes back to the newest sound copy") from error
        if new := sizes.keys() - known.keys():
            known |= {name: sizes[name] for name in new}
            write_twins(path, known)
    return known
