"""The base of the shipped agents: the registry record and the telemetry around actions."""

from collections.abc import Iterator
from typing import Any

import pytest

import signalbox
from schemas.payloads.agents import ActionFinished, AgentRegistered, AgentStopped
from schemas.signal import Signal
from signalbox.agents import AgentState, Context, Directive, Emit, FoundationAgent, Keyed, Pool, Singleton, on, seconds
from tests.unit.signalbox.agents.examples import harness_of


class Helper(FoundationAgent):
    """Performs what it is told."""

    capabilities = ("helping",)
    metadata = {"owner": "me"}  # noqa: RUF012

    class State(AgentState):
        outcome: list[Any] = []  # noqa: RUF012

    @on("help")
    def help(self, state: State, signal: Signal[Any], context: Context) -> Iterator[Directive]:
        result, error, duration_ms = yield from self.perform(context, "think", lambda: 6 * (signal.data or 7))
        _, failure, _ = yield from self.perform(context, "stumble", [].pop)
        assert error is None
        assert failure is not None
        state.outcome = [result, failure.type, duration_ms]
        yield Emit("helped")


@pytest.mark.parametrize(
    ("addressing", "kind", "ids"),
    [
        (Keyed(), "keyed", ["some_agent:a"]),
        (Singleton("the_one"), "singleton", ["the_one"]),
        (Pool(2), "pool", ["some_agent_1", "some_agent_2"]),
    ],
)
def test_every_instance_registers_itself(addressing: Any, kind: str, ids: list[str]) -> None:
    """When an instance comes into being its record goes to `registry` under its id, with capabilities and metadata."""
    agent = type("SomeAgent", (Helper,), {"addressing": addressing, "__doc__": "Does things."})
    harness = harness_of(agent, node={"name": "n7"})
    harness.send("help", subject="a")
    signals = harness.emitted("agent.registered", topic="registry")
    assert [signal.subject for signal in signals] == ids
    record = AgentRegistered.model_validate(signals[0].data)
    assert (record.agent_type, record.kind, record.node, record.version) == (
        "some_agent",
        kind,
        "n7",
        signalbox.__version__,
    )
    assert record.capabilities == ("helping",)
    assert record.metadata == {"description": "Does things.", "owner": "me"}
    assert record.started_at == harness.clock.now()


def test_the_end_of_an_instance_is_registered() -> None:
    """A stopped instance leaves an `agent.stopped` under its id in the registry."""
    harness = harness_of(Helper)
    harness.send("help", subject="a")
    harness.stop("helper:a")
    (signal,) = harness.emitted("agent.stopped", topic="registry")
    assert signal.subject == AgentStopped.model_validate(signal.data).agent_id == "helper:a"


def test_perform_gives_result_error_and_time() -> None:
    """An action's result or error comes back to the handler; an error is never raised through it."""
    harness = harness_of(Helper)
    harness.send("help", 2, subject="a")
    assert harness.state("helper:a").outcome == [12, "IndexError", 0.0]
    ends = [
        ActionFinished.model_validate(one.data) for one in harness.emitted("agent.action.finished", topic="telemetry")
    ]
    assert [(one.action, one.status) for one in ends] == [("think", "completed"), ("stumble", "failed")]
    assert [signal.type for signal in harness.emitted("**") if signal.type == "helped"] == ["helped"]


def test_registering_follows_from_the_first_signal() -> None:
    """A keyed agent's registration names the signal that made it, so a replay registers it under the same id."""
    ids = []
    for wait in (0, 5):
        harness = harness_of(Helper)
        harness.advance(seconds(wait))
        signal = harness.send("help", subject="a")
        (registered,) = harness.emitted("agent.registered", topic="registry")
        assert registered.causationid == signal.id
        ids.append(registered.id)
    assert ids[0] == ids[1]
