"""The job as a signalbox agent: what a user writes. `signalbox_worker` runs it."""

from typing import Any

from harness.job import ALERT_TYPE, SIGNAL_TYPE, THRESHOLD

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Emit, on
from signalbox.agents.directives import Directive
from signalbox.app import App


class SensorWatch(Agent):
    """Watches one sensor and alerts when it exceeds the threshold."""

    class State(AgentState):
        """What an alert tells of, and the last value."""

        count: int = 0
        last: float = 0.0
        maximum: float = 0.0

    @on(SIGNAL_TYPE)
    def reading(self, state: State, signal: Signal[Any]) -> Directive | None:
        value = signal.data["value"]
        state.count += 1
        state.last = value
        if value > state.maximum:  # noqa: PLR1730 - as in `plain`: a call to max() costs more
            state.maximum = value
        if value > THRESHOLD:
            return Emit(ALERT_TYPE, {"value": value, "count": state.count, "maximum": state.maximum})
        return None


app = App(agents=[SensorWatch])
