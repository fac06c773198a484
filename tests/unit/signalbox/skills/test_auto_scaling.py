"""The AutoScalingSkill on an agent: what it orders, what it records, and when it leaves things alone."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.control import ScaleCommand
from schemas.payloads.scaling import AgentScaled, ScalingDecision
from signalbox.agents import Agent, Singleton
from signalbox.agents.plan import Plan
from signalbox.app import App
from signalbox.config import Settings
from signalbox.errors import ConfigError, SignalboxError
from signalbox.scaling import controller
from signalbox.scaling.memory import Memory
from signalbox.scaling.model import Decision, Sample
from signalbox.scaling.policy import Policy
from signalbox.scaling.records import differences
from signalbox.skills import AutoScalingSkill
from signalbox.testing import Harness

Told = list[tuple[Policy, Memory, Sample]]


def wanting(desired: int, told: Told) -> Callable[[Policy, Memory, Sample], tuple[Decision, Memory]]:
    """A controller that wants so many units unless it has to hold, and counts its samples in its memory."""

    def decide(policy: Policy, memory: Memory, sample: Sample) -> tuple[Decision, Memory]:
        told.append((policy, memory, sample))
        holds = sample.held or ("changing" if sample.changing else None)
        decision = Decision(
            id=f"{sample.target}-{len(told)}",
            target=sample.target,
            at=sample.at,
            units=sample.units,
            desired=sample.units if holds else desired,
            verdict="hold" if holds or desired == sample.units else "scale",
            reason=holds or "lag",
            message="",
            terms={},
            inputs={},
        )
        return decision, msgspec.structs.replace(memory, ups=memory.ups + 1)

    return decide


def autoscaled(**options: Any) -> Harness:
    agent = type(
        "Autoscaler", (Agent,), {"skills": (AutoScalingSkill(**options),), "addressing": Singleton("autoscaler")}
    )
    return Harness(App(agents=[agent], builtins=False))


def decisions(harness: Harness) -> list[tuple[str, str, int, int]]:
    """Of each decision: made or held, why, from how many and to how many."""
    records = [
        (one.type.rpartition(".")[2], ScalingDecision.model_validate(one.data))
        for one in harness.emitted("scaling.decision.*")
    ]
    return [(verdict, one.reason, one.current, one.desired) for verdict, one in records]


def commands(harness: Harness) -> list[tuple[str, int, int | None]]:
    """Of each command: target, units wanted, and units that it expects."""
    found = [ScaleCommand.model_validate(one.data) for one in harness.emitted("control.scale", topic="control")]
    return [(one.target, one.desired, one.expected) for one in found]


def agents(harness: Harness, news: str) -> list[AgentScaled]:
    return [AgentScaled.model_validate(one.data) for one in harness.emitted(f"scaling.agent.{news}", topic="scaling")]


def later(harness: Harness, seconds: float) -> None:
    harness.advance(timedelta(seconds=seconds))


def test_a_word_of_high_load_adds_an_agent() -> None:
    """It needs nothing but a number: the usual pool is meant, and decision, command and agent name each other."""
    harness = autoscaled()
    harness.send("system.load.high", {"load": 0.93}, subject="anything")
    assert decisions(harness) == [("made", "high_load", 5, 6)]
    assert commands(harness) == [("pool/task_agent", 6, 5)]
    [spawned] = agents(harness, "spawned")
    [decision], [command] = harness.emitted("scaling.decision.made"), harness.emitted("control.scale")
    assert (spawned.agent_id, spawned.pool, spawned.reason, spawned.total_agents) == (
        "task_agent_6",
        "task_agent",
        "high_load",
        6,
    )
    assert spawned.decision_id == decision.data["decision_id"] == command.data["decision_id"]
    assert {decision.subject, command.subject} == {"pool/task_agent"}


def test_a_word_of_low_load_takes_the_last_agent_away() -> None:
    """The agent of the highest number goes."""
    harness = autoscaled()
    harness.send("system.load.low", {"load": 0.05})
    assert decisions(harness) == [("made", "low_load", 5, 4)]
    [terminated] = agents(harness, "terminated")
    assert (terminated.agent_id, terminated.reason, terminated.total_agents) == ("task_agent_5", "low_load", 4)


@pytest.mark.parametrize(
    ("type", "load", "options", "reason"),
    [
        ("system.load.high", 0.8, {}, "below_threshold"),
        ("system.load.high", 0.8, {"scale_up_threshold": 0.7}, "high_load"),
        ("system.load.low", 0.2, {}, "above_threshold"),
        ("system.load.low", 0.2, {"scale_down_threshold": 0.3}, "low_load"),
        ("system.load.high", 1.7, {"max_agents": 5}, "at_max"),
        ("system.load.low", 0, {"min_agents": 5}, "at_min"),
        ("agent.queue.overflow", 1, {"max_agents": 5}, "at_max"),
    ],
)
def test_thresholds_and_bounds(type: str, load: float, options: dict[str, Any], reason: str) -> None:
    """A load at its threshold is not beyond it, and a pool at its bound stays there; either way it is on record."""
    harness = autoscaled(**options)
    harness.send(type, {"load": load})
    [(_, given, _, _)] = decisions(harness)
    assert given == reason
    assert len(commands(harness)) == (reason in ("high_load", "low_load"))


def test_changes_by_words_keep_their_distance() -> None:
    """Within the cooldown the second word is held, after it another agent comes."""
    harness = autoscaled()
    harness.send("system.load.high", {"load": 0.9})
    later(harness, 59)
    harness.send("system.load.high", {"load": 0.9})
    later(harness, 2)
    harness.send("system.load.high", {"load": 0.9})
    assert decisions(harness) == [("made", "high_load", 5, 6), ("held", "cooldown", 6, 6), ("made", "high_load", 6, 7)]


@pytest.mark.parametrize(("size", "most", "desired"), [(1, 100, 3), (5, 100, 7), (20, 100, 25), (99, 100, 100)])
def test_an_overflow_adds_a_quarter_at_once(size: int, most: int, desired: int) -> None:
    """An emergency adds a quarter, at least two, up to the maximum, and does not wait for the cooldown."""
    harness = autoscaled(sizes={"task_agent": size}, max_agents=most, cooldown_s=1000)
    harness.send("agent.queue.overflow")
    assert commands(harness) == [("pool/task_agent", desired, size)]
    if desired < most:
        harness.send("agent.queue.overflow", {"queued": 7})
        assert len(commands(harness)) == 2
    assert len(agents(harness, "spawned")) >= desired - size


def test_a_signal_may_name_another_pool() -> None:
    """Each pool has its own size, bounds and cooldown."""
    pools = {"translator": {"max": 50}}
    harness = autoscaled(sizes={"task_agent": 5, "translator": 40}, pools=pools)
    for _ in range(2):
        harness.send("system.load.high", {"load": 0.9, "pool": "translator"})
    harness.send("system.load.high", {"load": 0.9})
    assert commands(harness) == [("pool/translator", 41, 40), ("pool/task_agent", 6, 5)]


@pytest.mark.parametrize(
    ("type", "data", "reason", "says"),
    [
        ("system.load.high", None, "invalid_payload", "valid dictionary"),
        ("system.load.high", {}, "invalid_payload", "load: Field required"),
        ("system.load.high", {"load": "0.93"}, "invalid_payload", "load: Input should be a valid number"),
        ("system.load.low", {"load": True}, "invalid_payload", "load: Input should be a valid number"),
        ("system.load.low", {"load": -1}, "invalid_payload", "load: "),
        ("system.load.high", {"load": 1, "pool": "No Pool"}, "invalid_payload", "pool: "),
        ("system.load.high", {"load": 1, "pool": "nobody"}, "handler_failed", "told of a pool 'nobody'"),
        ("agent.queue.metrics", {"units": 3}, "handler_failed", "subject of agent.queue.metrics is pool/<name>"),
        ("system.load.metrics", {"units": "many"}, "invalid_payload", "units: "),
    ],
)
def test_what_makes_no_sense_is_set_aside_with_its_reason(type: str, data: Any, reason: str, says: str) -> None:
    """A signal without a load, without a known pool or without a target becomes a dead letter that says so."""
    harness = autoscaled()
    harness.send(type, data)
    [letter] = harness.dead_letters
    assert letter["reason"] == reason
    assert says in letter["message"]
    assert harness.emitted() == []


def test_words_of_an_overflow_may_come_without_data() -> None:
    """Whoever sends an overflow by hand need say nothing more."""
    harness = autoscaled()
    harness.send("agent.queue.overflow", None)
    assert commands(harness) == [("pool/task_agent", 7, 5)]


def test_what_is_measured_goes_to_the_controller() -> None:
    """The policy of the target, what was remembered and the whole sample get there, and memory is kept."""
    told: Told = []
    flows = {"agents": Policy(max=3)}
    harness = autoscaled(decide=wanting(2, told), flows=flows)
    measured = {"units": 1, "arrivals": 100.5, "lag": 7, "busy": 0.5, "partitions": 8, "pauses": [0.2]}
    for _ in range(2):
        harness.send("system.load.metrics", measured, subject="flow/agents")
        harness.send("system.load.metrics", {"units": 1}, subject="flow/scaling")
    assert [policy.max for policy, _, _ in told] == [3, 10, 3, 10]
    assert [memory.ups for _, memory, _ in told] == [0, 0, 1, 1]
    at = harness.clock.now().timestamp()
    assert told[0][2] == Sample(
        target="flow/agents", at=at, units=1, arrivals=100.5, lag=7.0, busy=0.5, partitions=8, pauses=(0.2,)
    )


def test_a_pool_is_resized_without_a_pause() -> None:
    """A pool's policy prices a change at next to nothing unless it says otherwise, and has the bounds of the skill."""
    told: Told = []
    pools = {"slow": {"pause_s": 3}, "wide": {"max": 70}}
    harness = autoscaled(decide=wanting(1, told), pools=pools, max_agents=20)
    for pool in ("slow", "wide", "task_agent"):
        harness.send("agent.queue.metrics", {"units": 1}, subject=f"pool/{pool}")
    assert [(policy.pause_s, policy.max) for policy, _, _ in told] == [(3, 10), (0.001, 70), (0.001, 20)]


