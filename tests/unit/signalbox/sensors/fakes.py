"""Stand-ins for the broker side: a topic that can be taken away, and publishers on it."""

from typing import Any

from schemas.signal import Signal
from signalbox.errors import Unreachable


class FakeBroker:
    """Keeps what was acknowledged, and every publisher made for it."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up
        self.late = False
        """Refuse to acknowledge, but take the signals all the same."""
        self.received: list[tuple[str, Signal[Any]]] = []
        self.publishers: list[FakePublisher] = []

    def publisher(self) -> "FakePublisher":
        made = FakePublisher(self)
        self.publishers.append(made)
        return made

    @property
    def ids(self) -> list[str]:
        return [signal.id for _, signal in self.received]


class FakePublisher:
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self.queue: list[tuple[str, Signal[Any]]] = []
        self.closed = False

    def publish(self, topic: str, signal: Signal[object]) -> None:
        assert not self.closed
        self.queue.append((topic, signal))

    def flush(self, timeout_s: float) -> None:
        assert timeout_s > 0
        if self._broker.up or self._broker.late:
            self._broker.received += self.queue
        if not self._broker.up:
            raise Unreachable(f"{len(self.queue)} undelivered")
        self.queue.clear()

    def close(self) -> None:
        self.closed = True
