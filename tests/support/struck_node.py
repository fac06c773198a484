"""The command line, with a supervisor that is struck at a chosen step of a rescale, once, when a file says so.

Run as `python -m tests.support.struck_node up ...`. The file, named by `SIGNALBOX_TEST_STRIKE`, holds a `Strike` as
JSON, and is gone once it was obeyed; what was struck is then in the file beside it, `<name>.struck`. Both are written
whole or not at all, for their readers look at them at any moment.
"""

import json
import os
import signal
import sys
from pathlib import Path

import psutil

from signalbox.cli.main import run
from signalbox.durable import write_at_once
from signalbox.supervision import fork_server, scaler

ORDER_FILE = "SIGNALBOX_TEST_STRIKE"
VICTIMS = ("supervisor", "server", "old", "new")
STEPS = ("plan", "warm", "drain", "reap", "save", "start", "confirm", "done")


def _strike_at(step: str, old: list[int], new: list[int]) -> None:
    order = Path(os.environ[ORDER_FILE])
    if not order.exists():
        return
    wanted = json.loads(order.read_text())
    if wanted["step"] != step:
        return
    victims = {"supervisor": [os.getpid()], "server": _servers(), "old": old, "new": new}[wanted["who"]]
    write_at_once(order.with_suffix(".struck"), json.dumps(victims[:1]).encode())
    order.unlink()
    for victim in victims[:1]:
        os.kill(victim, signal.Signals[wanted["how"]])


def _servers() -> list[int]:
    return [child.pid for child in psutil.Process().children() if child.name() == fork_server.NAME]


def main() -> None:
    """Run the command line with the strike in place."""
    tell = scaler._Story.tell

    def telling(self: scaler._Story, step: str, what: str, **more: object) -> None:
        tell(self, step, what, **more)  # type: ignore[arg-type]
        group = self._group
        upcoming = group._change.next.pids if group._change else []
        _strike_at(step, group.pids, upcoming or group.pids)

    scaler._Story.tell = telling  # type: ignore[method-assign,assignment]
    run()


if __name__ == "__main__":
    sys.exit(main())
