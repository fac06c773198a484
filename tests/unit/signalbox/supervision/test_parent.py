import os
import signal
import subprocess
import sys

import pytest

from signalbox.supervision import parent
from signalbox.supervision.parent import PARENT_VARIABLE

_CHILD = "from signalbox.supervision.parent import die_with_parent; die_with_parent(); print('alive')"


def _child(parent_pid: int) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, PARENT_VARIABLE: str(parent_pid)}
    return subprocess.run([sys.executable, "-c", _CHILD], env=environment, capture_output=True, text=True, check=False)


def test_a_child_of_its_supervisor_lives() -> None:
    """Being tied to a living parent changes nothing."""
    assert _child(os.getpid()).stdout == "alive\n"


def test_a_child_whose_supervisor_is_gone_already_dies_at_once() -> None:
    """A supervisor that ended while its child was starting leaves no orphan."""
    done = _child(1 if os.getpid() != 1 else 2)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""


def test_a_process_started_by_hand_is_tied_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a supervisor nothing is arranged."""
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    monkeypatch.setattr(parent, "_die", lambda: pytest.fail("it died"))
    parent.die_with_parent()


def test_where_the_kernel_does_not_watch_a_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher ends the process when its parent is another one."""
    parents = iter([100, 100, 1])
    died: list[bool] = []
    monkeypatch.setattr(parent, "_POLL_S", 0.0)
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(parent, "_die", lambda: died.append(True))
    parent._watch(100)
    assert died == [True]
