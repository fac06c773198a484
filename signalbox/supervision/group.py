"""The processes that live and die together: the workers of one flow, or the sensor process.

When one of them ends unasked, the rest are killed and reaped, and all are started again as the next generation, after
the wait that `restarts.py` decides; two generations never run at once. To have more or fewer of them, the next
generation is got ready while the present one works, which then drains, is reaped, and makes place (`resize`). The group
also asks each process for its status once a second: that is how it knows that they run, that one is frozen, that they
do not get on, and how far they are.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from signalbox.clock import Clock
from signalbox.config import SupervisionSettings
from signalbox.errors import ConfigError, SignalboxError
from signalbox.supervision.generation import Ended, Generation, Launch
from signalbox.supervision.restarts import RestartPolicy
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import RESTARTS

_POLL_S = 1.0
_POLL_STARTING_S = 0.05
#: How long a change waits for the moment when a drain is short, and how often it looks.
_CALM_S, _LOOK_S = 3.0, 0.02

log = get_logger(__name__)


class GroupState(StrEnum):
    """Where a group is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESCALING = "rescaling"
    RESTARTING = "restarting"
    QUARANTINED = "quarantined"
    DRAINING = "draining"
    PAUSED = "paused"
    """It has no processes because none are wanted."""
    STOPPED = "stopped"


class RescaleFailed(SignalboxError):
    """The number of processes could not be changed, and is as it was."""


_STOP = Ended(reason="stop", detail="asked to stop")
_HOLD = Ended(reason="hold", detail="held")
_RESCALE = Ended(reason="rescale", detail="makes place for the next generation")


@dataclass(slots=True)
class _Change:
    """A change to another number of processes that waits for the present ones to make place, or to be confirmed."""

    next: Generation
    before: int
    step: Callable[[str], None]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def failed(self, detail: str) -> None:
        if not self.done.done():
            self.done.set_exception(RescaleFailed(detail))


