"""What the parts of the demo share: reading topics as any consumer would, and waiting for what is to come."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from signalbox.errors import DeadlineExceeded

if TYPE_CHECKING:
    from schemas.signal import Signal
    from signalbox.config import KafkaSettings


@contextlib.contextmanager
def watching(
    kafka: "KafkaSettings", topics: Sequence[str], *, start: str, note: Callable[[str, "Signal[Any]"], None]
) -> Iterator[None]:
    """Meanwhile, give each signal on the topics to `note` with its topic's name, from a thread."""
    from schemas.signal import MalformedSignal, decode
    from signalbox import plugins

    done = threading.Event()
    records = plugins.reader(kafka).read(topics, start=start, follow=True, timeout_s=None, stop=done.is_set)

    def read() -> None:
        for record in records:
            with contextlib.suppress(MalformedSignal):
                note(record.topic, decode(record.value, record.headers))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)


def wait_until(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    """Wait until the condition holds.

    Raises:
        DeadlineExceeded: it did not in time; the message begins with `otherwise`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            msg = f"{otherwise} within {timeout_s:.0f} s"
            raise DeadlineExceeded(msg)
        time.sleep(0.02)
