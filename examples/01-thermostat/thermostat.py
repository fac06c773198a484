from signalbox.agents import Agent, AgentState, Emit, Schedule, data, minutes, on
from signalbox.app import App


class Thermostat(Agent):
    """Heats a room for five minutes when it is colder than 18 degrees Celsius."""

    class State(AgentState):
        heating: bool = False

    @on("room.temperature", when=data("celsius") < 18)
    def cold(self, state, signal):
        if not state.heating:
            state.heating = True
            return [Emit("heating.on"), Schedule("heating.done", after=minutes(5))]

    @on("heating.done")
    def done(self, state, signal):
        state.heating = False
        return Emit("heating.off")


app = App(agents=[Thermostat])
