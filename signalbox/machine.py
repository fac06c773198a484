"""The machine that this process runs on."""

import os
import socket


def processors() -> int:
    """How many processors this process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on a TCP port now: connections of one that is gone do not hold it.

    Nobody is dialled for this, so a server that is there takes no notice.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
