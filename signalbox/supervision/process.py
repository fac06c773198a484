"""One child process: started so that it cannot outlive its supervisor unnoticed, observed until its end, and ended.

A child has its own session, so Ctrl-C on the terminal reaches the supervisor alone, which then stops its children in
order. What it prints goes to the supervisor's stderr; stdout belongs to the user. `group.py` restarts children.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from signalbox.errors import ConfigError
from signalbox.supervision.parent import PARENT_VARIABLE
from signalbox.telemetry.logs import get_logger

_STDERR = 2

log = get_logger(__name__)


class ChildProcess:
    """A running child. `start` makes one; call it from the main thread (see `parent.die_with_parent`)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], *, environment: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> "ChildProcess":
        """Start `command` with `environment` on top of this process's own, and the `inherited` file descriptors.

        Raises:
            ConfigError: there is no such program, or it may not be run.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=_STDERR,
                env={**os.environ, **environment, PARENT_VARIABLE: str(os.getpid())},
                pass_fds=tuple(inherited),
                start_new_session=True,
            )
        except OSError as error:
            msg = f"cannot start {name} with {command[0]!r}: {error.strerror}"
            raise ConfigError(msg) from error
        log.debug("process started", child=name, pid=process.pid)
        return cls(name, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative, the number of the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end, and return the exit code."""
        return await self._process.wait()

    async def stop(self, *, timeout_s: float) -> int:
        """Ask it to end with SIGTERM, and kill it if it has not after `timeout_s`. Returns the exit code."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
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
