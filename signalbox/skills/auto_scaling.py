"""The skill that decides how many agents a pool and how many workers a flow should have.

It reacts in two ways. A word that load is high, low or overflowing moves a pool at once, by a rule
(`signalbox.scaling.rules`). What a sensor measures of a pool or flow goes to the controller
(`signalbox.scaling.controller`). Either way every decision is a record on `scaling`, held ones included, and one that
changes something is a command on `control`. It resizes nothing itself: whoever supervises obeys `control.scale`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Self

import msgspec
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from schemas.control import ScaleCommand
from schemas.payloads.base import Word
from schemas.payloads.load import LoadLevel, LoadMetrics, QueueOverflow
from schemas.payloads.scaling import AgentScaled, PoolResized, Rescale
from schemas.signal import Signal
from signalbox.agents.contract import AgentState, Context, Pool, on
from signalbox.agents.directives import Directive, Emit
from signalbox.agents.skill import Skill
from signalbox.agents.task_agent import TaskAgent
from signalbox.scaling import controller, rules
from signalbox.scaling.memory import Memory
from signalbox.scaling.model import Decision, Held, Sample
from signalbox.scaling.policy import Policy, Units
from signalbox.scaling.records import to_payload

Decide = Callable[[Policy, Memory, Sample], tuple[Decision, Memory]]

#: Targets that are kept in mind. Anyone can name one in a signal.
_MOST_TARGETS = 1_000
#: A change that was ordered counts as under way for so long, unless it is seen to be done.
_UNDER_WAY_S = 30.0
#: A pool that was measured within so many seconds is decided on by measure.
_MEASURED_S = 30.0
#: A pool is resized while it runs.
_POOL_PAUSE_S = 0.001
_SUBJECT = re.compile(r"(flow|pool)/([a-z][a-z0-9_]{0,63})")
_MEASURES = tuple(name for name in Sample.__struct_fields__ if name in LoadMetrics.model_fields)


class Known(msgspec.Struct):
    """What is known of one pool or flow. Times are Unix seconds."""

    units: int | None = None
    """How many there are, as far as was told."""
    wanted: int | None = None
    """How many were ordered, until it is done or was too long ago."""
    ordered_at: float | None = None
    """When this skill last ordered a change."""
    person_at: float | None = None
    """When a person last changed it."""
    measured_at: float | None = None
    memory: Memory = Memory()


def _shipped_sizes() -> dict[str, int]:
    addressing = TaskAgent.addressing
    return {TaskAgent.name: addressing.size} if isinstance(addressing, Pool) else {}


class AutoScalingSkill(Skill):
    """Scales pools of agents and workers of flows by their load."""

    inputs = (
        "system.load.*",
        "agent.queue.*",
        "performance.*",
        "scaling.pool.resized",
        "scaling.rescale.*",
        "scaling.paused",
        "scaling.resumed",
    )
    outputs = ("scaling.agent.spawned", "scaling.agent.terminated", "scaling.decision.*", "control.scale")

    class Settings(Skill.Settings):
        """The thresholds and bounds of the rules, and the policies of what is measured."""

        scale_up_threshold: float = Field(0.8, gt=0)
        """A word of higher load adds an agent."""
        scale_down_threshold: float = Field(0.2, ge=0)
        """A word of lower load takes one away."""
        min_agents: Units = 1
        """A pool is never made smaller."""
        max_agents: Units = 10
        """A pool is never made larger."""
        cooldown_s: NonNegativeFloat = 60.0
        """Least seconds between two changes by words of load. An overflow does not wait."""
        pool: Word = TaskAgent.name
        """The pool that is meant by a word that names none."""
        sizes: dict[Word, PositiveInt] = Field(default_factory=_shipped_sizes)
        """The sizes of pools until something tells of them."""
        enabled: bool = True
        """Whether decisions become commands. They are recorded in any case."""
        override_s: NonNegativeFloat = 300.0
        """After a person changed a target, no decision does for so long."""
        late_s: PositiveFloat = 60.0
        """What was measured longer ago is learned from, but changes nothing any more."""
        flows: dict[Word, Policy] = Field(default_factory=dict)
        """Policies of flows by name. Those not named have the defaults."""
        pools: dict[Word, Policy] = Field(default_factory=dict)
        """Policies of pools. Those not named have the defaults, and the bounds above."""

        @model_validator(mode="after")
        def _fits_together(self) -> Self:
            if self.scale_down_threshold >= self.scale_up_threshold:
                msg = "scale_down_threshold has to lie below scale_up_threshold"
                raise ValueError(msg)
            if self.min_agents > self.max_agents:
                msg = "min_agents is larger than max_agents"
                raise ValueError(msg)
            if empty := sorted(name for name, policy in self.pools.items() if policy.scale_to_zero):
                msg = f"a pool keeps at least one agent, so scale_to_zero is for flows only, not for {', '.join(empty)}"
                raise ValueError(msg)
            return self

    class State(AgentState):
        """What is known of each target, by `pool/<name>` or `flow/<name>`."""

        paused: bool = False
        targets: dict[str, Known] = {}  # noqa: RUF012 - a struct gives each instance its own

    settings: Settings

    def __init__(self, *, decide: Decide = controller.decide, **options: Any) -> None:
        """Args:
        decide: makes a decision of a policy, what is remembered and what was measured.
        options: fields of `Settings`.
        """
        super().__init__(**options)
        self._decide = decide

    @on("agent.queue.overflow", priority=200)
    def emergency_scale(self, state: State, signal: Signal[QueueOverflow], context: Context) -> Iterator[Directive]:
        """Add a quarter of a pool whose queue overflows, at least two agents, whenever the last change was."""
        yield from self._by_rule(state, signal, context, rule="queue_overflow")

    @on("system.load.high", priority=100)
    def scale_up(self, state: State, signal: Signal[LoadLevel], context: Context) -> Iterator[Directive]:
        """Add an agent if the load is above the threshold and there may be more."""
        yield from self._by_level(state, signal, context, "high_load", self.settings.scale_up_threshold)

    @on("system.load.low", priority=50)
    def scale_down(self, state: State, signal: Signal[LoadLevel], context: Context) -> Iterator[Directive]:
        """Take an agent away if the load is below the threshold and there may be fewer."""
        yield from self._by_level(state, signal, context, "low_load", self.settings.scale_down_threshold)

    @on("system.load.metrics")
    def weigh_flow(self, state: State, signal: Signal[LoadMetrics], context: Context) -> Iterator[Directive]:
        """Let the controller decide on the workers of a flow."""
        name = _named(signal, "flow")
        yield from self._by_measure(state, signal, context, self.settings.flows.get(name, Policy()))

    @on("agent.queue.metrics")
    def weigh_pool(self, state: State, signal: Signal[LoadMetrics], context: Context) -> Iterator[Directive]:
        """Let the controller decide on the agents of a pool."""
        yield from self._by_measure(state, signal, context, self._measured_policy(_named(signal, "pool")))

    @on("scaling.pool.resized")
    def pool_resized(self, state: State, signal: Signal[PoolResized], context: Context) -> Iterator[Directive]:
        """Take note of a pool's size. If a person changed it, leave it alone for a while, and tell of its agents."""
        resized = signal.data
        known = self._known(state, f"pool/{resized.pool}")
        known.units, known.wanted = resized.size, None
        if resized.decision_id is None and resized.size != resized.before:
            known.person_at = _moment(signal, context)
            yield from _agents_scaled(resized.pool, resized.before, resized.size, "command", None)

    @on("scaling.rescale.*")
    def flow_rescaled(self, state: State, signal: Signal[Rescale], context: Context) -> None:
        """Take note of a rescale, and leave a flow that a person rescaled alone for a while."""
        known = self._known(state, signal.data.target)
        known.units, known.wanted = signal.data.workers, None
        if signal.data.decision_id is None and not signal.type.endswith(".failed"):
            known.person_at = _moment(signal, context)

    @on("scaling.paused")
    def pause(self, state: State, signal: Signal[Any]) -> None:
        """Decide on, and change nothing."""
        state.paused = True

    @on("scaling.resumed")
    def resume(self, state: State, signal: Signal[Any]) -> None:
        """Change things again."""
        state.paused = False

    def _by_level(
        self, state: State, signal: Signal[LoadLevel], context: Context, rule: rules.Kind, threshold: float
    ) -> Iterator[Directive]:
        level = signal.data
        # The sensor's word is of a flow. A pool that is measured itself is not to shrink because of it.
        elsewhere = rule == "low_load" and level.target is not None
        yield from self._by_rule(
            state, signal, context, rule=rule, load=level.load, threshold=threshold, elsewhere=elsewhere
        )

    def _by_rule(
        self,
        state: State,
        signal: Signal[LoadLevel] | Signal[QueueOverflow],
        context: Context,
        *,
        rule: rules.Kind,
        load: float | None = None,
        threshold: float | None = None,
        elsewhere: bool = False,
    ) -> Iterator[Directive]:
        pool = signal.data.pool or self.settings.pool
        target = f"pool/{pool}"
        known, at = self._known(state, target), _moment(signal, context)
        policy = self._pool_policy(pool)
        occasion = rules.Occasion(
            rule=rule,
            cause=signal.id,
            target=target,
            at=at,
            units=self._units(known, pool),
            min=policy.min,
            max=policy.max,
            load=load,
            threshold=threshold,
            cooldown_s=0.0 if rule == "queue_overflow" else self.settings.cooldown_s,
            changed_at=known.ordered_at,
            held=self._held(state, known, at, context),
            measured=elsewhere and known.measured_at is not None and at - known.measured_at < _MEASURED_S,
        )
        yield from self._carry_out(known, rules.judge(occasion), policy)

    def _by_measure(
        self, state: State, signal: Signal[LoadMetrics], context: Context, policy: Policy
    ) -> Iterator[Directive]:
        target, at = signal.subject or "", _moment(signal, context)
        known = self._known(state, target)
        measured = {name: getattr(signal.data, name) for name in _MEASURES}
        under_way = self._under_way(known, signal.data.units, at)
        sample = Sample(
            target=target,
            at=at,
            held=self._held(state, known, at, context),
            **{**measured, "changing": signal.data.changing or under_way},
        )
        known.units, known.measured_at = signal.data.units, at
        decision, known.memory = self._decide(policy, known.memory, sample)
        yield from self._carry_out(known, decision, policy)

    def _carry_out(self, known: Known, decision: Decision, policy: Policy) -> Iterator[Directive]:
        is_made = decision.verdict == "scale"
        news = "scaling.decision.made" if is_made else "scaling.decision.held"
        yield Emit(news, to_payload(decision), subject=decision.target)
        if not (is_made and self.settings.enabled and policy.enabled):
            return
        known.wanted, known.ordered_at = decision.desired, decision.at
        command = ScaleCommand(
            target=decision.target,
            desired=decision.desired,
            reason=decision.message,
            decision_id=decision.id,
            expected=decision.units,
        )
        yield Emit("control.scale", command, subject=decision.target)
        kind, _, name = decision.target.partition("/")
        if kind == "pool":
            yield from _agents_scaled(name, decision.units, decision.desired, decision.reason, decision.id)

    def _known(self, state: State, target: str) -> Known:
        known = state.targets.get(target)
        if known is None:
            if len(state.targets) >= _MOST_TARGETS:
                msg = f"{_MOST_TARGETS} targets are known already, and {target!r} is none of them"
                raise ValueError(msg)
            known = state.targets[target] = Known()
        return known

    def _units(self, known: Known, pool: str) -> int:
        for units in (known.wanted, known.units, self.settings.sizes.get(pool)):
            if units is not None:
                return units
        msg = f"nothing has told of a pool {pool!r} yet; there are sizes of: {', '.join(self.settings.sizes) or 'none'}"
        raise ValueError(msg)

    def _pool_policy(self, pool: str) -> Policy:
        policy = self.settings.pools.get(pool)
        if policy is None:
            return Policy(min=self.settings.min_agents, max=self.settings.max_agents, pause_s=_POOL_PAUSE_S)
        return policy if "pause_s" in policy.model_fields_set else policy.model_copy(update={"pause_s": _POOL_PAUSE_S})

    def _measured_policy(self, pool: str) -> Policy:
        """That of a pool by measure: without one of its own, it keeps at least the agents that it was set to have.

        What is measured of a pool is the queue of its actions, and agents have other work as well.
        """
        policy, size = self._pool_policy(pool), self.settings.sizes.get(pool)
        if size is None or pool in self.settings.pools:
            return policy
        return policy.model_copy(update={"min": max(policy.min, size), "max": max(policy.max, size)})

    def _held(self, state: State, known: Known, at: float, context: Context) -> Held | None:
        """Why nothing may change now."""
        if state.paused:
            return "paused"
        if known.person_at is not None and at < known.person_at + self.settings.override_s:
            return "overridden"
        return "late" if context.now.timestamp() - at > self.settings.late_s else None

    def _under_way(self, known: Known, units: int, at: float) -> bool:
        """Whether a change that was ordered is still awaited; what was ordered is forgotten otherwise."""
        if known.wanted is None:
            return False
        if units != known.wanted and at - (known.ordered_at or 0.0) < _UNDER_WAY_S:
            return True
        known.wanted = None
        return False