def test_a_measured_pool_keeps_the_agents_that_it_was_set_to_have() -> None:
    """By measure, a pool without a policy is never made smaller than set, nor cut because it was set to be large."""
    told: Told = []
    sizes = {"task_agent": 20, "bounded": 20}
    harness = autoscaled(decide=wanting(1, told), sizes=sizes, pools={"bounded": {"min": 2, "max": 40}})
    for pool in ("task_agent", "bounded", "unheard_of"):
        harness.send("agent.queue.metrics", {"units": 20}, subject=f"pool/{pool}")
    assert [(policy.min, policy.max) for policy, _, _ in told] == [(20, 20), (2, 40), (1, 10)]


def test_every_decision_is_recorded_and_one_to_scale_is_a_command() -> None:
    """A pool's new agents are told of as well; a flow has none."""
    harness = autoscaled(decide=wanting(3, []))
    for units in (2, 3):
        harness.send("agent.queue.metrics", {"units": units}, subject="pool/task_agent")
        harness.send("system.load.metrics", {"units": units}, subject="flow/agents")
    assert decisions(harness) == [
        ("made", "lag", 2, 3),
        ("made", "lag", 2, 3),
        ("held", "lag", 3, 3),
        ("held", "lag", 3, 3),
    ]
    assert commands(harness) == [("pool/task_agent", 3, 2), ("flow/agents", 3, 2)]
    assert [one.agent_id for one in agents(harness, "spawned")] == ["task_agent_3"]


