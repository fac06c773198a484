"""One child process: started so that it cannot outlive its supervisor unnoticed, observed until its end, and ended.

A child has its own session, so Ctrl-C on the terminal reaches the supervisor alone, which then stops its children in
order. What it prints goes to the supervisor's stderr; stdout belongs to the user. `group.py` restarts children.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Protocol

from signalbox.errors import ConfigError, SignalboxError
from signalbox.supervision.parent import PARENT_VARIABLE
from signalbox.telemetry.logs import get_logger

_STDERR = 2

log = get_logger(__name__)


class StartFailed(SignalboxError):
    """A process could not be started this time."""


class ChildProcess:
    """A running child; a `Starter` makes one."""

    def __init__(self, name: str, pid: int, ended: "asyncio.Future[int]") -> None:
        """`ended` gives the exit code when it has ended; negative, the number of the signal that ended it."""
        self.name = name
        self.pid = pid
        self.ended = ended

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative, the number of the signal that ended it."""
        return self.ended.result() if self.ended.done() else None

    async def wait(self) -> int:
        """Wait for its end, and return the exit code."""
        return await asyncio.shield(self.ended)

    async def stop(self, *, timeout_s: float) -> int:
        """Ask it to end with SIGTERM, and kill it if it has not after `timeout_s`. Returns the exit code."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                return await self.wait()
        except TimeoutError:
            log.warning("process did not end in time and is killed", child=self.name, pid=self.pid, after_s=timeout_s)
            return await self.kill()

    async def kill(self) -> int:
        """End it and whatever it started, at once. Returns the exit code."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()


class Starter(Protocol):
    """Starts processes of one kind."""

    async def start(self, name: str, arguments: Sequence[str], *, standby: int | None = None) -> ChildProcess:
        """Start a process.

        Args:
            name: to be shown to people.
            arguments: of its command line.
            standby: descriptor on which it waits for the word to begin, given to it as `--standby`; None is at once.

        Raises:
            ConfigError: it cannot be started, now or later.
            StartFailed: it could not be started this time.
        """


class Program:
    """Starts a program anew for each process."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, inherited: Sequence[int] = ()
    ) -> None:
        """`environment` comes on top of this process's own; the `inherited` file descriptors stay open in a child."""
        self._command = command
        self._environment = environment or {}
        self._inherited = tuple(inherited)

    async def start(self, name: str, arguments: Sequence[str], *, standby: int | None = None) -> ChildProcess:
        """See `Starter`; to be called from the main thread (`parent.die_with_parent`).

        Raises:
            ConfigError: there is no such program, or it may not be run.
        """
        waits = () if standby is None else ("--standby", str(standby))
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *arguments,
                *waits,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=_STDERR,
                env={**os.environ, **self._environment, PARENT_VARIABLE: str(os.getpid())},
                pass_fds=self._inherited if standby is None else (*self._inherited, standby),
                start_new_session=True,
            )
        except OSError as error:
            msg = f"cannot start {name} with {self._command[0]!r}: {error.strerror}"
            raise ConfigError(msg) from error
        log.debug("process started", child=name, pid=process.pid)
        return ChildProcess(name, process.pid, asyncio.ensure_future(process.wait()))
