"""Ties a child process to its supervisor: when the supervisor is gone, however it went, so is the child.

The supervisor passes its process id in the environment. A process that was started by hand has no such variable and is
not tied to anybody.
"""

import ctypes
import os
import signal
import sys
import threading
import time

#: Holds the process id of the supervisor that started this process.
PARENT_VARIABLE = "SIGNALBOX_PARENT_PID"
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.5


def die_with_parent() -> None:
    """Arrange that this process is killed as soon as its supervisor ends. Call it first thing in a child.

    On Linux the kernel does it, at the end of the *thread* that started this process, so a supervisor starts its
    children from a thread that lives as long as itself. Elsewhere a thread looks twice a second.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(int(parent),), name="parent-watch", daemon=True).start()
    if os.getppid() != int(parent):  # it ended before the kernel was told
        _die()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
