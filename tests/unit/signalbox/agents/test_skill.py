"""Skills: what an agent gets by mounting one, and what is refused before anything runs."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field

from schemas.signal import Signal
from signalbox.actions import action
from signalbox.agents import (
    Agent,
    AgentState,
    Context,
    Directive,
    Emit,
    RunAction,
    Schedule,
    Singleton,
    Skill,
    data,
    on,
    seconds,
    state,
)
from signalbox.agents.plan import Plan
from signalbox.agents.records import Instance, load, save
from signalbox.app import App
from signalbox.config import Settings
from signalbox.errors import ConfigError
from signalbox.testing import Harness


class Reading(BaseModel):
    celsius: float


class Number(BaseModel):
    value: int


@action()
def double(params: Number) -> Number:
    return Number(value=params.value * 2)


class CountingSkill(Skill):
    """Counts readings, and tells of every one above a limit."""

    inputs = ("room.*", "counting.tick", "action.*")
    outputs = ("count.**",)
    actions = (double,)

    class Settings(Skill.Settings):
        limit: float = Field(30.0, gt=0)

    class State(AgentState):
        seen: int = 0
        hot: int = 0
        quiet: bool = False

    settings: Settings

    @on("room.temperature")
    def count(self, state: State, signal: Signal[Reading]) -> None:
        state.seen += 1

    @on("room.temperature", when=(data("celsius") > 0) & (state("quiet") == False), priority=10)  # noqa: E712
    def tell(self, state: State, signal: Signal[Reading], context: Context) -> Iterator[Directive]:
        if signal.data.celsius > self.settings.limit:
            state.hot += 1
            yield Emit("count.hot", {"hot": state.hot, "by": context.agent_id})

    @on("room.hush")
    def hush(self, state: State, signal: Signal[Any]) -> Schedule:
        state.quiet = True
        return Schedule("counting.tick", seconds(5))

    @on("counting.tick")
    def speak(self, state: State, signal: Signal[Any]) -> None:
        state.quiet = False

    @on("room.rude")
    def rude(self, state: State, signal: Signal[Any]) -> Emit:
        state.seen = -1
        return Emit("elsewhere", {})

    @on("room.double")
    def ask(self, state: State, signal: Signal[Any]) -> RunAction:
        return RunAction("double", {"value": 21})

    @on("action.completed")
    def answered(self, state: State, signal: Signal[Any]) -> Emit:
        return Emit("count.doubled", signal.data["result"])


class Keeper(Agent):
    """Has handlers and a state of its own besides."""

    addressing = Singleton("keeper")
    skills = (CountingSkill(),)

    class State(AgentState):
        own: int = 0

    @on("room.temperature")
    def mine(self, state: State, signal: Signal[Any]) -> None:
        state.own += 1


def _harness(agent: type[Agent] = Keeper, **counting: Any) -> Harness:
    settings = {"agents": {agent.name: {"skills": {"counting": counting}}}} if counting else {}
    return Harness(App(agents=[agent], builtins=False), Settings.model_validate(settings))


def _agent(*skills: Any, **body: Any) -> type[Agent]:
    return type("Faulty", (Agent,), {"skills": skills, **body})


def _skill(**body: Any) -> Skill:
    return type("CountingSkill", (CountingSkill,), body)()  # type: ignore[no-any-return]


def test_a_skill_keeps_its_own_slice_beside_the_agents_state() -> None:
    """Handlers of a skill change the slice under the skill's name, those of the agent its own fields."""
    harness = _harness()
    for celsius in (20, 35, 36):
        harness.send("room.temperature", {"celsius": celsius})
    kept = harness.state("keeper")
    assert (kept.own, kept.counting) == (3, CountingSkill.State(seen=3, hot=2))
    assert [one.data for one in harness.emitted("count.hot")] == [{"hot": n, "by": "keeper"} for n in (1, 2)]


def test_a_condition_of_a_skill_looks_at_its_slice() -> None:
    """`state("quiet")` in a skill is the slice's field, changed by the skill's handlers and timers."""
    harness = _harness()
    harness.send("room.hush")
    harness.send("room.temperature", {"celsius": 35})
    harness.advance(seconds(6))
    harness.send("room.temperature", {"celsius": 35})
    assert len(harness.emitted("count.hot")) == 1
    assert harness.stats.condition_errors == {}


