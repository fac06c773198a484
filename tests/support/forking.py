"""A fork server for tests: what it forks does what its first argument says."""

import os
import signal
import sys
import time
from pathlib import Path

from signalbox.supervision import fork_server
from signalbox.supervision.standby import wait_for_start


def main(words: list[str]) -> int:
    match words:
        case ["sleep"]:
            time.sleep(600)
        case ["tell", path]:
            name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
            told = f"{name} {os.getpid() == os.getsid(0)} {os.environ['GREETING']}"
            Path(path).write_text(told, encoding="utf-8")
        case ["raise"]:
            raise RuntimeError
        case ["leave"]:
            sys.exit(7)
        case ["wait", "--standby", fd]:
            return 5 if wait_for_start(int(fd)) else 6
        case ["end itself"]:
            os.kill(os.getpid(), signal.SIGTERM)
    return 0


if __name__ == "__main__":
    fork_server.serve(int(sys.argv[-1]), main)
