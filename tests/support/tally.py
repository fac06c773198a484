"""An app whose outputs show at once if anything was lost, doubled or reordered: every agent numbers what it got."""

from collections.abc import Iterator
from typing import Any

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Directive, Emit, Schedule, on, seconds
from signalbox.app import App


class Tally(Agent):
    """Counts the signals of one subject."""

    class State(AgentState):
        count: int = 0
        total: int = 0
        latest: list[int] = []  # noqa: RUF012 - a struct gives each instance its own

    @on("tally.add")
    def add(self, state: State, signal: Signal[int]) -> Iterator[Directive]:
        value = signal.data or 0
        state.count += 1
        state.total += value
        state.latest = [*state.latest[-99:], value]
        yield Emit("alert.tally", {"number": state.count, "value": value, "total": state.total})

    @on("tally.remind")
    def remind(self, state: State, signal: Signal[float]) -> Directive:
        return Schedule("tally.reminder", seconds(signal.data or 0))

    @on("tally.reminder")
    def reminder(self, state: State, signal: Signal[Any]) -> Directive:
        return Emit("alert.reminder", state.count)

    @on("tally.fail")
    def fail(self, state: State, signal: Signal[Any]) -> None:
        msg = "as asked"
        raise RuntimeError(msg)


app = App(agents=[Tally])
