"""Keeps the saved state of one flow sound while its processes come and go.

It is checked before each generation begins, copied soon after and then once a minute, and sealed at the end, all in
threads beside the event loop. What is checked and copied is up to `signalbox.ports.RecoveryKeeper`.
"""

import asyncio
from typing import Protocol

from signalbox.clock import Clock
from signalbox.errors import SignalboxError
from signalbox.ports import RecoveryKeeper
from signalbox.telemetry.logs import get_logger

#: Between two copies of one generation, and before that of a new one when the last copy is fresh.
COPY_EVERY_S, COPY_AFTER_START_S = 60.0, 10.0
_LOOK_EVERY_S = 1.0

log = get_logger(__name__)


class Running(Protocol):
    """What is copied while it runs: a process group."""

    generation: int

    @property
    def pids(self) -> list[int]: ...


class SavedState:
    """The saved state of one flow."""

    def __init__(self, flow: str, keeper: RecoveryKeeper, clock: Clock) -> None:
        self._flow = flow
        self._keeper = keeper
        self._clock = clock
        self._copied: tuple[int, float] | None = None
        """Generation and time of the last copy."""

    async def check(self) -> bool:
        """To be called when no process runs, before a generation begins. Returns whether all is as it was left.

        Raises:
            StateDamaged: it is damaged and there is no sound copy; the hint says how to go on.
        """
        prepared = await asyncio.to_thread(self._keeper.prepare)
        return not prepared.damages

    async def keep(self, group: Running) -> None:
        """Look whether a copy is due, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look(group)

    async def look(self, group: Running) -> None:
        """Make a copy if the group runs and one is due. What cannot be copied now is tried again later."""
        if group.pids and self._is_due(group.generation):
            await self._copy(group.generation)

    async def seal(self) -> None:
        """To be called when the last process has ended."""
        try:
            await asyncio.to_thread(self._keeper.seal)
        except OSError as error:
            log.warning("saved state is not sealed", flow=self._flow, error=str(error))

    def _is_due(self, generation: int) -> bool:
        if self._copied is None:
            return True
        of, at = self._copied
        return self._clock.monotonic() - at >= (COPY_EVERY_S if of == generation else COPY_AFTER_START_S)

    async def _copy(self, generation: int) -> None:
        self._copied = generation, self._clock.monotonic()
        try:
            copy = await asyncio.to_thread(self._keeper.keep_copy, generation)
        except (SignalboxError, OSError) as error:
            log.error("saved state is not copied", flow=self._flow, error=str(error))
            return
        if copy is None:
            self._copied = None  # nothing is saved yet
        else:
            log.debug("saved state is copied", flow=self._flow, copy=copy.name, size_bytes=copy.size_bytes)
