"""A statistical profile of one run, taken with py-spy from outside, from the first signal to the last alert."""

import re
import signal
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

from harness.contender import ENVIRONMENTS
from harness.environments import TOOLS

_RATE_HZ = 250
_MOST_LINES = 45
_STOP_TIMEOUT_S = 20.0
_LINE_NUMBER = re.compile(r":\d+\)$")
_NO_PYTHON = "(outside Python: the engine)"


class Profiler:
    """Attaches to a process on `begin` and writes the collapsed stacks when `end` is called."""

    def __init__(self, directory: Path) -> None:
        self._stacks = directory / "stacks.txt"
        self._log = directory / "py-spy.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, pid: int) -> None:
        """Start to sample a process and those it starts."""
        command = [str(ENVIRONMENTS / TOOLS / "bin" / "py-spy"), "record", "--pid", str(pid), "--rate", str(_RATE_HZ)]
        command += ["--threads", "--duration", "unlimited", "--format", "raw", "--output", str(self._stacks)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def end(self) -> None:
        """Stop to sample."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_STOP_TIMEOUT_S)

    def report(self) -> str:
        """Where the time went, by function itself and by function with what it called.

        Raises:
            RuntimeError: there are no samples; py-spy needs the right to trace another process.
        """
        if not self._stacks.exists():
            msg = f"py-spy took no samples: {self._log.read_text(errors='replace')[-500:]}"
            raise RuntimeError(msg)
        return summary(self._stacks.read_text())


def summary(collapsed: str) -> str:
    """Two tables from collapsed stacks (`thread;a;b;c COUNT` per line), in percent of the samples of one thread.

    That thread is the one seen in the most different places: py-spy counts threads that wait as running.
    """
    threads: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        threads[thread][tuple(frames)] += int(count)
    stacks = max(threads.values(), key=len)
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for path, samples in stacks.items():
        own[path[-1] if path else _NO_PYTHON] += samples
        for function in {_LINE_NUMBER.sub(")", frame) for frame in path}:
            with_callees[function] += samples
    total = sum(own.values())
    parts = [f"{total} samples of the busiest thread at {_RATE_HZ} Hz"]
    for title, counts in (("lines themselves", own), ("functions with what they called", with_callees)):
        parts.append(f"\n{title}:")
        parts += [f"{100 * samples / total:6.1f} %  {frame}" for frame, samples in counts.most_common(_MOST_LINES)]
    return "\n".join(parts) + "\n"
