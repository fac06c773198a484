"""A key group: the agents that live together, and the only code that runs them.

Pure of I/O: signals go in, `Outgoing` records and changed agent records come out; time comes from the clock given. The
same class runs in the dataflow (`flows.operators`) and under virtual time (`signalbox.testing`).

A handler changes the state in place. Only when it returned, and the state and everything it asked for could be
encoded, is that state committed and do its directives take effect; otherwise the committed one is restored.
"""

import contextlib
import heapq
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.payloads.agents import AgentError
from schemas.payloads.base import ErrorInfo
from schemas.signal import Signal, decode, encode
from signalbox.agents.contract import Context, Directives, Keyed, as_directives
from signalbox.agents.directives import Emit
from signalbox.agents.effects import Cause, Effects
from signalbox.agents.payloads import InvalidPayload, typed
from signalbox.agents.plan import Handler, Kind, Plan
from signalbox.agents.pools import Declared
from signalbox.agents.population import Population, StateUnreadable
from signalbox.agents.records import NONE_HELD, Held, Instance
from signalbox.agents.stats import Stats
from signalbox.clock import Clock
from signalbox.config import Settings
from signalbox.dead_letters import NOWHERE, Where, dead_letter
from signalbox.errors import described
from signalbox.ports import Outgoing
from signalbox.routing import ConditionError, Router

#: A run of this kind holds commands for the runtime, not signals for handlers.
CONTROL = -1
#: A run of this kind holds outcomes of actions for the agents that asked for them.
OUTCOME = -2

Delivery = tuple[str, Signal[Any], int]
"""Name of an instance within its kind (for a command or an outcome: its id), signal, offset in its partition."""
Run = tuple[int, list[Delivery]]
"""Index of the kind (or CONTROL, or OUTCOME), and deliveries to agents of that kind, in order."""
Origin = tuple[str, int]
"""Topic and partition that deliveries came from."""
_FROM_TIMER: tuple[Origin, int] = (("", -1), -1)


