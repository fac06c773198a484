"""Stands in for a child of the node: serves the inspection socket, notes what happens to it, misbehaves on demand.

Called like a worker (`agents --index 0 [--addresses A,B]`) or, without arguments, like the sensor process. A file in
the data directory asks for misbehaviour: `crash-NAME` (exit 1 at once), `refuse-NAME` (exit 3 at once), `hang-NAME`
(ignore SIGTERM), `mute-NAME` (do not answer).
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from signalbox.config import load_settings
from signalbox.supervision import fork_server, inspection
from signalbox.supervision.parent import die_with_parent
from signalbox.supervision.standby import wait_for_start


def began(words: list[str]) -> str | None:
    """How it is to begin, once it is told to; None if it is not needed."""
    if "--standby" not in words:
        return "begin"
    start = wait_for_start(int(words[words.index("--standby") + 1]))
    return None if start is None else "begin clean" if start.clean else "begin"


def main(words: list[str]) -> int:
    die_with_parent()
    settings = load_settings()
    data_dir = settings.node.data_dir
    index = int(words[words.index("--index") + 1]) if words else 0
    name = f"{words[0]}-{index}" if words else "sensors"
    addresses = words[words.index("--addresses") + 1].split(",") if "--addresses" in words else []

    def note(event: str) -> None:
        line = json.dumps({"at": time.monotonic(), "name": name, "pid": os.getpid(), "event": event})
        with (data_dir / "events.jsonl").open("a") as events:
            events.write(line + "\n")

    note("start")
    for misbehaviour, code in (("crash", 1), ("refuse", 3)):
        if (data_dir / f"{misbehaviour}-{name}").exists():
            return code
    if (begin := began(words)) is None:
        return 0
    note(begin)
    for lower in addresses[:index]:
        with socket.socket() as probe:
            host, port = lower.split(":")
            note(f"dial {'ok' if probe.connect_ex((host, int(port))) == 0 else 'refused'}")
    listener = socket.create_server(("127.0.0.1", int(addresses[index].split(":")[1]))) if addresses else None

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: note("term") if (data_dir / f"hang-{name}").exists() else stop.set())
    status = {
        "state": "running", "flow": "agents", "index": index, "pid": os.getpid(), "agents": 10,
        "positions": {f"signals-{index}": [40, 50]}, "epoch_age_s": 0.1, "epochs": 1,
    } if words else {"clock": {"samples": 1}}  # fmt: skip
    agent = {"agent_id": f"a-{index}", "type": "task_agent", "status": "running", "processed": 1, "errors": 0}
    handlers = {
        "status": lambda _: status,
        "agents": lambda params: {"agents": [agent][: params["limit"]], "complete": True},
        "agent": lambda params: (
            {**agent, "state": {"n": 1}} if params["id"] == agent["agent_id"] else {"missing": True}
        ),
    }
    mute = (data_dir / f"mute-{name}").exists()
    server = inspection.serve(inspection.socket_path(Path(data_dir), name), {} if mute else handlers)
    note("works")
    while not stop.wait(3600):
        pass
    note("drained")
    server.close()
    if listener:
        listener.close()
    return 0


if __name__ == "__main__":
    if fork_server.OPTION in sys.argv:
        fork_server.serve(int(sys.argv[-1]), main)
    else:
        sys.exit(main(sys.argv[1:]))
