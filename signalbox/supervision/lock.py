"""One node per data directory: an exclusive lock that lasts as long as any process of the node.

The lock is a `flock` on `<data_dir>/lock`. Children inherit the open file on purpose, so after a supervisor was killed
no other can start while one of its workers is still alive and may still write. The kernel lets go of the lock with the
last process; the file stays, and what it says about its owner is only believed while the lock is held.
A network file system may not honour the lock between hosts: a data directory belongs on a local disk.
"""

import errno
import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from signalbox.errors import ConfigError, Conflict
from signalbox.telemetry.logs import get_logger

_POLL_S = 0.05
#: Process start times are rounded differently by different readers.
_SAME_START_S = 1.0

log = get_logger(__name__)


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock."""

    pid: int
    node: str
    started_at: datetime
    process_started_at: float
    """Start of the process in seconds since 1970: tells it from a later one with the same id."""
    http: str | None = None


class DataDirLock:
    """A held lock; made by `acquire`."""

    def __init__(self, fd: int, owner: Owner) -> None:
        self.fd = fd
        """To be inherited by every process that may write to the data directory."""
        self.owner = owner
        self._write()

    def describe(self, *, http: str) -> None:
        """Add where the owner can be reached, for whoever is refused."""
        self.owner = msgspec.structs.replace(self.owner, http=http)
        self._write()

    def release(self) -> None:
        """Let go of it, unless a child still holds it too."""
        os.close(self.fd)

    def _write(self) -> None:
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, msgspec.json.encode(self.owner), 0)


def acquire(data_dir: Path, *, node: str, wait_s: float = 10.0) -> DataDirLock:
    """Take the data directory for this process, creating it if needed.

    When the owner is dead but processes it left behind are not, waits up to `wait_s` for them to end.

    Raises:
        Conflict: another node has it; the message names the owner.
        ConfigError: the directory cannot be made or written to.
    """
    path = data_dir / "lock"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        msg = f"the data directory {data_dir} cannot be used: {error.strerror}"
        raise ConfigError(msg, hint="choose another one with --data-dir") from error
    try:
        _take(fd, path, wait_s)
    except BaseException:
        os.close(fd)
        raise
    started = psutil.Process().create_time()
    return DataDirLock(fd, Owner(pid=os.getpid(), node=node, started_at=datetime.now(UTC), process_started_at=started))


def _take(fd: int, path: Path, wait_s: float) -> None:
    deadline, waiting = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            return
        owner = _read_owner(path)
        if owner is not None and _alive(owner):
            raise _refusal(path, owner, "")
        if owner is not None and not waiting:
            waiting = True
            log.warning("waiting for processes of an earlier node to end", owner=owner.pid, wait_s=wait_s)
        if time.monotonic() >= deadline:
            raise _refusal(
                path, owner, f"; its owner is gone, but processes it started did not end within {wait_s:g} s"
            )
        time.sleep(_POLL_S)


def _read_owner(path: Path) -> Owner | None:
    """The owner, or None while it is being written."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def _alive(owner: Owner) -> bool:
    try:
        process = psutil.Process(owner.pid)
        same = abs(process.create_time() - owner.process_started_at) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _refusal(path: Path, owner: Owner | None, more: str) -> Conflict:
    data_dir = path.parent.resolve()
    if owner is None:
        who = "an unknown process"
    else:
        at = f", {owner.http}" if owner.http else ""
        who = f"node {owner.node} (process {owner.pid}, since {owner.started_at:%Y-%m-%d %H:%M:%S} UTC{at})"
    msg = f"the data directory {data_dir} is in use by {who}{more}"
    return Conflict(msg, hint="stop that node, or give this one a data directory of its own with --data-dir")
