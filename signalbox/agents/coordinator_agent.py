"""The coordinator: gives tasks to agents that can do them, and answers each task once, whatever becomes of the agents.

Its decisions rest on the order of what it hears, and that order has to be the same when work is repeated after a crash.
Signals about the coordinator lie in one partition and have an order; the records of the registry lie in others. So what
it hears from the registry it only passes on to itself, and decides when it comes back in that order. What a timer
decides is written after the firing is saved, as for every agent.

How an agent takes delegated tasks: `FoundationAgent.fulfil`. How one is chosen: `signalbox.agents.strategies`.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import msgspec
from pydantic import BaseModel

from schemas.payloads.agents import AgentRegistered, AgentStopped
from schemas.payloads.base import ErrorInfo
from schemas.payloads.tasks import (
    Strategy,
    TaskCompleted,
    TaskDelegated,
    TaskDelegatedFinished,
    TaskDistribute,
    TaskFailed,
    TaskRejected,
)
from schemas.signal import Signal
from signalbox.actions.distribute_task import COORDINATOR
from signalbox.agents.contract import AgentState, Context, Singleton, on
from signalbox.agents.directives import CancelTimer, Directive, Emit, Schedule, seconds
from signalbox.agents.foundation_agent import TAKES_TASKS, FoundationAgent
from signalbox.agents.strategies import STRATEGIES, Candidate
from signalbox.ids import derived_id
from signalbox.routing import data

#: A task is given to so many agents at most, one after the other as they stop.
MOST_ATTEMPTS = 3
_OVERDUE = "coordinator.overdue"


class ManagedAgent(msgspec.Struct):
    """An agent that takes delegated tasks."""

    capabilities: frozenset[str]
    turn: int = 0
    """When it was last chosen, by `State.turns`."""


class ActiveTask(msgspec.Struct):
    """A task that is not answered yet. It waits for an agent while `agent_id` is empty."""

    action: str
    params: str
    """As JSON text: the state is copied with each signal, and a text is copied quickly."""
    required: frozenset[str]
    strategy: Strategy | None
    deadline: datetime | None
    priority: int
    subject: str | None
    agent_id: str = ""
    delegation_id: str = ""
    attempt: int = 0


class Overdue(BaseModel):
    """What the timer of a task says."""

    task_id: str


class CoordinatorAgent(FoundationAgent):
    """Distributes tasks among the agents that can do them."""

    capabilities = ("coordination", "task_distribution", "load_balancing")
    addressing = Singleton(COORDINATOR)

    class State(AgentState):
        """The agents and the tasks under way, how to choose, bounds, and what was done so far."""

        coordination_strategy: Strategy = "round_robin"
        no_agent_s: float = 30.0
        """A task without a deadline waits so long for an agent that can do it."""
        longest_s: float = 86_400.0
        """One without a deadline that an agent has been given fails after so long without a report."""
        max_agents: int = 1_000
        max_active: int = 1_000
        """Tasks under way, those that wait included; further ones are rejected."""
        max_waiting: int = 100
        """Tasks that wait for an agent that can do them."""
        max_params_characters: int = 8_000_000
        """Of the parameters of all tasks under way, as JSON text."""
        registered: set[str] = set()  # noqa: RUF012 - a struct gives each instance its own
        """Agents that the registry told of and that were passed on."""
        managed_agents: dict[str, ManagedAgent] = {}  # noqa: RUF012 - as above
        active_tasks: dict[str, ActiveTask] = {}  # noqa: RUF012 - as above
        turns: int = 0
        agents_left_out: int = 0
        """Registrations beyond `max_agents`."""
        distributed: int = 0
        redelegated: int = 0
        completed: int = 0
        failed: int = 0
        rejected: int = 0
        duplicates: int = 0
        """Tasks that came again while they were under way; their one answer is that of the first."""
        ignored_reports: int = 0
        """Reports on delegations that are not current."""

    # What the registry says.

    @on("agent.registered", when=data("kind") != "keyed")
    def heard_of(self, state: State, signal: Signal[AgentRegistered], context: Context) -> Iterator[Directive]:
        """Pass on that there is an agent which takes delegated tasks."""
        agent = signal.data
        if agent.metadata.get(TAKES_TASKS) is not True:
            return
        if agent.agent_id not in state.registered and len(state.registered) >= state.max_agents:
            state.agents_left_out += 1
            return
        state.registered.add(agent.agent_id)
        yield Emit("coordinator.agent.registered", agent, subject=context.agent_id)

    @on("agent.stopped")
    def heard_of_end(self, state: State, signal: Signal[AgentStopped], context: Context) -> Iterator[Directive]:
        """Pass on that such an agent is gone."""
        if signal.data.agent_id in state.registered:
            state.registered.remove(signal.data.agent_id)
            yield Emit("coordinator.agent.stopped", signal.data, subject=context.agent_id)

    @on("coordinator.agent.registered")
    def joined(self, state: State, signal: Signal[AgentRegistered], context: Context) -> Iterator[Directive]:
        """Manage the agent, and let it have what has waited for one like it."""
        agent_id, capabilities = signal.data.agent_id, frozenset(signal.data.capabilities)
        known = state.managed_agents.get(agent_id)
        state.managed_agents[agent_id] = ManagedAgent(capabilities, known.turn if known else 0)
        for task_id, task in state.active_tasks.items():
            if not task.agent_id and task.required <= capabilities:
                yield from self._place(state, task_id, task, context)

    @on("coordinator.agent.stopped")
    def left(self, state: State, signal: Signal[AgentStopped], context: Context) -> Iterator[Directive]:
        """Give the tasks that the agent had to others."""
        gone = signal.data.agent_id
        if state.managed_agents.pop(gone, None) is None:
            return
        for task_id, task in [one for one in state.active_tasks.items() if one[1].agent_id == gone]:
            if task.attempt >= MOST_ATTEMPTS:
                message = f"{task.attempt} agents were stopped while they had the task, the last one was {gone}"
                yield from self._fail(state, task_id, "agent_lost", message, context, retryable=True)
            else:
                state.redelegated += 1
                yield from self._place(state, task_id, task, context)

    # Tasks.

    @on("task.distribute")
    def distribute(self, state: State, signal: Signal[TaskDistribute], context: Context) -> Iterator[Directive]:
        """Give a task to an agent, or let it wait for one."""
        asked = signal.data
        if asked.task_id in state.active_tasks:
            state.duplicates += 1
            return
        task = ActiveTask(
            action=asked.action,
            params=msgspec.json.encode(asked.params).decode(),
            required=frozenset(asked.required_capability),
            strategy=asked.strategy,
            deadline=asked.deadline,
            priority=asked.priority,
            subject=asked.subject,
        )
        if (refusal := _refusal(state, task)) is not None:
            state.rejected += 1
            rejected = TaskRejected(
                task_id=asked.task_id, agent_id=context.agent_id, reason="coordinator_full", message=refusal
            )
            yield Emit("task.rejected", rejected, subject=task.subject)
            return
        state.distributed += 1
        state.active_tasks[asked.task_id] = task
        yield from self._place(state, asked.task_id, task, context)

    @on("task.delegated.finished")
    def reported(self, state: State, signal: Signal[TaskDelegatedFinished], context: Context) -> Iterator[Directive]:
        """Answer a task with what its agent reports."""
        report = signal.data
        task = state.active_tasks.get(report.task_id)
        if task is None or task.delegation_id != report.delegation_id:
            state.ignored_reports += 1
            return
        answer: TaskCompleted | TaskFailed
        if report.error is None:
            answer = TaskCompleted(
                task_id=report.task_id,
                agent_id=report.agent_id,
                result=report.result,
                duration_ms=report.duration_ms,
                attempts=max(1, report.attempts),
            )
        else:
            answer = TaskFailed(
                task_id=report.task_id, agent_id=report.agent_id, error=report.error, attempts=report.attempts
            )
        yield from self._answer(state, answer)

    @on(_OVERDUE)
    def overdue(self, state: State, signal: Signal[Overdue], context: Context) -> Iterator[Directive]:
        """Give up a task whose time is over."""
        task_id = signal.data.task_id
        task = state.active_tasks.get(task_id)
        if task is None:
            return
        if task.deadline is not None:
            message = f"the deadline {task.deadline.isoformat()} has passed"
            yield from self._fail(state, task_id, "deadline_exceeded", message, context)
        elif task.agent_id:
            message = f"{task.agent_id} has not reported within {state.longest_s:g} s"
            yield from self._fail(state, task_id, "deadline_exceeded", message, context)
        else:
            message = f"within {state.no_agent_s:g} s there was no agent that offers {', '.join(sorted(task.required))}"
            yield from self._fail(state, task_id, "no_agent", message, context, retryable=True)

    def stopped(self, state: State, context: Context) -> Iterator[Directive]:
        """Fail what is under way: nobody else knows of it."""
        yield from super().stopped(state, context)
        for task_id in list(state.active_tasks):
            message = f"{context.agent_id} was stopped"
            yield from self._fail(state, task_id, "coordinator_stopped", message, context, retryable=True)

    def _place(self, state: State, task_id: str, task: ActiveTask, context: Context) -> Iterator[Directive]:
        """Give a task to one of the agents that can do it; if there is none, it waits."""
        loads = Counter(other.agent_id for other in state.active_tasks.values())
        candidates = [
            Candidate(agent_id=agent_id, capabilities=agent.capabilities, active=loads[agent_id], turn=agent.turn)
            for agent_id, agent in state.managed_agents.items()
            if task.required <= agent.capabilities
        ]
        allowed = seconds(state.longest_s if candidates else state.no_agent_s)
        after = allowed if task.deadline is None else task.deadline - context.now
        yield Schedule(_OVERDUE, after=after, data=Overdue(task_id=task_id), timer=_timer(task_id))
        if not candidates:
            task.agent_id = task.delegation_id = ""
            return
        task.agent_id = STRATEGIES[task.strategy or state.coordination_strategy](candidates, task_id).agent_id
        task.attempt += 1
        # Of the signal that led to it, so that no two delegations of one id share it, and a repeat makes it again.
        task.delegation_id = derived_id(context.cause_id, f"{context.agent_id}|{task_id}", task.attempt)
        state.turns += 1
        state.managed_agents[task.agent_id].turn = state.turns
        delegated = TaskDelegated(
            task_id=task_id,
            action=task.action,
            params=msgspec.json.decode(task.params),
            deadline=task.deadline,
            priority=task.priority,
            delegation_id=task.delegation_id,
            attempt=task.attempt,
            coordinator=context.agent_id,
        )
        yield Emit("task.delegated", delegated, subject=task.agent_id)

    def _fail(
        self, state: State, task_id: str, type: str, message: str, context: Context, *, retryable: bool = False
    ) -> Iterator[Directive]:
        error = ErrorInfo(type=type, message=message, retryable=retryable)
        attempts = state.active_tasks[task_id].attempt
        answer = TaskFailed(task_id=task_id, agent_id=context.agent_id, error=error, attempts=attempts)
        yield from self._answer(state, answer)

    def _answer(self, state: State, answer: TaskCompleted | TaskFailed) -> Iterator[Directive]:
        """Answer a task and forget it, so that it is not answered again."""
        task = state.active_tasks.pop(answer.task_id)
        yield CancelTimer(_timer(answer.task_id))
        if isinstance(answer, TaskCompleted):
            state.completed += 1
            yield Emit("task.completed", answer, subject=task.subject)
        else:
            state.failed += 1
            yield Emit("task.failed", answer, subject=task.subject)


def _refusal(state: CoordinatorAgent.State, task: ActiveTask) -> str | None:
    """Why a further task cannot be taken on; None if it can."""
    active = state.active_tasks.values()
    if len(active) >= state.max_active:
        return f"{len(active)} tasks are under way, and no more are taken on"
    if sum(len(one.params) for one in active) + len(task.params) > state.max_params_characters:
        return f"the parameters of {len(active)} tasks under way leave no room for {len(task.params)} characters more"
    waiting = sum(not one.agent_id for one in active)
    can_start = any(task.required <= agent.capabilities for agent in state.managed_agents.values())
    if waiting >= state.max_waiting and not can_start:
        return f"{waiting} tasks wait for an agent already, and there is none for this one"
    return None


def _timer(task_id: str) -> str:
    return f"task.{task_id}"