def test_a_change_under_way_is_not_ordered_again() -> None:
    """Until the ordered size is seen, or half a minute has passed, samples say that the target is changing."""
    told: Told = []
    harness = autoscaled(decide=wanting(4, told))
    for pause_s in (0, 2, 29):
        later(harness, pause_s)
        harness.send("agent.queue.metrics", {"units": 2}, subject="pool/task_agent")
    assert [sample.changing for _, _, sample in told] == [False, True, False]
    assert len(commands(harness)) == 2
    harness.send("agent.queue.metrics", {"units": 4}, subject="pool/task_agent")
    assert not told[-1][2].changing


@pytest.mark.parametrize("options", [{"enabled": False}, {"pools": {"task_agent": {"enabled": False}}}])
def test_without_leave_decisions_are_only_recorded(options: dict[str, Any]) -> None:
    """Whether scaling is off altogether or for a target: what would be done is on record, and nothing is ordered."""
    harness = autoscaled(decide=wanting(9, []), **options)
    harness.send("agent.queue.metrics", {"units": 5}, subject="pool/task_agent")
    harness.send("system.load.high", {"load": 1})
    assert [made for made, *_ in decisions(harness)] == ["made", "made"]
    assert commands(harness) == []
    assert agents(harness, "spawned") == []


def test_a_persons_command_is_left_alone_for_a_while() -> None:
    """After a resize without a decision behind it, both rules and controller hold, then go on from the new size."""
    harness = autoscaled(decide=wanting(3, []), override_s=100)
    harness.send("scaling.pool.resized", {"pool": "task_agent", "size": 9, "before": 7, "reason": "a fair"})
    assert [(one.agent_id, one.reason) for one in agents(harness, "spawned")] == [
        ("task_agent_8", "command"),
        ("task_agent_9", "command"),
    ]
    for type in ("system.load.high", "agent.queue.overflow"):
        harness.send(type, {"load": 1})
    harness.send("agent.queue.metrics", {"units": 9}, subject="pool/task_agent")
    assert decisions(harness) == [("held", "overridden", 9, 9)] * 3
    later(harness, 101)
    harness.send("system.load.high", {"load": 1})
    assert decisions(harness)[-1] == ("made", "high_load", 9, 10)


