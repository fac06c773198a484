"""A process that is ready and waits: started ahead of need, so that a change costs no start of an interpreter.

Supervisor and process share a socket pair. The process says that it is ready, and begins when it is told to. When the
supervisor lets go of its end instead, or dies, the process ends without having done anything.
"""

import asyncio
import contextlib
import socket
from typing import NamedTuple

_READY = b"r"
_START = b"s"
_START_CLEAN = b"c"


class Standby:
    """The supervisor's end. Give `fd` to the process, and call `started` once it has it."""

    def __init__(self) -> None:
        self._own, self._others = socket.socketpair()
        self._own.setblocking(False)
        self._is_ready = False

    @property
    def fd(self) -> int:
        """The file descriptor for the process to inherit."""
        return self._others.fileno()

    def started(self) -> None:
        """Let go of the process's end: from now on its death shows here."""
        self._others.close()

    async def ready(self) -> bool:
        """Wait until the process is ready; False when it ended before."""
        if not self._is_ready:
            with contextlib.suppress(OSError):
                self._is_ready = await asyncio.get_running_loop().sock_recv(self._own, 1) == _READY
        return self._is_ready

    def start(self, *, clean: bool) -> None:
        """Tell the process to begin; `clean` as in `Start`. One that is gone is found out by whoever watches it."""
        with contextlib.suppress(OSError):
            self._own.send(_START_CLEAN if clean else _START)

    def close(self) -> None:
        """Let go; a process that has not begun ends."""
        self._own.close()
        self._others.close()


class Start(NamedTuple):
    """The word to begin."""

    clean: bool
    """Whether all processes before have saved everything that they did, and written everything that they said."""


def wait_for_start(fd: int) -> Start | None:
    """In the process: say that it is ready, and wait for the word. None when it is not needed."""
    with socket.socket(fileno=fd) as supervisor:
        supervisor.send(_READY)
        word = supervisor.recv(1)
    return Start(clean=word == _START_CLEAN) if word else None