def test_settings_of_the_mount_lie_between_the_defaults_and_the_file() -> None:
    """`agents.<agent>.skills.<skill>` wins over what the skill was made with, and that over the defaults."""
    hot_from = {}
    warm = type("Keeper", (Keeper,), {"skills": (CountingSkill(limit=40),)})
    for name, harness in {"default": _harness(), "made": _harness(warm), "file": _harness(warm, limit="50")}.items():
        for celsius in (35, 45, 55):
            harness.send("room.temperature", {"celsius": celsius})
        hot_from[name] = harness.state("keeper").counting.hot
    assert hot_from == {"default": 3, "made": 2, "file": 1}


def test_one_skill_serves_several_agents_apart() -> None:
    """Agents that share a skill object have settings and slices of their own."""
    shared = CountingSkill()
    one, two = (
        type(name, (Agent,), {"skills": (shared,), "addressing": Singleton(name.lower())}) for name in ("One", "Two")
    )
    settings = Settings.model_validate({"agents": {"one": {"skills": {"counting": {"limit": 100}}}}})
    harness = Harness(App(agents=[one, two], builtins=False), settings)
    harness.send("room.temperature", {"celsius": 35})
    assert [harness.state(name).counting.hot for name in ("one", "two")] == [0, 1]


def test_an_output_that_is_not_declared_fails_the_handler() -> None:
    """The signal becomes a dead letter, the slice stays as it was, and nothing is sent."""
    harness = _harness()
    harness.send("room.temperature", {"celsius": 1})
    harness.send("room.rude")
    [letter] = harness.dead_letters
    assert letter["reason"] == "handler_failed"
    assert "counting.rude" in letter["message"]
    assert "emits 'elsewhere', which its outputs do not name" in letter["message"]
    assert harness.state("keeper").counting.seen == 1
    assert harness.emitted("elsewhere") == []


def test_invalid_data_for_a_skill_is_a_dead_letter() -> None:
    """A payload model of a skill's handler is checked like one of an agent's."""
    harness = _harness()
    harness.send("room.temperature", {"celsius": "hot"})
    assert {letter["reason"] for letter in harness.dead_letters} == {"invalid_payload"}
    assert harness.state("keeper").counting.seen == 0


def test_actions_of_a_skill_can_be_run() -> None:
    """An action that a skill brings is one of the app's, and its outcome comes back to the skill."""
    harness = _harness()
    harness.send("room.double")
    assert [one.data for one in harness.emitted("count.doubled")] == [{"value": 42}]


def test_routes_name_the_skill_and_run_in_the_usual_order() -> None:
    """A route of a skill stands in the app's router under its own name, ordered by specificity and priority."""
    plan = Plan(App(agents=[Keeper], builtins=False), Settings())
    found = [(route.target.name, route.priority) for route in plan.router.route("room.temperature")]
    assert found == [("counting.tell", 10), ("mine", 0), ("counting.count", 0)]


def test_an_agent_without_skills_is_as_before() -> None:
    """Its state is the very class that it declares, and its handlers are called without anything between."""
    bare = type("Keeper", (Keeper,), {"skills": ()})
    [kind] = Plan(App(agents=[bare], builtins=False), Settings()).kinds
    [handler] = kind.handlers("room.temperature")
    assert kind.state_type is Keeper.State
    assert handler.call == kind.agent.mine  # type: ignore[attr-defined]
    assert handler.plain
    assert not kind.reread


def test_slices_survive_a_restart() -> None:
    """What a skill remembers is saved and restored with the agent."""
    harness = _harness()
    harness.send("room.temperature", {"celsius": 35})
    harness.restart()
    harness.send("room.temperature", {"celsius": 35})
    assert harness.state("keeper").counting == CountingSkill.State(seen=2, hot=2)


def _saved(agent: type[Agent], **state: Any) -> tuple[bytes, Any]:
    [kind] = Plan(App(agents=[agent], builtins=False), Settings()).kinds
    saved = kind.encode_state(kind.state_type(**state))
    return save(Instance("keeper", kind, saved, 0)), kind


