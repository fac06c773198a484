"""Small agents that these tests share, and a way to run one app over many groups without a harness."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from schemas.signal import Signal, decode, encode, new_signal
from signalbox.agents import (
    Agent,
    AgentState,
    CancelTimer,
    Context,
    Directive,
    Emit,
    Schedule,
    Stop,
    data,
    on,
)
from signalbox.agents.group import AgentGroup
from signalbox.agents.plan import Plan, topic_router
from signalbox.agents.population import Change
from signalbox.agents.stats import Stats
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.config import Settings
from signalbox.ids import key_group
from signalbox.ports import Outgoing
from signalbox.testing import Harness


class Amount(BaseModel):
    """How much to add."""

    amount: int


class Counter(Agent):
    """Counts, and does on demand everything that the runtime must cope with."""

    class State(AgentState):
        count: int = 0
        seen: list[str] = []  # noqa: RUF012 - a struct gives each instance its own

    def started(self, state: State, context: Context) -> Directive:
        return Emit("counter.started", {"agent": context.agent_id})

    def stopped(self, state: State, context: Context) -> Directive:
        return Emit("counter.stopped", {"count": state.count})

    @on("counter.add")
    def add(self, state: State, signal: Signal[Amount]) -> Iterator[Directive]:
        assert signal.data is not None
        state.count += signal.data.amount
        state.seen.append(signal.id)
        yield Emit("counter.added", {"count": state.count})

    @on("counter.later")
    def later(self, state: State, signal: Signal[dict[str, Any]]) -> Directive:
        wanted = signal.data or {}
        after = timedelta(milliseconds=wanted.get("ms", 1000))
        return Schedule("counter.due", after, {"amount": wanted.get("amount", 1)}, timer=wanted.get("timer"))

    @on("counter.due")
    def due(self, state: State, signal: Signal[dict[str, Any]]) -> Iterator[Directive]:
        state.count += (signal.data or {})["amount"]
        yield Emit("counter.fired", {"count": state.count})

    @on("counter.forget")
    def forget(self, state: State, signal: Signal[dict[str, Any]]) -> Directive:
        return CancelTimer((signal.data or {}).get("timer", "counter.due"))

    @on("counter.stop")
    def stop(self, state: State, signal: Signal[Any]) -> Directive:
        return Stop()

    @on("counter.fail", when=data("after") == "nothing")
    def fail(self, state: State, signal: Signal[Any]) -> Iterator[Directive]:
        state.count += 1000
        state.seen.append("never")
        yield Emit("counter.never")
        msg = "as asked"
        raise RuntimeError(msg)


def harness_of(*agents: type[Agent], **settings: Any) -> Harness:
    """A harness with these agents alone."""
    return Harness(App(agents=agents, builtins=False), Settings.model_validate(settings))


class Groups:
    """The groups of one app, fed by hand: what a worker holds, without partitions and topics."""

    def __init__(self, app: App, clock: VirtualClock, **settings: Any) -> None:
        self.settings = Settings.model_validate(settings)
        self.clock = clock
        self.stats = Stats()
        self.plan = Plan(app, self.settings)
        self.groups: dict[str, AgentGroup] = {}
        self.outgoing: list[Outgoing] = []

    def group(self, key: str) -> AgentGroup:
        if key not in self.groups:
            topics = topic_router(self.settings.kafka.routes)
            self.groups[key] = AgentGroup(
                key, self.plan, topics, settings=self.settings, clock=self.clock, stats=self.stats
            )
        return self.groups[key]

    def deliver(self, signals: Sequence[tuple[int, Signal[Any]]]) -> None:
        """One poll: (offset, signal) of one partition, oldest first."""
        wanted: dict[str, list[Any]] = {}
        for offset, signal in signals:
            for kind in self.plan.targets(signal.type):
                place = kind.place(signal.subject, signal.id)
                assert place is not None
                wanted.setdefault(place[1], []).append((kind.index, [(place[0], signal, offset)]))
        for key, runs in wanted.items():
            self.group(key).deliver(("signals", 0), runs)
        self.collect()

    def fire_due(self) -> None:
        for group in self.groups.values():
            group.fire_due()
        self.collect()

    def collect(self) -> None:
        for group in self.groups.values():
            group.release(snapshots=0)
            self.outgoing.extend(group.take_output())

    def saved(self) -> dict[str, list[Change]]:
        """Every agent's record, by group."""
        return {key: list(group.all_records()) for key, group in self.groups.items()}

    def restore(self, saved: dict[str, list[Change]]) -> None:
        for key, changes in saved.items():
            self.group(key).restore(changes)
            self.group(key).restored()

    def states(self) -> dict[str, Any]:
        return {
            agent_id: (instance.committed(), instance.processed, instance.errors, dict(instance.timers))
            for group in self.groups.values()
            for agent_id in group
            if (instance := group.get(agent_id)) is not None
        }


def make_signal(type: str, data: Any = None, *, subject: str = "s", id: str = "1", **more: Any) -> Signal[Any]:
    """A signal as it comes from a broker."""
    return decode(encode(new_signal(type, data, subject=subject, id=id, source="test", **more)))


def group_of(agent_id: str) -> str:
    return str(key_group(agent_id))