class AgentGroup(Population):
    """The agents of one key group."""

    def __init__(
        self, key: str, plan: Plan, topics: Router[str], *, settings: Settings, clock: Clock, stats: Stats
    ) -> None:
        super().__init__(plan, clock, stats)
        self.key = key
        self._topics = topics
        self._limits = settings.limits
        self._out: list[Outgoing] = []
        self._ready: list[dict[str, Instance]] = [{} for _ in plan.kinds]
        """Of each kind, by name, the instances that take a signal as they are: loaded, and not paused."""
        self._declared = Declared(plan, key)
        self._started = False
        self._caught_up = False
        self._now_ms = clock.now_ms()
        self._context = Context(
            agent_id="",
            now=self._now(),
            node=plan.node,
            monotonic=clock.monotonic,
            actions=plan.actions,
            output_bytes=settings.limits.output_bytes,
            signal_bytes=settings.limits.signal_bytes,
            telemetry=settings.telemetry.actions,
        )

    # What the engine calls.

    def start(self) -> None:
        """Bring this group's singletons and the members of pools into being; call `started` of those that are there."""
        self._tick()
        self._started = True
        self._declared.found(self._agents)
        for agent_id, kind in [one for one in self._declared if one[0] in self._agents]:
            self._start_one(agent_id, kind)
        self._fit_pools()

    def resized(self, part: str, sizes: Mapping[str, int]) -> None:
        """From here on an input partition spreads its signals over so many members of each pool.

        New members come into being. One that no partition counts on any more ends when no action and no timer of its
        own is under way.
        """
        self._tick()
        if self._declared.resized(part, sizes) and self._started:
            self._fit_pools()

    def _fit_pools(self) -> None:
        for agent_id, kind in self._declared.needed():
            if agent_id not in self._agents:
                self._start_one(agent_id, kind)
        self._retire()

    def _start_one(self, agent_id: str, kind: Kind) -> None:
        cause = Cause(f"start|{agent_id}|{self._now_ms}", f"start-{self._now_ms}")
        is_new = agent_id not in self._agents
        try:
            instance = self._instance(agent_id, kind, cause)
        except StateUnreadable:  # its signals will say so, one by one
            self._stats.failed[kind.name, "state"] += 1
            return
        if not is_new:
            self._call_hook(instance, kind.agent.started, cause)

    def deliver(self, origin: Origin, runs: Iterable[Run]) -> None:
        """Hand signals to their agents, in order, and empty the runs."""
        self._tick()
        for kind_index, deliveries in runs:
            if kind_index >= 0:
                self._deliver_run(origin, self._plan.kinds[kind_index], deliveries)
                continue
            for agent_id, signal, offset in deliveries:
                if kind_index == CONTROL:
                    self._control(agent_id, signal, Where.of(origin, offset))
                else:
                    self._outcome(agent_id, signal, origin, offset)
        self._retire()

    def _deliver_run(self, origin: Origin, kind: Kind, deliveries: list[Delivery]) -> None:
        find, encode_state, now_ms = self._ready[kind.index].get, kind.encode_state, self._now_ms
        self._stats.processed[kind.name] += len(deliveries)
        latest: str | None = None
        handlers: tuple[Handler, ...] = ()
        quick: Handler | None = None
        deliveries.reverse()
        while deliveries:
            # Taken off the list, a signal is freed while it still is in the processor's cache.
            name, signal, offset = deliveries.pop()
            instance = find(name) or self._willing(name, kind, signal, Where.of(origin, offset))
            if instance is None:
                continue
            if signal.type != latest:
                latest = signal.type
                handlers = kind.handlers(latest)
                quick = handlers[0] if len(handlers) == 1 and handlers[0].plain and not kind.reread else None
            instance.seen_ms = now_ms
            instance.processed += 1
            if not instance.dirty:
                self._touch(instance)
            if quick is None:
                self._handle_each(instance, handlers, signal, origin, offset)
                continue
            # What `_handle` does, for the usual case and without its calls: they are half the cost of a signal.
            state = instance.state
            try:
                result = quick.call(state, signal)
                effects = None if result is None else self._wanted(instance, Cause.of(signal), quick.name, result)
                instance.saved = encode_state(state)
            except BaseException as error:  # noqa: BLE001 - as there
                self._failed(instance, quick.name, signal, Where.of(origin, offset), error)
                continue
            if effects is not None:
                self._commit(instance, effects)

    def _willing(self, name: str, kind: Kind, signal: Signal[Any], where: Where) -> Instance | None:
        """The instance, made or loaded if need be; None if the signal waits with it or cannot be handled."""
        instance = self._instance_or_none(kind.agent_id(name), kind, signal, where)
        if instance is None:
            return None
        if instance.paused:
            self._hold(instance, signal, where)
            return None
        self._ready[kind.index][name] = instance
        return instance

    def fire_due(self) -> None:
        """Run every timer that is due, and evict what was idle for too long."""
        self._tick()
        while self._due and self._due[0][0] <= self._now_ms:
            due_ms, agent_id = heapq.heappop(self._due)
            instance = self._readable(agent_id)
            if instance is not None and instance.queued_ms == due_ms:
                instance.queued_ms = 0
                self._agents[agent_id] = instance
                self._wake(instance)
        self._retire()

    def keeps_output(self) -> bool:
        """Whether output waits for `release`."""
        return bool(self._deferral)

    def release(self, snapshots: int) -> None:
        """Let go of output that rests on timers, if so many snapshots were taken since it was made."""
        self._out += self._deferral.release(snapshots)

    def take_output(self) -> list[Outgoing]:
        """What is to be written since the last call."""
        out, self._out = self._out, []
        return out

    # Instances.

    def _tick(self) -> None:
        self._now_ms = self._clock.now_ms()

    def _now(self) -> datetime:
        """The present of this batch; everything in it happens at one moment."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def _instance(self, agent_id: str, kind: Kind, cause: Cause) -> Instance:
        agent = self._agents.get(agent_id)
        if agent is None:
            agent = self._agents[agent_id] = Instance(agent_id, kind, kind.initial_state, self._now_ms)
            self.census[kind.name] += 1
            if kind.has_started:
                self._call_hook(agent, kind.agent.started, cause)
            self._touch(agent)
            self._remember_due(agent)
        elif isinstance(agent, tuple):
            agent = self._agents[agent_id] = self._load(agent_id, agent)
            self._remember_due(agent)
        return agent

    def _instance_or_none(self, agent_id: str, kind: Kind, signal: Signal[Any], where: Where) -> Instance | None:
        try:
            return self._instance(agent_id, kind, Cause.of(signal))
        except StateUnreadable as error:
            # Starting afresh would bury the saved state under a new one, so it stays and the signal waits outside.
            self._stats.failed[kind.name, "state"] += 1
            self._dead_letter(signal, where, "state_unreadable", str(error), agent_id)
            return None

    def _retire(self) -> None:
        """End the members of pools that no partition counts on, as far as nothing of theirs is under way.

        When is not repeated after a crash. So they end by the rules of a timer: not before the repetition is over, and
        what they say is kept back until a snapshot holds that they have ended.
        """
        if not self._caught_up:
            return
        for agent_id in sorted(one for one in self._declared.surplus if one in self._agents):
            if (instance := self._readable(agent_id)) is None:
                continue
            self._agents[agent_id] = instance
            if instance.paused:  # what it holds comes before what goes to others by now
                self._deferral.fired(agent_id)
                self._resume(instance)
            if not (instance.pending or instance.timers or instance.ended):
                self._deferral.fired(agent_id)
                self._end(instance, Cause(f"retired|{agent_id}|{self._now_ms}", f"retired-{self._now_ms}"))

    def _end(self, instance: Instance, cause: Cause) -> None:
        """Stop an agent: its state and its timers are gone, and signals that it held back become dead letters."""
        agent_id = instance.agent_id
        instance.ended = True
        self._call_hook(instance, instance.kind.agent.stopped, cause)
        self._ready[instance.kind.index].pop(instance.subject, None)
        if self._agents.pop(agent_id, None) is not None:
            self.census[instance.kind.name] -= 1
        self._dirty.add(agent_id)
        for one in instance.held:
            where = Where(one.topic, one.partition, one.offset)
            message = f"{agent_id} was stopped while it was paused and held this signal"
            self._dead_letter(decode(one.value), where, "agent_stopped", message, agent_id)

    # Handlers.

    def _handle_each(
        self,
        instance: Instance,
        handlers: Iterable[Handler],
        signal: Signal[Any],
        origin: Origin,
        offset: int,
    ) -> None:
        for handler in handlers:
            if not instance.ended:
                self._handle(instance, handler, signal, origin, offset)

    def _handle(self, instance: Instance, handler: Handler, signal: Signal[Any], origin: Origin, offset: int) -> None:
        try:
            result = handler.call(instance.state, signal) if handler.plain else self._call(instance, handler, signal)
            effects = None if result is None else self._wanted(instance, Cause.of(signal), handler.name, result)
            kind, state = instance.kind, instance.state
            saved = kind.encode_state(state)
            if kind.reread:
                state = kind.decode_state(saved)
        except InvalidPayload as error:
            self._stats.failed[handler.agent, "payload"] += 1
            self._dead_letter(signal, Where.of(origin, offset), "invalid_payload", str(error), instance.agent_id)
            return
        except BaseException as error:  # noqa: BLE001 - a user's handler may raise anything; the worker goes on
            self._failed(instance, handler.name, signal, Where.of(origin, offset), error)
            return
        instance.saved, instance.state = saved, state
        if effects is not None:
            self._commit(instance, effects)

    def _call(self, instance: Instance, handler: Handler, signal: Signal[Any]) -> Directives:
        """Call a handler that has a condition, asks for a payload model or for the context."""
        try:
            if handler.when is not None and not handler.when.holds(signal.data, instance.state):
                return None
        except ConditionError:
            self._stats.condition_errors[handler.agent] += 1
            return None
        given = signal if handler.model is None else typed(signal, handler.model)
        if handler.wants_context:
            return handler.call(instance.state, given, self._about(instance, signal.id))
        return handler.call(instance.state, given)

    def _about(self, instance: Instance, cause_id: str) -> Context:
        """The one context, filled in for a call."""
        context = self._context
        context.agent_id, context.subject, context.cause_id = instance.agent_id, instance.subject, cause_id
        context.now = self._now()
        return context

    def _effects(self, instance: Instance, cause: Cause, scope: str, wanted: Iterable[Any]) -> Effects:
        effects = Effects(instance, cause, scope, now=self._now(), topics=self._topics, limit=self._limits.output_bytes)
        effects.add(wanted)
        return effects

    def _wanted(self, instance: Instance, cause: Cause, scope: str, result: Directives) -> Effects | None:
        """What a handler asked for by what it returned."""
        wanted = as_directives(result)
        return self._effects(instance, cause, scope, wanted) if wanted else None

    def _commit(self, instance: Instance, effects: Effects) -> None:
        effects.commit(self._outlet(instance.agent_id))
        self._touch(instance)
        if effects.timers:
            self._remember_due(instance)
        if self._early:
            self._settle_early(instance, effects.requested)
        if effects.stop is not None:
            self._end(instance, effects.cause)

    def _call_hook(self, instance: Instance, hook: Any, cause: Cause) -> None:
        """Run `started` or `stopped`, by the rules of a handler."""
        try:
            directives: Directives = hook(instance.state, self._about(instance, cause.signal_id))
            effects = self._effects(instance, cause, hook.__name__, as_directives(directives))
            saved = instance.kind.encode_state(instance.state)
            state = instance.kind.decode_state(saved)
        except BaseException as error:  # noqa: BLE001 - as for any handler
            instance.roll_back()
            self._report(instance, hook.__name__, cause, "", error)
            return
        instance.saved, instance.state = saved, state
        effects.stop = None
        self._commit(instance, effects)

    def _failed(
        self, instance: Instance, handler: str, signal: Signal[Any], where: Where, error: BaseException
    ) -> None:
        instance.roll_back()
        self._report(instance, handler, Cause.of(signal), signal.type, error)
        name, text = described(error)
        message = f"{instance.kind.name}.{handler} raised {name}: {text}"
        self._dead_letter(signal, where, "handler_failed", message, instance.agent_id)

    def _report(self, instance: Instance, handler: str, cause: Cause, signal_type: str, error: BaseException) -> None:
        instance.errors += 1
        self._touch(instance)
        self._stats.failed[instance.kind.name, "handler"] += 1
        name, message = described(error)
        report = AgentError(
            agent_id=instance.agent_id,
            handler=handler,
            signal_id=cause.signal_id,
            signal_type=signal_type,
            error=ErrorInfo(type=name, message=message),
            error_count=instance.errors,
        )
        with contextlib.suppress(ValueError):  # its own id can make it too large; it is counted
            effects = self._effects(instance, cause, f"{handler}|error", [Emit("agent.error", report)])
            effects.commit(self._outlet(instance.agent_id))

    def _dead_letter(self, signal: Signal[Any], where: Where, reason: str, message: str, agent_id: str) -> None:
        if where is NOWHERE:  # a timer: there is no record to set aside
            return
        self._stats.dead_letters[reason] += 1
        letter = dead_letter(
            reason,
            message,
            where=where,
            key=signal.key.encode(),
            value=encode(signal),
            limit_bytes=self._limits.dead_letter_bytes,
            now=self._now(),
            signal=signal,
            agent_id=agent_id,
        )
        self._outlet(agent_id).append(letter)

    def _outlet(self, agent_id: str) -> list[Outgoing]:
        return self._deferral.outlet(agent_id, self._out) if self._deferral else self._out

    # Timers.

    def _wake(self, instance: Instance) -> None:
        if instance.paused:
            return
        agent_id = instance.agent_id
        due = sorted((timer.due_ms, name) for name, timer in instance.timers.items() if timer.due_ms <= self._now_ms)
        for _, name in due:
            timer = instance.timers.get(name)
            if timer is None or timer.due_ms > self._now_ms:  # cancelled or moved by a handler of an earlier one
                continue
            instance.set_timer(name, None)
            self._dirty.add(agent_id)
            self._deferral.fired(agent_id)
            signal: Signal[Any] = Signal(
                id=timer.id,
                source=f"timer/{agent_id}",
                type=timer.type,
                subject=instance.subject,
                time=self._now(),
                correlationid=timer.correlation_id,
                data=timer.data,
            )
            self._handle_each(instance, instance.kind.handlers(timer.type), signal, *_FROM_TIMER)
        if instance.ended:
            return
        ttl_ms = instance.kind.idle_ttl_ms
        if ttl_ms is not None and not instance.timers and self._now_ms >= instance.seen_ms + ttl_ms:
            self._deferral.fired(agent_id)
            self._end(instance, Cause(f"idle|{agent_id}|{instance.seen_ms}", f"idle-{instance.seen_ms}"))
        else:
            self._remember_due(instance)

    # Control.

    def _control(self, agent_id: str, signal: Signal[Any], where: Where) -> None:
        """Obey `control.agent.spawn|pause|resume|stop`."""
        verb = signal.type.rpartition(".")[2]
        kind = self._plan.kind_of(agent_id)
        can_be = agent_id in self._agents or (verb == "spawn" and kind and isinstance(kind.addressing, Keyed))
        if kind is None or not can_be:
            self._dead_letter(signal, where, "unknown_agent", f"there is no agent {agent_id!r}", agent_id)
            return
        instance = self._instance_or_none(agent_id, kind, signal, where)
        if instance is None:
            return
        self._dirty.add(agent_id)
        if verb == "stop":
            self._end(instance, Cause.of(signal))
        elif verb == "pause":
            instance.paused = True
            self._ready[kind.index].pop(instance.subject, None)
        elif verb == "resume":
            self._resume(instance)

    def _resume(self, instance: Instance) -> None:
        """Let a paused agent go on, with what it held first."""
        instance.paused = False
        held, instance.held = instance.held, NONE_HELD
        self._touch(instance)
        self._remember_due(instance)
        for one in held:
            run = [(instance.subject, decode(one.value), one.offset)]
            self._deliver_run((one.topic, one.partition), instance.kind, run)

    def _outcome(self, agent_id: str, signal: Signal[Any], origin: Origin, offset: int) -> None:
        """Give an action's outcome to the agent that waits for it. An outcome that is read again is awaited no more."""
        kind = self._plan.kind_of(agent_id)
        instruction = signal.data["instruction_id"]
        instance = None
        if kind is not None and agent_id in self._agents:
            instance = self._instance_or_none(agent_id, kind, signal, Where.of(origin, offset))
        if instance is not None and instance.takes_outcome(instruction):
            self._deliver_run(origin, instance.kind, [(instance.subject, signal, offset)])
        elif not self._caught_up:
            self._early[instruction] = Held(encode(signal), *origin, offset)
            self._early_changed = True

    def caught_up(self) -> None:
        """Everything that a crash made the inputs repeat has been delivered."""
        self._caught_up = True
        self._early_changed = self._early_changed or bool(self._early)
        self._early.clear()
        self._retire()

    def _settle_early(self, instance: Instance, requested: Iterable[str]) -> None:
        """Deliver the outcomes of actions that were asked for again after their outcomes had been read again."""
        for instruction in requested:
            if (early := self._early.pop(instruction, None)) is not None:
                self._early_changed = True
                self._outcome(instance.agent_id, decode(early.value), (early.topic, early.partition), early.offset)

    def _hold(self, instance: Instance, signal: Signal[Any], where: Where) -> None:
        if len(instance.held) >= self._limits.held_signals:
            message = f"{instance.agent_id} is paused and holds {self._limits.held_signals} signals already"
            self._dead_letter(signal, where, "agent_paused", message, instance.agent_id)
            return
        self._touch(instance)
        instance.hold(Held(encode(signal), *where))
