"""The command line, with a supervisor that is struck at a chosen step of a rescale, once, when a file says so.

Run as `python -m tests.support.struck_node up ...`. The file, named by `SIGNALBOX_TEST_STRIKE`, holds a `Strike` as
JSON, and is gone once it was obeyed; what was struck is then in the file beside it, `<name>.struck`.
"""

import json
import os
import signal
import sys
from pathlib import Path

from signalbox.cli.main import run
from signalbox.supervision import scaler

ORDER_FILE = "SIGNALBOX_TEST_STRIKE"
STEPS = ("plan", "warm", "drain", "reap", "save", "start", "confirm", "done")


def _strike_at(step: str, old: list[int], new: list[int]) -> None:
    order = Path(os.environ[ORDER_FILE])
    if not order.exists():
        return
    wanted = json.loads(order.read_text())
    if wanted["step"] != step:
        return
    victims = [os.getpid()] if wanted["who"] == "supervisor" else (old if wanted["who"] == "old" else new)
    order.with_suffix(".struck").write_text(json.dumps(victims[:1]))
    order.unlink()
    for victim in victims[:1]:
        os.kill(victim, signal.Signals[wanted["how"]])


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
