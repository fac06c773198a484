"""The part of the demo in which more comes in than one worker can do: the autoscaler adds one, and takes it back."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from signalbox.cli.demo_watch import wait_until, watching
from signalbox.cli.session import SOURCE
from signalbox.errors import SignalboxError

if TYPE_CHECKING:
    from schemas.signal import Signal
    from signalbox.cli.node_client import NodeClient
    from signalbox.config import KafkaSettings

Say = Callable[[str], None]

#: The app, in which one worker inspects a little less than 500 a second.
APP = "signalbox.cli.demo_parcels:app"
_PER_S = 800
_BURST_S = 8.0
_SHELVES = 200
_TIMEOUT_S = 60.0
_LOOK_S = 2.0
#: A small machine is to see both ways within a minute; in earnest fewer workers are taken only after two minutes.
SETTINGS = {
    "scaling.flows.agents.max": "2",
    "scaling.flows.agents.cooldown_s": "3",
    "scaling.flows.agents.catch_up_s": "10",
    "scaling.flows.agents.pause_s": "0.5",
    "scaling.flows.agents.down_window_s": "4",
}


@dataclass(slots=True)
class Burst:
    """What has been read back about the burst."""

    sent: int = 0
    inspected: Counter[int] = field(default_factory=Counter)
    workers: list[int] = field(default_factory=list)
    """The numbers of workers there were, in order."""

    @property
    def lost(self) -> int:
        return self.sent - len(self.inspected)

    @property
    def duplicated(self) -> int:
        return sum(count - 1 for count in self.inspected.values())


def show_burst(kafka: "KafkaSettings", node: "NodeClient", say: Say) -> Burst:
    """Send more than one worker can do, and tell what the autoscaler makes of it, until all is as it was.

    Raises:
        SignalboxError: it did not scale up and down again, or parcels were lost or inspected twice.
    """
    burst = Burst(workers=[1])
    with watching(kafka, ("results", "scaling"), start="now", note=partial(_note, burst, say)), _telling_lag(node, say):
        say(f"a burst: {_PER_S} parcels a second for {_BURST_S:.0f} s; one worker inspects fewer than 500")
        _send(kafka, burst)
        wait_until(lambda: 2 in burst.workers, _TIMEOUT_S, "no worker was added")
        wait_until(lambda: burst.lost == 0, _TIMEOUT_S, "some parcels were never inspected")
        say(f"all {burst.sent} parcels are inspected: {burst.lost} lost, {burst.duplicated} twice")
        wait_until(lambda: burst.workers == [1, 2, 1], _TIMEOUT_S, "the worker was not taken back")
    if burst.duplicated:
        msg = f"{burst.duplicated} parcels were inspected twice"
        raise SignalboxError(msg)
    return burst


def _send(kafka: "KafkaSettings", burst: Burst) -> None:
    from schemas.signal import new_signal
    from signalbox import plugins

    publisher = plugins.publisher(kafka)
    total, began = int(_PER_S * _BURST_S), time.monotonic()
    while burst.sent < total:
        due = min(total, int((time.monotonic() - began) * _PER_S))
        for number in range(burst.sent, due):
            shelf = f"shelf-{number % _SHELVES}"
            publisher.publish("signals", new_signal("parcel.scanned", {"parcel": number}, source=SOURCE, subject=shelf))
        burst.sent = max(burst.sent, due)
        time.sleep(0.01)
    publisher.flush(_TIMEOUT_S)
    publisher.close()


def _note(burst: Burst, say: Say, topic: str, signal: "Signal[Any]") -> None:
    if signal.type == "parcel.inspected":
        burst.inspected[signal.data["parcel"]] += 1
    elif signal.subject != "flow/agents":
        return
    elif signal.type == "scaling.decision.made":
        data = signal.data
        say(f"decision: {data['current']} -> {data['desired']} workers ({data['reason']}): {data['message']}")
    elif signal.type == "scaling.rescale.completed":
        burst.workers.append(signal.data["workers"])
        pause_s = signal.data["pause_s"] or 0.0
        say(f"rescaled to {signal.data['workers']} workers; nothing was processed for {pause_s * 1000:.0f} ms")


@contextmanager
def _telling_lag(node: "NodeClient", say: Say) -> Iterator[None]:
    """Meanwhile, tell every few seconds how many records wait."""
    done = threading.Event()

    def run() -> None:
        told = 0
        while not done.wait(_LOOK_S):
            with suppress(SignalboxError):
                flow = node.get("/api/v1/status")["flows"]["agents"]
                lag = flow["lag_records"] or 0
                if lag or told:
                    say(f"{lag} records wait; workers: {flow['workers']}")
                told = lag

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