def test_a_resize_by_decision_is_no_override() -> None:
    """What the skill ordered itself, when done, only tells the size."""
    harness = autoscaled(cooldown_s=0)
    harness.send("scaling.pool.resized", {"pool": "task_agent", "size": 7, "before": 5, "decision_id": "d"})
    harness.send("system.load.high", {"load": 1})
    assert decisions(harness) == [("made", "high_load", 7, 8)]
    assert len(agents(harness, "spawned")) == 1


@pytest.mark.parametrize(
    ("type", "decision_id", "reason"),
    [
        ("started", None, "overridden"),
        ("completed", None, "overridden"),
        ("failed", None, "lag"),
        ("started", "d", "lag"),
    ],
)
def test_a_person_may_rescale_a_flow(type: str, decision_id: str | None, reason: str) -> None:
    """A rescale that a person asked for counts like a resize; one that failed or was decided does not."""
    harness = autoscaled(decide=wanting(3, []))
    rescale = {
        "rescale_id": "r", "target": "flow/agents", "generation": 2, "before": 1, "desired": 2, "step": "done",
        "workers": 2, "decision_id": decision_id,
    }  # fmt: skip
    harness.send(f"scaling.rescale.{type}", rescale)
    harness.send("system.load.metrics", {"units": 2}, subject="flow/agents")
    assert decisions(harness)[0][1] == reason


def test_a_pause_holds_everything_until_it_is_over() -> None:
    """While paused, decisions are held for that reason, also after a restart."""
    harness = autoscaled(decide=wanting(3, []))
    harness.send("scaling.paused", {"reason": "a release"})
    harness.restart()
    harness.send("system.load.high", {"load": 1})
    harness.send("system.load.metrics", {"units": 2}, subject="flow/agents")
    assert decisions(harness) == [("held", "paused", 5, 5), ("held", "paused", 2, 2)]
    harness.send("scaling.resumed")
    harness.send("system.load.high", {"load": 1})
    assert commands(harness) == [("pool/task_agent", 6, 5)]


def test_what_comes_late_changes_nothing_any_more() -> None:
    """A sample from before a standstill is learned from, but held; one from a clock ahead counts as of now."""
    told: Told = []
    harness = autoscaled(decide=wanting(3, told))
    now = harness.clock.now()
    old, ahead = ((now + timedelta(hours=hours)).isoformat() for hours in (-1, 1))
    harness.send("system.load.metrics", {"units": 2, "timestamp": old}, subject="flow/agents")
    harness.send("system.load.metrics", {"units": 2, "timestamp": ahead}, subject="flow/agents")
    assert [(sample.held, sample.at) for _, _, sample in told] == [
        ("late", now.timestamp() - 3600),
        (None, now.timestamp()),
    ]
    assert commands(harness) == [("flow/agents", 3, 2)]


def test_a_measured_pool_does_not_shrink_because_a_flow_is_idle() -> None:
    """The sensor's word about a flow takes no agent from a pool that is measured; a person's word does."""
    harness = autoscaled(decide=wanting(5, []))
    harness.send("agent.queue.metrics", {"units": 5}, subject="pool/task_agent")
    harness.send("system.load.low", {"load": 0.01, "target": "flow/agents"})
    harness.send("system.load.low", {"load": 0.01})
    assert [reason for _, reason, _, _ in decisions(harness)[1:]] == ["measured", "low_load"]


