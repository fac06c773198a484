"""Starts an embedded broker, says so, and waits to be killed: `python -m tests.support.starter DATA_DIR`."""

import signal
import sys
import threading
from pathlib import Path

from connectors.brokers.embedded import EmbeddedBroker


def main() -> None:
    broker = EmbeddedBroker(Path(sys.argv[1]))
    addresses: list[str] = []
    # From a thread that ends at once: the broker must outlive it, and only it.
    starting = threading.Thread(target=lambda: addresses.append(broker.start()))
    starting.start()
    starting.join()
    sys.stdout.write(f"{broker.pid} {addresses[0]}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
