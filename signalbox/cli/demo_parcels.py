"""The app of the demo: the shipped agents, and one whose work takes its time."""

import time
from collections.abc import Iterator
from typing import Any

from schemas.signal import Signal
from signalbox.agents import Agent, Directive, Emit, Keyed, on
from signalbox.app import App

_INSPECTION_S = 0.002


class ParcelInspector(Agent):
    """Looks at every parcel of its shelf for two milliseconds, as a costly check would."""

    addressing = Keyed()

    @on("parcel.scanned")
    def inspect(self, state: Any, signal: Signal[Any]) -> Iterator[Directive]:
        """Inspect one parcel."""
        time.sleep(_INSPECTION_S)
        yield Emit("parcel.inspected", {"parcel": signal.data["parcel"]}, topic="results")


app = App(agents=[ParcelInspector])