def test_targets_that_anyone_may_name_are_bounded() -> None:
    """A flood of invented targets fills no memory: beyond a bound they become dead letters."""
    harness = autoscaled(decide=wanting(1, []))
    targets = {f"pool/p{number}": {"units": 1} for number in range(1_000)}
    instance = {"auto_scaling": {"targets": targets}}
    settings = Settings.model_validate({"agents": {"autoscaler": {"state": instance}}})
    agent = type("Autoscaler", (Agent,), {"skills": (AutoScalingSkill(),), "addressing": Singleton("autoscaler")})
    harness = Harness(App(agents=[agent], builtins=False), settings)
    harness.send("agent.queue.metrics", {"units": 1}, subject="pool/one_more")
    [letter] = harness.dead_letters
    assert "1000 targets are known already" in letter["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_agents": 101}, "max_agents"),
        ({"min_agents": 5, "max_agents": 4}, "min_agents is larger"),
        ({"scale_down_threshold": 0.9}, "has to lie below"),
        ({"pools": {"task_agent": {"scale_to_zero": True}}}, "keeps at least one agent"),
        ({"cooldown": 60}, "cooldown"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    """Bounds, thresholds and names are checked when the skill is mounted."""
    with pytest.raises(ConfigError, match=message):
        autoscaled(**options)


def test_the_routes_have_the_priorities_of_their_urgency() -> None:
    """An overflow comes before high load, and that before low load, wherever patterns meet."""
    agent = type("Autoscaler", (Agent,), {"skills": (AutoScalingSkill(),), "addressing": Singleton("autoscaler")})
    routes = Plan(App(agents=[agent], builtins=False), Settings()).routes()
    found = {route.target.name.partition(".")[2]: route.priority for route in routes if route.priority}
    assert found == {"emergency_scale": 200, "scale_up": 100, "scale_down": 50}


def test_a_decision_by_rule_can_be_made_again() -> None:
    """From the inputs on its record alone, the same decision follows, id included."""
    harness = autoscaled()
    for type in ("system.load.high", "agent.queue.overflow", "system.load.low"):
        harness.send(type, {"load": 0.875})
    records = harness.emitted("scaling.decision.*")
    assert len(records) == 3
    for record in records:
        assert differences(ScalingDecision.model_validate(record.data)) == {}


def test_inputs_that_are_not_an_occasion_are_refused() -> None:
    """A record that was tampered with is an error for whoever explains it, and no crash."""
    for inputs in ({}, {"occasion": {}}, {"occasion": {"rule": "whim"}}):
        with pytest.raises(SignalboxError, match="not the inputs of a decision"):
            controller.replay(inputs)


def test_the_real_controller_scales_a_busy_pool_and_tells_why_it_holds() -> None:
    """Ten times the load leads to one command within two samples; while held, the same samples lead to none."""
    for held, made in ((False, 1), (True, 0)):
        harness = autoscaled(max_agents=100)
        if held:
            harness.send("scaling.paused")
        _feed(harness, arrivals=20.0, processed=20.0, lag=0.0, busy=0.5, samples=10)
        _feed(harness, arrivals=200.0, processed=40.0, lag=800.0, busy=1.0, samples=2)
        found = decisions(harness)
        assert sum(verdict == "made" for verdict, *_ in found) == made
        assert (found[-1][1] == "paused") is held
        assert len(commands(harness)) == made
        for record in harness.emitted("scaling.decision.*"):
            assert differences(ScalingDecision.model_validate(record.data)) == {}


def _feed(harness: Harness, *, samples: int, **measured: float) -> None:
    for _ in range(samples):
        later(harness, 2)
        harness.send("agent.queue.metrics", {"units": 5, **measured}, subject="pool/task_agent")


_EVENTS = st.tuples(
    st.sampled_from(["high", "low", "overflow", "person", "measured", "wait"]), st.integers(min_value=1, max_value=12)
)


@given(st.lists(_EVENTS, max_size=25))
@settings(max_examples=40)
def test_agents_come_and_go_as_ordered_whatever_happens(events: list[tuple[str, int]]) -> None:
    """Whoever asks for what: orders stay within bounds, and the agents told of are always 1 to the latest size."""
    harness = autoscaled(decide=wanting(9, []), cooldown_s=0, override_s=1, sizes={"task_agent": 4})
    size, orders = 4, 0
    for event, number in events:
        match event:
            case "high" | "low":
                harness.send(f"system.load.{event}", {"load": 1 if event == "high" else 0})
            case "overflow":
                harness.send("agent.queue.overflow", {"queued": number})
            case "measured":
                harness.send("agent.queue.metrics", {"units": size}, subject="pool/task_agent")
            case "wait":
                later(harness, number)
            case "person":
                resized = {"pool": "task_agent", "size": number, "before": size}
                harness.send("scaling.pool.resized", resized)
                size = number
        for _, desired, expected in commands(harness)[orders:]:
            assert expected == size
            assert 1 <= desired <= 10
            size, orders = desired, orders + 1
    there = set(range(1, 5))
    for signal in harness.emitted("scaling.agent.*"):
        number = int(signal.data["agent_id"].rpartition("_")[2])
        if signal.type.endswith("spawned"):
            there.add(number)
        else:
            there.remove(number)
        assert there == set(range(1, signal.data["total_agents"] + 1))
    assert len(there) == size
    # This app has the autoscaler alone, and so nobody whom its commands are for.
    assert {letter["reason"] for letter in harness.dead_letters} <= {"unknown_target"}
