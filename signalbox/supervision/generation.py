"""One generation of processes that live and die together: got ready, begun in order, asked, and reaped to the last.

A generation never restarts anything: how it ended is its `outcome`, and `group.py` decides what follows. Processes that
can stand by are started side by side and wait; to begin then takes no more than a word. Two generations may exist at a
time, but only one of them has begun.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signalbox.config import SupervisionSettings
from signalbox.errors import SignalboxError
from signalbox.machine import is_free
from signalbox.supervision import inspection
from signalbox.supervision.process import ChildProcess, Starter, StartFailed
from signalbox.supervision.standby import Standby

_POLL_LISTENING_S = 0.002
#: A process that is busy may be slow to answer; this leaves it several chances before it counts as frozen.
_ANSWER_S = 3.0
_LOOPBACK = "127.0.0.1"
#: Below the ports that Linux (32768) and macOS (49152) give to outgoing connections: one of those could take an address
#: between the moment it is chosen and the moment its worker listens there.
_PORTS = range(20_000, 32_768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a process is told when it is started: its number, and the addresses of all."""

    index: int
    addresses: Sequence[str] = ()
    """`HOST:PORT` of every process of the generation; none if there is one only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the processes of a group are started and asked."""

    starter: Starter
    arguments: Callable[[Place], Sequence[str]]
    """Of a process's command line."""
    socket: Callable[[int], Path]
    """Where the process with this index serves its inspection socket."""
    is_running: Callable[[Any], bool]
    """Whether an answer to `status` means that the process does its work."""
    has_settled: Callable[[Sequence[Any]], bool] = lambda _answers: True
    """Whether the answers mean that all the work is taken up and something was saved, so that a change is confirmed."""
    is_calm: Callable[[Sequence[Any]], bool] = lambda _answers: True
    """Whether the answers mean that there is little to save at the moment, so that a drain is short."""
    stuck_s: Callable[[Sequence[Any]], float] = lambda _answers: 0.0
    """Seconds since the processes, by their answers, last got on with their work."""
    stands_by: bool = False
    """Whether the processes can be told to wait, by `--standby`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Why a generation ended. `reason` is a label of bounded values, `detail` is for people."""

    reason: str
    detail: str
    exit_code: int | None = None


class Generation:
    """So many processes. Make it and call it inside one event loop, and `reap` it whatever happened."""

    def __init__(
        self, name: str, launch: Launch, size: int, *, settings: SupervisionSettings, on_exit: Callable[[int], None]
    ) -> None:
        """`on_exit` is called with the process id of every process that ended."""
        self.name = name
        self.size = size
        self.outcome: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.answers: list[Any] = [None] * size
        """What each process last said about itself; None before its first answer."""
        self._launch = launch
        self._settings = settings
        self._on_exit = on_exit
        self._children: list[ChildProcess] = []
        self._standbys: list[Standby] = []
        self._addresses: list[str] = []
        self._begun = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: asyncio.Future[None] | None = None

    @property
    def pids(self) -> list[int]:
        """Of the processes that live, by index."""
        return [child.pid for child in self._children if child.exit_code is None]

    def settle(self, ended: Ended) -> None:
        """Let the generation end for this reason, unless it has ended already."""
        if not self.outcome.done():
            self.outcome.set_result(ended)

    async def prepare(self) -> None:
        """Start the processes and wait until each stands by, or the generation has ended. Once is enough."""
        if self._starting is not None:
            return
        self._addresses = free_addresses(self.size) if self.size > 1 else []
        self._starting = asyncio.ensure_future(self._start_all())
        await asyncio.shield(self._starting)  # who loses patience must not lose sight of what was started
        waiting = asyncio.gather(*(standby.ready() for standby in self._standbys))
        either: list[asyncio.Future[Any]] = [asyncio.ensure_future(waiting), self.outcome]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def begin(self, *, clean: bool) -> None:
        """Let the processes begin, each when those before it listen.

        Args:
            clean: whether the generation before has saved and written everything it did.
        """
        self._begun = True
        for index, child in enumerate(self._children):
            if self.outcome.done():
                return
            if self._standbys:
                self._standbys[index].start(clean=clean)
            # A process dials those before it and sleeps a second when refused; the last one is dialled by nobody.
            if index < self.size - 1:
                await _until_listening(child, self._addresses[index])

    async def ask(self) -> list[bool]:
        """Ask every process for its status; says which have answered."""
        answers = await asyncio.gather(*map(self._ask, range(self.size)))
        for index, answer in enumerate(answers):
            if answer is not None:
                self.answers[index] = answer
        return [answer is not None for answer in answers]

    def is_running(self) -> bool:
        """Whether every process has said that it does its work."""
        return all(answer is not None and self._launch.is_running(answer) for answer in self.answers)

    def has_settled(self) -> bool:
        """Whether the processes have taken up all the work, and saved something since they began."""
        return None not in self.answers and self._launch.has_settled(self.answers)

    def is_calm(self) -> bool:
        """Whether a drain would be short now, as far as the processes have said."""
        return self._launch.is_calm(self.answers)

    def stuck_s(self) -> float:
        """Seconds since the processes last got on with their work, as far as they have said."""
        return self._launch.stuck_s(self.answers)

    def kill(self) -> None:
        """Kill every process now, without waiting."""
        for child in self._children:
            if child.exit_code is None:
                self._keep(child.kill())

    async def reap(self, *, drain: bool) -> bool:
        """End all processes and wait for each, so that none lives when this returns.

        Returns whether all of them have drained, and so have saved everything.
        """
        timeout_s = self._settings.drain_timeout_s
        if self._starting is not None:
            await asyncio.wait({self._starting})
        drain = drain and self._begun  # before, there is nothing to save
        ends = (child.stop(timeout_s=timeout_s) if drain else child.kill() for child in self._children)
        codes = await asyncio.gather(*ends)
        for standby in self._standbys:
            standby.close()
        for child in self._children:
            self._on_exit(child.pid)
        self._children, self._standbys = [], []
        return drain and bool(codes) and not any(codes)

    async def _start_all(self) -> None:
        try:
            for index in range(self.size):
                await self._start(index)
        except StartFailed as error:
            self.settle(Ended(reason="start_failed", detail=str(error)))

    async def _start(self, index: int) -> None:
        standby = Standby() if self._launch.stands_by else None
        if standby is not None:
            self._standbys.append(standby)
        child = await self._launch.starter.start(
            f"{self.name}-{index}",
            self._launch.arguments(Place(index=index, addresses=self._addresses)),
            standby=None if standby is None else standby.fd,
        )
        if standby is not None:
            standby.started()
        self._children.append(child)
        self._keep(self._observe(child))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _observe(self, child: ChildProcess) -> None:
        code = await child.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        detail = f"{child.name} (process {child.pid}) {how}"
        self.settle(Ended(reason="killed" if code < 0 else "exit", detail=detail, exit_code=code))

    async def _ask(self, index: int) -> Any:
        try:
            return await asyncio.to_thread(inspection.ask, self._launch.socket(index), "status", timeout_s=_ANSWER_S)
        except SignalboxError:
            return None


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


async def _until_listening(child: ChildProcess, address: str) -> None:
    """Wait until the child listens, or has ended. To connect would break the engine's handshake."""
    host, _, port = address.rpartition(":")
    while child.exit_code is None and is_free(host, int(port)):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(_POLL_LISTENING_S)