def test_a_slice_of_another_version_is_migrated_by_its_skill() -> None:
    """`Skill.migrate` gets the saved fields and version; the rest of the agent's state stays."""

    class State(AgentState):
        total: int = 0

    @classmethod  # type: ignore[misc]
    def migrate(cls: Any, state: dict[str, Any], version: int) -> dict[str, Any]:
        return {"total": state["seen"] * 100 + version}

    record, _ = _saved(Keeper, own=7, counting=CountingSkill.State(seen=3))
    newer = _skill(State=State, migrate=migrate, state_version=2)
    _, kind = _saved(type("Keeper", (Keeper,), {"skills": (newer,)}))
    loaded = load("keeper", kind, record).state
    assert (loaded.own, loaded.counting.total) == (7, 301)  # type: ignore[attr-defined]


def test_skills_come_and_go_between_restarts() -> None:
    """A skill mounted later begins afresh; the slice of one that is gone is dropped, and the agent lives on."""
    bare = type("Keeper", (Keeper,), {"skills": ()})
    without, bare_kind = _saved(bare, own=7)
    with_skill, kind = _saved(Keeper, own=8, counting=CountingSkill.State(seen=3))
    assert load("keeper", kind, without).state == kind.state_type(own=7)
    assert load("keeper", bare_kind, with_skill).state == Keeper.State(own=8)


class _NotAState:
    pass


@pytest.mark.parametrize(
    ("agent", "settings", "message"),
    [
        (_agent(CountingSkill), {}, "which is no skill"),
        (_agent("counting"), {}, "'counting', which is no skill"),
        (_agent(CountingSkill(), CountingSkill(limit=2)), {}, "more than one skill called counting"),
        (
            _agent(
                CountingSkill(),
                State=type("State", (AgentState,), {"__annotations__": {"counting": int}, "counting": 0}),
            ),
            {},
            "has a field counting",
        ),
        (_agent(CountingSkill(limits=3)), {}, "agents.faulty.skills.counting: limits: "),
        (_agent(CountingSkill()), {"counting": {"limit": 0}}, "agents.faulty.skills.counting: limit: "),
        (_agent(CountingSkill()), {"count": {}}, "skills that are not mounted: count"),
        (_agent(_skill(inputs=("room.temperature",))), {}, "handles 'room.hush', which lies outside its inputs"),
        (_agent(_skill(inputs=("room..x",))), {}, "segment 2 is empty"),
        (_agent(_skill(outputs=("x y",))), {}, "the pattern 'x y'"),
        (_agent(_skill(State=_NotAState)), {}, "State of the skill counting is not an AgentState"),
        (
            _agent(_skill(State=type("State", (AgentState,), {"__annotations__": {"n": int}}))),
            {},
            "State of the skill counting: .*`n`",
        ),
        (_agent(_skill(odd=on("room.odd")(lambda self, state: None))), {}, "faulty.counting.<lambda> takes 1"),
        (_agent(_skill(actions=(len,))), {}, "holds <built-in function len>, which is no action"),
        (_agent(_skill(actions=(double, copy.copy(double)))), {}, "another one of that name"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(agent: type[Agent], settings: dict[str, Any], message: str) -> None:
    """A wrong skill, mount or setting is a configuration error that names it and says what to do."""
    with pytest.raises(ConfigError, match=message) as caught:
        Plan(App(agents=[agent], builtins=False), Settings.model_validate({"agents": {"faulty": {"skills": settings}}}))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["Bad-Skill", "1Skill"])
def test_a_name_that_cannot_be_a_field_is_refused(name: str) -> None:
    """A skill's name is that of a field and of a setting."""
    with pytest.raises(ConfigError, match="not the name of a skill"):
        type(name, (Skill,), {})


def test_a_skill_is_named_after_its_class() -> None:
    """`AutoScalingSkill` is `auto_scaling`, and a skill called `Skill` keeps its name."""
    names = [type(name, (Skill,), {}).name for name in ("AutoScalingSkill", "Tidy")]
    assert names == ["auto_scaling", "tidy"]
