"""Agents that take delegated tasks, and what tests of the coordinator do with them."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from schemas.payloads.tasks import Delegation, TaskDelegated
from schemas.signal import Signal
from signalbox.actions import ActionError, action
from signalbox.actions.distribute_task import COORDINATOR, HandOver
from signalbox.agents import AgentState, Context, Directive, FoundationAgent, Pool, Singleton, on
from signalbox.agents.coordinator_agent import CoordinatorAgent
from signalbox.app import App
from signalbox.config import Settings
from signalbox.testing import Harness


class Translator(FoundationAgent):
    """Does a task at once."""

    capabilities = ("translation", "french")
    addressing = Pool(size=3)

    @on("task.delegated")
    def translate(self, state: Any, signal: Signal[TaskDelegated], context: Context) -> Iterator[Directive]:
        yield from self.fulfil(signal, context, lambda: _translated(signal.data.params["text"]))


class Press(FoundationAgent):
    """Does a task when it is told to, or leaves it."""

    capabilities = ("printing",)
    addressing = Pool(size=3)

    class State(AgentState):
        jobs: dict[str, Any] = {}  # noqa: RUF012

    @on("task.delegated")
    def take(self, state: State, signal: Signal[TaskDelegated], context: Context) -> None:
        if signal.subject == context.agent_id:
            state.jobs[signal.data.task_id] = signal.data.model_dump(mode="json")

    @on("press.done")
    def done(self, state: State, signal: Signal[Any], context: Context) -> Iterator[Directive]:
        job = Delegation.model_validate(state.jobs.pop(signal.data))
        yield self.report(job, signal, context, result=f"{signal.data} printed", duration_ms=5)


class Archive(FoundationAgent):
    """The one archive."""

    capabilities = ("archiving",)
    addressing = Singleton("the_archive")

    @on("task.delegated")
    def store(self, state: Any, signal: Signal[TaskDelegated], context: Context) -> Iterator[Directive]:
        yield from self.fulfil(signal, context, lambda: "stored")


class Idler(FoundationAgent):
    """Offers what it has no handler for."""

    capabilities = ("idling",)
    addressing = Pool(size=2)


def _translated(text: Any) -> Any:
    results = {"refused": ActionError("not polite", type="rude"), "odd": object(), "large": "x" * 300_000}
    result = results.get(text, f"le {text}")
    if isinstance(result, Exception):
        raise result
    return result


class Work(BaseModel):
    fails: bool = False


@action()
async def work(params: Work) -> str:
    """An action with an effect."""
    if params.fails:
        raise ActionError("it broke", type="broken")
    return "worked"


@action(effect=False)
def pass_on(params: Work) -> HandOver:
    """Somebody else's business."""
    return HandOver(type="work.passed_on", subject="somebody", data={"fails": params.fails})


def coordinated(**state: Any) -> Harness:
    settings = Settings.model_validate({"agents": {"coordinator_agent": {"state": state}}})
    return Harness(App(agents=[Translator, Press, Archive, Idler], actions=[work, pass_on]), settings)


def submit(harness: Harness, task_id: str = "t1", capability: Any = "printing", **more: Any) -> Signal[Any]:
    task = {"action": more.pop("action", "print"), "params": more.pop("params", {})}
    attributes = {name: more.pop(name) for name in ("subject", "deadline") if name in more}
    params = {"required_capability": capability, "task": task, **more.pop("distribution", {})}
    data = {"task_id": task_id, "action": "distribute_task", "params": params, **more}
    return harness.send("task.submitted", data, **{"subject": "order-1", **attributes})


def answers(harness: Harness) -> list[Signal[Any]]:
    return harness.emitted("task.*", topic="results")


def answer_of(harness: Harness) -> Signal[Any]:
    (answer,) = answers(harness)
    return answer


def delegations(harness: Harness) -> list[tuple[str, str | None, int]]:
    """Task, agent and attempt of each delegation so far."""
    signals = harness.emitted("task.delegated")
    return [(signal.data["task_id"], signal.subject, signal.data["attempt"]) for signal in signals]


def coordinator_state(harness: Harness) -> CoordinatorAgent.State:
    state = harness.state(COORDINATOR)
    assert isinstance(state, CoordinatorAgent.State)
    return state


def report(harness: Harness, task_id: str, agent_id: str | None) -> None:
    harness.send("press.done", task_id, subject=agent_id)


def register(harness: Harness, agent_id: str, *capabilities: str, **more: Any) -> None:
    """As an agent of another program would."""
    record = {"agent_id": agent_id, "agent_type": "kite", "kind": "singleton", "capabilities": capabilities}
    record |= {"metadata": {"takes_tasks": True}, "node": "n", "version": "1", "started_at": "2026-01-01T00:00:00Z"}
    harness.send("agent.registered", record | more, subject=agent_id)
