"""The processes that live and die together: the workers of one flow, or the sensor process.

When one of them ends unasked, the rest are killed and reaped, and all are started again as the next generation, after
the wait that `restarts.py` decides; two generations never overlap. The group also asks each process for its status
once a second: that is how it knows that they run, that one is frozen, and how far they are.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from signalbox.clock import Clock
from signalbox.config import SupervisionSettings
from signalbox.errors import ConfigError, SignalboxError
from signalbox.supervision import inspection
from signalbox.supervision.process import ChildProcess
from signalbox.supervision.restarts import RestartPolicy
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import RESTARTS

_POLL_S = 1.0
_POLL_STARTING_S = 0.1
_POLL_LISTENING_S = 0.02
#: A process that is busy may be slow to answer; this leaves it several chances before it counts as frozen.
_ANSWER_S = 3.0
_LOOPBACK = "127.0.0.1"
#: Below the ports that Linux (32768) and macOS (49152) give to outgoing connections: one of those could take an address
#: between the moment it is chosen and the moment its worker listens there.
_PORTS = range(20_000, 32_768)

log = get_logger(__name__)


class GroupState(StrEnum):
    """Where a group is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    QUARANTINED = "quarantined"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the processes of a group are started and asked."""

    command: Callable[[int, Sequence[str]], Sequence[str]]
    """Command line of the process with this index; the addresses of all, if there are several, else none."""
    socket: Callable[[int], Path]
    """Where the process with this index serves its inspection socket."""
    is_running: Callable[[Any], bool]
    """Whether an answer to `status` means that the process does its work."""
    environment: dict[str, str] = field(default_factory=dict)
    inherited: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """Why a generation ended. `reason` is a label of bounded values, `detail` is for people."""

    reason: str
    detail: str
    exit_code: int | None = None


_STOP = _Ended(reason="stop", detail="asked to stop")
_HOLD = _Ended(reason="hold", detail="held")


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
    ) -> None:
        """`on_exit` is called with the process id of every process that ended."""
        self.name = name
        self.target = target
        self.state = GroupState.STOPPED
        self.generation = 0
        self.restarts = 0
        self.answers: list[Any] = []
        """What each process last said about itself; None before its first answer."""
        self._launch = launch
        self._settings = settings
        self._clock = clock
        self._on_exit = on_exit
        self._policy = RestartPolicy(settings, clock)
        self._children: list[ChildProcess] = []
        self._watches: set[asyncio.Task[Any]] = set()
        self._outcome: asyncio.Future[_Ended] | None = None
        self._stopping = asyncio.Event()
        self._was_running = asyncio.Event()
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def pids(self) -> list[int]:
        """Of the processes that live, by index."""
        return [child.pid for child in self._children if child.exit_code is None]

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
            while not self._stopping.is_set():
                ended = await self._run_generation()
                if ended is _HOLD:
                    RESTARTS.labels(process=self.name, reason="held").inc()
                elif ended is not _STOP:
                    await self._recover(ended)
                await self._held()
        finally:
            self.state = GroupState.STOPPED

    def stop(self) -> None:
        """Ask `run` to drain the processes and return."""
        self._stopping.set()
        self._may_run.set()
        self._settle(_STOP)

    def kill(self) -> None:
        """Kill every process now; to be used after `stop`, when patience is over."""
        for child in self._children:
            if child.exit_code is None:
                self._watch(asyncio.create_task(child.kill()))

    async def hold(self) -> None:
        """Kill the processes and keep them from being started again until `release`. No crash is counted."""
        self._may_run.clear()
        self._settle(_HOLD)
        await self._empty.wait()

    def release(self) -> None:
        """Let the processes be started again."""
        self._may_run.set()

    async def _held(self) -> None:
        if not self._may_run.is_set():
            self.state = GroupState.RESTARTING
            await self._may_run.wait()

    async def _run_generation(self) -> _Ended:
        self.generation += 1
        self.restarts = self.generation - 1
        self.answers = [None] * self.target
        self._outcome = asyncio.get_running_loop().create_future()
        self._empty.clear()
        work = asyncio.create_task(self._start_and_poll(self._outcome))
        work.add_done_callback(self._work_ended)
        try:
            ended = await self._outcome
            self.state = GroupState.DRAINING if ended is _STOP else GroupState.RESTARTING
            return ended
        finally:
            work.cancel()
            await asyncio.wait({work})
            await self._reap(drain=self.state is GroupState.DRAINING)
            self._empty.set()

    def _work_ended(self, work: "asyncio.Task[None]") -> None:
        if not work.cancelled() and (error := work.exception()) and self._outcome and not self._outcome.done():
            self._outcome.set_exception(error)

    def _settle(self, ended: _Ended) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(ended)

    async def _start_and_poll(self, outcome: "asyncio.Future[_Ended]") -> None:
        addresses = free_addresses(self.target) if self.target > 1 else []
        for index in range(self.target):
            child = await ChildProcess.start(
                f"{self.name}-{index}",
                self._launch.command(index, addresses),
                environment=self._launch.environment,
                inherited=self._launch.inherited,
            )
            self._children.append(child)
            self._watch(asyncio.create_task(self._observe(child, outcome)))
            # A process dials those before it and sleeps a second when refused; the last one is dialled by nobody.
            if index < self.target - 1:
                await _until_listening(child, int(addresses[index].rpartition(":")[2]))
        await self._poll()

    def _watch(self, task: "asyncio.Task[Any]") -> None:
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _observe(self, child: ChildProcess, outcome: "asyncio.Future[_Ended]") -> None:
        code = await child.wait()
        reason = "killed" if code < 0 else "exit"
        how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        if not outcome.done():
            detail = f"{child.name} (process {child.pid}) {how}"
            outcome.set_result(_Ended(reason=reason, detail=detail, exit_code=code))

    async def _reap(self, *, drain: bool) -> None:
        """End all processes and wait for each, so that none lives when this returns."""
        timeout_s = self._settings.drain_timeout_s
        ends = [child.stop(timeout_s=timeout_s) if drain else child.kill() for child in self._children]
        await asyncio.gather(*ends)
        for child in self._children:
            self._on_exit(child.pid)
        self._children = []

    async def _poll(self) -> None:
        began = self._clock.monotonic()
        heard = [began] * self.target
        while True:
            for index, answer in enumerate(await asyncio.gather(*map(self._ask, range(self.target)))):
                if answer is not None:
                    self.answers[index] = answer
                    heard[index] = self._clock.monotonic()
            self._judge(began, heard)
            await asyncio.sleep(_POLL_S if self.state is GroupState.RUNNING else _POLL_STARTING_S)

    def _judge(self, began: float, heard: Sequence[float]) -> None:
        now = self._clock.monotonic()
        if self.state is GroupState.RUNNING:
            silent = now - min(heard)
            if silent > self._settings.frozen_s:
                who = f"{self.name}-{heard.index(min(heard))}"
                self._settle(_Ended(reason="frozen", detail=f"{who} has not answered for {silent:.0f} s"))
        elif all(answer is not None and self._launch.is_running(answer) for answer in self.answers):
            self.state = GroupState.RUNNING
            self._was_running.set()
            log.info("running", group=self.name, generation=self.generation, pids=self.pids)
        elif now - began > self._settings.start_timeout_s:
            detail = f"not running {self._settings.start_timeout_s:g} s after its start"
            self._settle(_Ended(reason="start_timeout", detail=detail))

    async def _ask(self, index: int) -> Any:
        try:
            return await asyncio.to_thread(inspection.ask, self._launch.socket(index), "status", timeout_s=_ANSWER_S)
        except SignalboxError:
            return None

    async def _recover(self, ended: _Ended) -> None:
        if ended.exit_code == ConfigError.exit_code and not self._was_running.is_set():
            msg = f"{ended.detail}: it refuses its settings or the app"
            raise ConfigError(msg, hint="the process said why on stderr and in its log, above")
        RESTARTS.labels(process=self.name, reason=ended.reason).inc()
        decision = self._policy.crashed()
        self.state = GroupState.QUARANTINED if decision.quarantined else GroupState.RESTARTING
        log.warning("restarting", group=self.name, why=ended.detail, state=str(self.state), after_s=decision.after_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(decision.after_s):
                await self._stopping.wait()
        self.state = GroupState.RESTARTING


def free_addresses(count: int) -> list[str]:
    """So many distinct `127.0.0.1:PORT` that nobody listens on."""
    found: list[str] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_LOOPBACK, port))
            found.append(f"{_LOOPBACK}:{port}")
        if len(found) == count:
            return found
    msg = f"there are no {count} free ports between {_PORTS.start} and {_PORTS.stop} on {_LOOPBACK}"
    raise SignalboxError(msg, hint="end what occupies them")


async def _until_listening(child: ChildProcess, port: int) -> None:
    """Wait until the child listens, or has ended. Looks from outside: to connect would break the engine's handshake."""
    while child.exit_code is None and not await asyncio.to_thread(_listens, child.pid, port):  # noqa: ASYNC110 - no event
        await asyncio.sleep(_POLL_LISTENING_S)


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)
