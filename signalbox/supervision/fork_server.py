"""A process that has everything imported and forks others from itself: each is ready in a fraction of the time.

To start an interpreter and to import what a worker needs takes about a second of a processor, which those at work miss
while others are got ready. Here it is spent once. Supervisor and server share a socket; both ends are in this module.
A request is `{"name", "arguments"}` with a descriptor for the word to begin (`standby.py`); the new process answers
`{"pid"}`, and at its end the server says `{"pid", "code"}`. The server has one thread and no client of anything, for
only such a process may fork. It is tied to the supervisor, as all it forks are tied to it.
"""

import asyncio
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from signalbox.supervision.parent import PARENT_VARIABLE, die_with_parent
from signalbox.supervision.process import ChildProcess, Program, StartFailed
from signalbox.telemetry.logs import get_logger

NAME = "fork-server"
OPTION = "--fork-server"
_MESSAGE_BYTES = 65_536
_NOT_FOR_THE_SERVER = (signal.SIGTERM, signal.SIGINT)
#: A server at work forks, and tells of an end, within milliseconds; one that takes so long is frozen.
_FORK_S, _TELL_S = 5.0, 2.0
_LOOK_S = 0.01

log = get_logger(__name__)


def can_fork() -> bool:
    """Whether processes can be forked here. Elsewhere than on Linux, libraries may start threads on their own."""
    return sys.platform == "linux"


