"""Brings the pools of a node to the sizes that are wanted: told to every worker, until each has followed.

A worker follows at the end of an epoch, and one that starts later reads the sizes from the facts of the node
(`notices.py`). What happens inside a worker is `signalbox.agents.pools`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from signalbox.errors import SignalboxError, Unreachable
from signalbox.supervision import inspection
from signalbox.supervision.commands import Command
from signalbox.supervision.group import ProcessGroup
from signalbox.supervision.notices import Notices
from signalbox.supervision.targets import Change, TargetsFile
from signalbox.telemetry.logs import get_logger

_LOOK_S = 0.1

log = get_logger(__name__)


class PoolKeeper:
    """Resizes pools, one change of a pool after another. Call it inside one event loop."""

    def __init__(
        self,
        data_dir: Path,
        groups: Mapping[str, ProcessGroup],
        targets: TargetsFile,
        notices: Notices,
        save: Callable[[], Awaitable[None]],
    ) -> None:
        """`save` writes down what is wanted, for those who come later and for the processes of this node."""
        self._save = save
        self._data_dir = data_dir
        self._groups = groups
        self._targets = targets
        self._notices = notices
        self._asked: dict[str, Change] = {}
        """The changes that are not done, by pool."""
        self._wake = asyncio.Event()

    def size(self, name: str) -> int | None:
        """How many agents a pool is to have; None if nobody has told of it yet."""
        wanted = self._targets.now.pools.get(name)
        return self._told(name) if wanted is None else wanted

    def want(self, name: str, change: Change, command: Command) -> None:
        """Want a pool to have the size of the change. Commands for pools that this node does not have are not ours."""
        told = self._told(name)
        if told is None and any(None not in group.answers and group.answers for group in self._groups.values()):
            log.debug("a command for a pool that is not here", pool=name, id=command.signal.id)
            return
        change.before = self.size(name) or change.desired
        self._asked[name] = change
        self._targets.now.pools[name] = change.desired
        self._wake.set()

    async def keep(self) -> None:
        """Bring pools to their sizes, for ever."""
        while True:
            self._wake.clear()
            await self._save()
            for name, change in list(self._asked.items()):
                if await self._follow(name, change) and self._asked.get(name) is change:
                    del self._asked[name]
            if self._asked:
                await asyncio.sleep(_LOOK_S)
            else:
                await self._wake.wait()

    async def _follow(self, name: str, change: Change) -> bool:
        """Tell every worker of the pool's flow; says whether there is nothing left to do."""
        flow = next((group for group in self._groups.values() if name in _pools(group)), None)
        if flow is None or None in flow.answers:
            return False
        paths = [inspection.socket_path(self._data_dir, f"{flow.name}-{index}") for index in range(len(flow.answers))]
        try:
            told = await asyncio.gather(*(self._tell(path, name, change.desired) for path in paths))
        except Unreachable:
            return False
        except SignalboxError as error:
            log.warning("a pool is not resized", pool=name, size=change.desired, why=str(error))
            self._targets.now.pools[name] = change.before
            return True
        if not all(pools[name]["switched"] for pools in told):
            return False
        self._notices.pool(name, change)
        return True

    async def _tell(self, path: Path, name: str, size: int) -> Any:
        return await asyncio.to_thread(inspection.ask, path, "resize", pools={name: size})

    def _told(self, name: str) -> int | None:
        for group in self._groups.values():
            if (pool := _pools(group).get(name)) is not None:
                return int(pool["size"])
        return None


def _pools(group: ProcessGroup) -> Mapping[str, Any]:
    return next((answer["pools"] for answer in group.answers if answer and answer.get("pools")), {})