def _agents_scaled(pool: str, before: int, after: int, reason: str, decision_id: str | None) -> Iterator[Directive]:
    """Tell of each agent that comes or goes: those of the highest numbers."""
    news = "scaling.agent.spawned" if after > before else "scaling.agent.terminated"
    numbers = range(before + 1, after + 1) if after > before else range(before, after, -1)
    for number in numbers:
        agent_id = f"{pool}_{number}"
        total = number if after > before else number - 1
        scaled = AgentScaled(agent_id=agent_id, pool=pool, reason=reason, total_agents=total, decision_id=decision_id)
        yield Emit(news, scaled, subject=agent_id)


def _moment(signal: Signal[Any], context: Context) -> float:
    """When it was measured or said, in Unix seconds; never later than now, whatever a clock elsewhere shows."""
    said = getattr(signal.data, "timestamp", None) or signal.time or context.now
    return min(said.timestamp(), context.now.timestamp())


def _named(signal: Signal[Any], kind: str) -> str:
    """The flow or pool that the subject names."""
    match = _SUBJECT.fullmatch(signal.subject or "")
    if match is None or match[1] != kind:
        msg = f"the subject of {signal.type} is {kind}/<name>, not {(signal.subject or '')[:100]!r}"
        raise ValueError(msg)
    return match[2]