class ForkServer:
    """The supervisor's end. The server is started with the first process, and again when it is gone."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        inherited: Sequence[int] = (),
        patience_s: float,
    ) -> None:
        """Args:
        command: runs `serve` with the descriptor that follows `--fork-server`.
        environment: on top of this process's own, for the server and all it forks.
        inherited: file descriptors for them.
        patience_s: a server that has not forked so long after its start is killed.
        """
        self._command = command
        self._environment = environment
        self._inherited = tuple(inherited)
        self._patience_s = patience_s
        self._server: ChildProcess | None = None
        self._socket: socket.socket | None = None
        self._forked: dict[int, _Forked] = {}
        self._answer: asyncio.Future[_Forked] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self, name: str, arguments: Sequence[str], *, standby: int | None = None) -> ChildProcess:
        """Fork a process; see `Starter`. Calls may not be cancelled: shield them.

        Raises:
            ConfigError: the server cannot be started.
            StartFailed: it has not forked.
        """
        async with self._one_at_a_time:
            patience_s = self._patience_s if self._socket is None else _FORK_S
            try:
                async with asyncio.timeout(patience_s):
                    child = await self._fork(name, arguments, standby)
            except TimeoutError:
                await self.close()
                msg = f"{name} was not forked in {patience_s:g} s"
                raise StartFailed(msg) from None
            except OSError as error:
                msg = f"{name} could not be forked: {error}"
                raise StartFailed(msg) from error
        child.name = name
        log.debug("process forked", child=name, pid=child.pid)
        return child

    async def close(self) -> None:
        """End the server, and with it whatever it has forked."""
        if self._server is not None:
            await self._server.kill()
        if self._socket is not None:
            self._lost(self._socket)

    async def _fork(self, name: str, arguments: Sequence[str], standby: int | None) -> "_Forked":
        connection = self._socket or await self._begin()
        self._answer = asyncio.get_running_loop().create_future()
        request = json.dumps({"name": name, "arguments": list(arguments)}).encode()
        socket.send_fds(connection, [request], [] if standby is None else [standby])
        return await self._answer

    async def _begin(self) -> socket.socket:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            inherited = (*self._inherited, other.fileno())
            program = Program((*self._command, OPTION, str(other.fileno())), self._environment, inherited)
            self._server = await program.start(NAME, ())
        own.setblocking(False)
        self._socket = own
        asyncio.get_running_loop().add_reader(own, self._hear, own)
        return own

    def _hear(self, connection: socket.socket) -> None:
        try:
            message = connection.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lost(connection)
            return
        told = json.loads(message)
        pid = told["pid"]
        if "code" not in told:
            child = self._forked[pid] = _Forked(pid, self.close)
            self._answered(child)
        elif pid in self._forked:
            self._forked.pop(pid).has_ended(told["code"])
        else:
            self._answered(ProcessLookupError(f"process {pid} ended with {told['code']} before it said anything"))

    def _answered(self, answer: "_Forked | Exception") -> None:
        if self._answer is None or self._answer.done():
            return
        if isinstance(answer, Exception):
            self._answer.set_exception(answer)
        else:
            self._answer.set_result(answer)

    def _lost(self, connection: socket.socket) -> None:
        """The server is gone, and all that it has forked is killed by the kernel."""
        if connection is not self._socket:
            return
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()
        self._socket = None
        forked, self._forked = self._forked, {}
        for child in forked.values():
            child.mourn()
        self._answered(ConnectionResetError("the fork server is gone"))


class _Forked(ChildProcess):
    """A process that the server has forked."""

    def __init__(self, pid: int, end_server: Callable[[], Any]) -> None:
        super().__init__("", pid, asyncio.get_running_loop().create_future())
        self._end_server = end_server
        self._mourning: asyncio.Task[None] | None = None
        try:
            self._identity: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._identity = None

    def has_ended(self, code: int) -> None:
        """The server says so."""
        if not self.ended.done():
            self.ended.set_result(code)

    def mourn(self) -> None:
        """Nobody will tell how it ends: find out when it has, and take it for killed."""
        self._mourning = asyncio.create_task(self._mourn())

    async def kill(self) -> int:
        try:
            async with asyncio.timeout(_TELL_S):
                return await super().kill()
        except TimeoutError:
            log.warning("the fork server does not tell of ends and is killed", child=self.name, pid=self.pid)
            await self._end_server()
            return await self.wait()

    async def _mourn(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        while self._lives():  # noqa: ASYNC110 - it is no child of this process, so nobody tells
            await asyncio.sleep(_LOOK_S)
        self.has_ended(-signal.SIGKILL)

    def _lives(self) -> bool:
        try:
            identity = self._identity
            return identity is not None and identity.is_running() and identity.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def serve(fd: int, run: Callable[[list[str]], int]) -> None:
    """In the server: fork what is asked for, until the supervisor lets go of its end.

    Args:
        fd: the other end of the supervisor's socket.
        run: what a forked process does with its arguments; returns its exit code.
    """
    die_with_parent()
    _rename(NAME)
    gc.collect()
    gc.freeze()  # what lives now lives on in every process: a collector that touches it would copy its memory
    awake, wakes = socket.socketpair()
    supervisor = socket.socket(fileno=fd)
    waiting = selectors.DefaultSelector()
    for end in (awake, wakes):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    for number in _NOT_FOR_THE_SERVER:  # who ends a whole group of processes means those that can drain
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    waiting.register(awake, selectors.EVENT_READ)
    waiting.register(supervisor, selectors.EVENT_READ)
    own_pid = os.getpid()
    while True:
        for key, _ in waiting.select():
            if key.fileobj is awake:
                awake.recv(_MESSAGE_BYTES)
                _tell_of_ends(supervisor)
                continue
            message, fds, _, _ = socket.recv_fds(supervisor, _MESSAGE_BYTES, 1)
            if not message:
                return
            if os.fork() == 0:
                for mine in (waiting, awake, wakes):
                    mine.close()
                _become(json.loads(message), fds, own_pid, supervisor, run)
            for given in fds:
                os.close(given)


def _tell_of_ends(supervisor: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            ended = {"pid": pid, "code": os.waitstatus_to_exitcode(status)}
            supervisor.send(json.dumps(ended).encode())


def _become(
    request: dict[str, Any], fds: list[int], server: int, supervisor: socket.socket, run: Callable[[list[str]], int]
) -> NoReturn:
    """In the forked process: be the process that was asked for, to the end."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_NOT_FOR_THE_SERVER):
            signal.signal(number, signal.SIG_DFL)
        os.environ[PARENT_VARIABLE] = str(server)
        os.setsid()
        die_with_parent()
        _rename(request["name"])
        supervisor.send(json.dumps({"pid": os.getpid()}).encode())
        supervisor.close()
        waits = [word for fd in fds for word in ("--standby", str(fd))]
        code = run([*request["arguments"], *waits])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may return into the server's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _rename(name: str) -> None:
    """Give this process a name that tools show, for its command line is the server's."""
    Path("/proc/self/comm").write_text(name, encoding="utf-8")