class ProcessGroup:
    """Keeps `target` processes running until stopped. Make it and call it inside one event loop."""

    def __init__(
        self,
        name: str,
        launch: Launch,
        *,
        target: int,
        settings: SupervisionSettings,
        clock: Clock,
        on_exit: Callable[[int], None],
        generation: int = 0,
        between: Callable[[int], Awaitable[bool]] | None = None,
    ) -> None:
        """Args:
        name: of the group; its processes are `<name>-<index>`.
        launch: how a process is started and asked.
        target: how many there are to be; 0 is none until `resize`.
        settings: timeouts and restarts.
        clock: for the times of restarts.
        on_exit: called with the process id of every process that ended.
        generation: the number of the last generation that there was.
        between: called with the number of each generation before it begins, when the one before is gone.
        """
        self.name = name
        self.target = target
        self.state = GroupState.STOPPED
        self.generation = generation
        self.restarts = 0
        self._launch = launch
        self._settings = settings
        self._clock = clock
        self._on_exit = on_exit
        self._between = between
        self._policy = RestartPolicy(settings, clock)
        self._drained = False
        """Whether the last generation that had begun has saved everything it did."""
        self._now: Generation | None = None
        self._change: _Change | None = None
        self._stopping = False
        self._was_running = asyncio.Event()
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._nudged = asyncio.Event()
        """Set when something is to be done at once: to stop, or to change the number of processes."""

    @property
    def pids(self) -> list[int]:
        """Of the processes that live and have begun, by index."""
        return self._now.pids if self._now else []

    @property
    def answers(self) -> list[Any]:
        """What each process last said about itself; None before its first answer."""
        return self._now.answers if self._now else []

    async def first_run(self) -> None:
        """Wait until all its processes have been running once."""
        await self._was_running.wait()

    async def run(self) -> None:
        """Keep the processes running until `stop`.

        Raises:
            ConfigError: a process refused its configuration before the group ever ran; starting it again cannot help.
        """
        self.state = GroupState.STARTING
        try:
            while not self._stopping:
                if self.target or self._change:
                    await self._after(await self._run_generation())
                else:
                    await self._rest()
                await self._held()
        finally:
            if self._change is not None:
                self._change.failed("the group was stopped")
                await self._change.next.reap(drain=False)
            self.state = GroupState.STOPPED

    def stop(self) -> None:
        """Ask `run` to drain the processes and return."""
        self._stopping = True
        self._may_run.set()
        self._end(_STOP)

    def kill(self) -> None:
        """Kill every process now; to be used after `stop`, when patience is over."""
        if self._now is not None:
            self._now.kill()
        if self._change is not None:
            self._change.next.kill()

    async def hold(self) -> None:
        """Kill the processes and keep them from being started again until `release`. No crash is counted."""
        self._may_run.clear()
        self._end(_HOLD)
        await self._empty.wait()

    def release(self) -> None:
        """Let the processes be started again."""
        self._may_run.set()

    async def resize(self, size: int, step: Callable[[str], None]) -> None:
        """Have `size` processes from now on; returns when they work.

        May be cancelled until the step `drain`, and then nothing has happened. One call at a time.

        Args:
            size: processes, 0 for none.
            step: told of each step when it begins: warm, drain, reap, save, start, confirm, rollback.

        Raises:
            RescaleFailed: the processes of the new number did not come up, and the old number is started again.
        """
        step("warm")
        upcoming = self._generation(size)
        change = _Change(upcoming, self.target, step)
        try:
            await self._warm(upcoming)
            await self._until_calm()
        except BaseException:
            await asyncio.shield(upcoming.reap(drain=False))
            raise
        self._change, self.target = change, size
        step("drain")
        self.state = GroupState.RESCALING
        self._end(_RESCALE)
        await asyncio.shield(change.done)

    async def _warm(self, upcoming: Generation) -> None:
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await upcoming.prepare()
        except TimeoutError:
            msg = f"the processes were not ready in {self._settings.start_timeout_s:g} s"
            raise RescaleFailed(msg) from None
        if upcoming.outcome.done():
            raise RescaleFailed(upcoming.outcome.result().detail)

    async def _until_calm(self) -> None:
        """Wait for the moment when the present processes have just saved what they did: then a drain is shortest.

        While others were got ready they had less of the processors, and may be behind with it.
        """
        deadline = self._clock.monotonic() + _CALM_S
        while self._clock.monotonic() < deadline and (present := self._now) is not None:
            await present.ask()
            if present.is_calm():
                return
            await asyncio.sleep(_LOOK_S)

    def _generation(self, size: int) -> Generation:
        return Generation(self.name, self._launch, size, settings=self._settings, on_exit=self._on_exit)

    def _end(self, ended: Ended) -> None:
        if self._now is not None:
            self._now.settle(ended)
        self._nudged.set()

    async def _rest(self) -> None:
        """Have no processes until some are wanted."""
        self.state = GroupState.PAUSED
        self._was_running.set()
        self._nudged.clear()
        if not self._stopping:
            await self._nudged.wait()

    async def _held(self) -> None:
        if not self._may_run.is_set():
            self.state = GroupState.RESTARTING
            await self._may_run.wait()

    async def _run_generation(self) -> Ended:
        change = self._change
        present = self._now = change.next if change else self._generation(self.target)
        self.generation += 1
        self._nudged.clear()
        self._empty.clear()
        work = asyncio.create_task(self._bring_up_and_watch(present, change))
        work.add_done_callback(lambda _: present.settle(_STOP))
        try:
            await present.outcome
        finally:
            work.cancel()
            await asyncio.wait({work})
            ended = _HOLD if present.outcome.cancelled() else present.outcome.result()
            if ended is not _RESCALE:
                self.state = GroupState.DRAINING if ended is _STOP else GroupState.RESTARTING
            self._drained = await present.reap(drain=ended in (_STOP, _RESCALE))
            self._now = None
            self._empty.set()
        if not work.cancelled() and (error := work.exception()):
            raise error
        return ended

    async def _after(self, ended: Ended) -> None:
        """Decide what follows the end of a generation."""
        change = self._change
        if ended is _RESCALE:
            assert change is not None, "a change is why the generation was asked to make place"
            change.step("reap")
            if not self.target:
                self._settled(change)
        elif ended is _HOLD or (ended is not _STOP and change is not None and change.next.outcome.done()):
            self.restarts += 1
            RESTARTS.labels(process=self.name, reason="held" if ended is _HOLD else "rollback").inc()
            if change is not None:
                await self._roll_back(change, ended)
        elif ended is not _STOP:
            await self._recover(ended)

    def _settled(self, change: _Change) -> None:
        self._change = None
        if not change.done.done():
            change.done.set_result(None)

    async def _roll_back(self, change: _Change, ended: Ended) -> None:
        """Go back to the number of processes before: those of the new one did not come up."""
        log.warning("rescale failed", group=self.name, why=ended.detail, target=change.before)
        change.step("rollback")
        self.target, self._change = change.before, None
        await change.next.reap(drain=False)
        change.failed(ended.detail)

    async def _bring_up_and_watch(self, present: Generation, change: _Change | None) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._bring_up(present, change)
        except TimeoutError:
            detail = f"not running {self._clock.monotonic() - began:.0f} s after its start"
            present.settle(Ended(reason="start_timeout", detail=detail))
            return
        if present.outcome.done():
            return
        self.state = GroupState.RUNNING
        self._was_running.set()
        log.info("running", group=self.name, generation=self.generation, pids=present.pids)
        if change is not None:
            self._settled(change)
        await self._watch(present)

    async def _bring_up(self, present: Generation, change: _Change | None) -> None:
        await present.prepare()
        if change is not None:
            change.step("save")
        clean = self._drained
        if self._between is not None:
            clean = await self._between(self.generation) and clean
        if change is not None:
            change.step("start")
        await present.begin(clean=clean)
        if change is not None:
            change.step("confirm")
        while not present.outcome.done():
            await present.ask()
            if present.is_running() and (change is None or present.has_settled()):
                return
            await asyncio.sleep(_POLL_STARTING_S)

    async def _watch(self, present: Generation) -> None:
        heard = [self._clock.monotonic()] * present.size
        while True:
            await asyncio.sleep(_POLL_S)
            answered = await present.ask()
            now = self._clock.monotonic()
            heard = [now if told else before for told, before in zip(answered, heard, strict=True)]
            silent = now - min(heard)
            if silent > self._settings.frozen_s:
                who = f"{self.name}-{heard.index(min(heard))}"
                present.settle(Ended(reason="frozen", detail=f"{who} has not answered for {silent:.0f} s"))
            elif (stuck_s := present.stuck_s()) > self._settings.stuck_s:
                present.settle(Ended(reason="stuck", detail=f"it has not got on with its work for {stuck_s:.0f} s"))

    async def _recover(self, ended: Ended) -> None:
        if ended.exit_code == ConfigError.exit_code and not self._was_running.is_set():
            msg = f"{ended.detail}: it refuses its settings or the app"
            raise ConfigError(msg, hint="the process said why on stderr and in its log, above")
        self.restarts += 1
        RESTARTS.labels(process=self.name, reason=ended.reason).inc()
        decision = self._policy.crashed()
        self.state = GroupState.QUARANTINED if decision.quarantined else GroupState.RESTARTING
        log.warning("restarting", group=self.name, why=ended.detail, state=str(self.state), after_s=decision.after_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(decision.after_s):
                await self._nudged.wait()
        self.state = GroupState.RESTARTING
