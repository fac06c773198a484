"""The compiled form of an app: what it refuses before anything runs, and what it bounds."""

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Context, Directive, Keyed, Pool, Singleton, on
from signalbox.agents import plan as plan_module
from signalbox.agents.plan import Plan, topic_router
from signalbox.app import App
from signalbox.config import TOPICS, Settings
from signalbox.errors import ConfigError

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTyping


class Plain(Agent):
    """Has one handler."""

    class State(AgentState):
        level: int = 3

    @on("plain.do")
    def do(self, state: State, signal: Signal[Any]) -> None: ...


def _plan(*agents: type[Agent], **settings: Any) -> Plan:
    return Plan(App(agents=agents, builtins=False), Settings.model_validate(settings))


def _agent(handler: Any = None, **body: Any) -> type[Agent]:
    return type("Faulty", (Agent,), {**({"handle": on("x.y")(handler)} if handler else {}), **body})


async def _async(self: Any, state: Any, signal: Signal[Any]) -> None: ...


def _too_few(self: Any, state: Any) -> None: ...


def _too_many(self: Any, state: Any, signal: Any, context: Any, more: Any) -> None: ...


def _unresolved(self: Any, state: Any, signal: "Signal[OnlyForTyping]") -> None: ...


def _routed(pattern: str, priority: int = 0) -> Any:
    def fine(self: Any, state: Any, signal: Any) -> None: ...

    return on(pattern, priority=priority)(fine)


class _NotAState:
    pass


@pytest.mark.parametrize(
    ("agent", "settings", "message"),
    [
        (_agent(_async), {}, "faulty._async is async"),
        (_agent(_too_few), {}, "takes 1 arguments"),
        (_agent(_too_many), {}, "takes 4 arguments"),
        (_agent(_unresolved), {}, "cannot be resolved"),
        (_agent(handle=_routed("not a pattern")), {}, "faulty.handle: the pattern"),
        (_agent(handle=_routed("x.y", 5000)), {}, "faulty.handle: .*priority 5000"),
        (_agent(State=_NotAState), {}, "State is not an AgentState"),
        (_agent(State=type("State", (AgentState,), {"__annotations__": {"n": int}})), {}, "faulty.state: .*`n`"),
        (
            _agent(State=type("State", (AgentState,), {"__annotations__": {"n": int}, "n": None})),
            {},
            "default that does not fit its type",
        ),
        (Plain, {"agents": {"plain": {"state": {"levle": 1}}}}, "has no field levle"),
        (Plain, {"agents": {"plain": {"state": {"level": "high"}}}}, "agents.plain.state"),
        (Plain, {"agents": {"plane": {}}}, "agents that the app does not have: plane"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(agent: type[Agent], settings: dict[str, Any], message: str) -> None:
    """A wrong handler, state or setting is a configuration error that names the agent and says what to do."""
    with pytest.raises(ConfigError, match=message) as caught:
        _plan(agent, **settings)
    assert caught.value.hint


@pytest.mark.parametrize(
    "addressings",
    [(Singleton("one"), Singleton("one")), (Pool(3), Singleton("faulty_a_2")), (Keyed("one"), Singleton("one"))],
)
def test_two_classes_cannot_share_an_agent(addressings: tuple[Any, Any]) -> None:
    """Classes whose agents would have the same id are refused, since only one could get its signals."""
    first, second = (
        type(f"Faulty{letter}", (Agent,), {"name": f"faulty_{letter.lower()}", "addressing": addressing})
        for letter, addressing in zip("AB", addressings, strict=True)
    )
    with pytest.raises(ConfigError, match="faulty_a and faulty_b both have an agent with the id"):
        _plan(first, second)


def test_settings_of_shipped_agents_may_stay_when_the_app_leaves_them_out() -> None:
    """A profile's settings for agents that ship do not hurt an app without them."""
    assert _plan(Plain, agents={"task_agent": {"size": 20}}).pools() == {}


def test_settings_give_initial_values() -> None:
    """`agents.<name>.state` replaces the defaults of a state's fields, converted to their types."""
    kind = _plan(Plain, agents={"plain": {"state": {"level": "12"}}}).kind("plain")
    assert kind is not None
    assert kind.decode_state(kind.initial_state) == Plain.State(level=12)


@pytest.mark.parametrize("target", ["nowhere", "", "Signals"])
def test_routes_lead_to_topics_of_the_system(target: str) -> None:
    """`kafka.routes` to an unknown topic is a configuration error and not a crash at the first signal."""
    with pytest.raises(ConfigError, match="no topic of this system") as caught:
        topic_router({"**": "signals", "x.*": target})
    assert all(topic in (caught.value.hint or "") for topic in TOPICS)


def test_the_default_routes_send_each_shipped_type_where_it_belongs() -> None:
    """Results, alerts, registry, telemetry and control each get their own types, and signals the rest."""
    router = topic_router(Settings().kafka.routes)
    expected = {
        "task.completed": "results", "task.failed": "results", "task.rejected": "results", "task.submitted": "signals",
        "alert.raised": "alerts", "alert.ack": "signals", "agent.registered": "registry", "agent.stopped": "registry",
        "agent.action.starting": "telemetry", "agent.error": "telemetry", "control.agent.spawn": "control",
        "scaling.decision.made": "scaling", "room.temperature": "signals",
    }  # fmt: skip
    assert {type: router.route(type)[0].target for type in expected} == expected


def test_a_payload_model_is_found_by_annotation_alone() -> None:
    """Only `Signal[Model]` asks for validation; other annotations, or none, take the data as it is."""

    class Model(BaseModel):
        n: int

    class Asks(Agent):
        @on("a")
        def typed(self, state: Any, signal: Signal[Model]) -> None: ...

        @on("b")
        def plain(self, state: Any, signal: Signal[dict[str, int]]) -> None: ...

        @on("c")
        def bare(self, state: Any, signal: Any, context: Context) -> None: ...

    Asks.typed.__annotations__["signal"] = Signal[Model]
    (kind,) = _plan(Asks).kinds
    models = {type: [(one.model, one.wants_context) for one in kind.handlers(type)] for type in "abc"}
    assert models == {"a": [(Model, False)], "b": [(None, False)], "c": [(None, True)]}


def test_inherited_handlers_run_and_overridden_ones_do_not() -> None:
    """A subclass has the handlers of its base; one that it overrides counts only with its own `@on`."""

    class Base(Agent):
        class State(AgentState):
            calls: list[str] = []  # noqa: RUF012

        @on("a")
        def first(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("base first")

        @on("a")
        def second(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("base second")

    class Derived(Base):
        def first(self, state: Any, signal: Signal[Any]) -> None:
            state.calls.append("never")

        @on("a")
        def third(self, state: Any, signal: Signal[Any]) -> None:
            state.calls.append("third")

    (kind,) = _plan(Derived).kinds
    assert [handler.name for handler in kind.handlers("a")] == ["second", "third"]


def test_properties_of_an_agent_are_left_alone() -> None:
    """Compiling an app looks for handlers without running the agent's properties."""

    class Touchy(Plain):
        @property
        def costly(self) -> int:
            raise AssertionError

    assert len(_plan(Touchy).kinds) == 1


def test_types_invented_by_senders_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered per signal type and per subject stays bounded, and answers stay right."""
    monkeypatch.setattr(plan_module, "_TYPES_REMEMBERED", 50)
    monkeypatch.setattr(plan_module, "_GROUPS_REMEMBERED", 50)

    class Wide(Agent):
        @on("wide.**")
        def handle(self, state: Any, signal: Signal[Any]) -> None: ...

    plan = _plan(Wide)
    (kind,) = plan.kinds
    for number in range(500):
        assert plan.targets(f"wide.n{number}") == (kind,)
        assert [handler.name for handler in kind.handlers(f"wide.n{number}")] == ["handle"]
        place = kind.place(f"s{number}", "id")
        assert place is not None
        assert place[0] == f"s{number}"
    assert plan.targets("wide." + "x" * 100_000) == (kind,)
    assert max(map(len, plan.known_targets), default=0) <= 256
    assert max(len(plan.known_targets), len(kind.known_handlers), len(kind.groups)) <= 50


def test_ids_and_kinds_belong_together() -> None:
    """From an id follows its kind and subject, for pools, singletons, keyed agents and the node's own one."""

    class KeyedOne(Agent):
        addressing = Keyed(node_id="own_one")

    class PoolOne(Agent):
        addressing = Pool(2)

    class OnlyOne(Agent):
        addressing = Singleton("the_only")

    plan = _plan(KeyedOne, PoolOne, OnlyOne, node={"name": "here"})
    found = {
        agent_id: (kind.name, kind.subject(agent_id)) if (kind := plan.kind_of(agent_id)) else None
        for agent_id in (
            "keyed_one:a:b",
            "own_one",
            "pool_one_2",
            "pool_one_77",
            "the_only",
            "pool_one_x",
            "other:a",
            "",
        )
    }
    assert found == {
        "keyed_one:a:b": ("keyed_one", "a:b"), "own_one": ("keyed_one", "here"),
        "pool_one_2": ("pool_one", "pool_one_2"), "pool_one_77": ("pool_one", "pool_one_77"),
        "the_only": ("only_one", "the_only"),
        "pool_one_x": None, "other:a": None, "": None,
    }  # fmt: skip
    keyed = plan.kind("keyed_one")
    assert keyed is not None
    assert (keyed.agent_id("here"), keyed.agent_id("there")) == ("own_one", "keyed_one:there")


def test_a_module_of_a_user_needs_no_future_import() -> None:
    """Annotations written as text are resolved in the module of the agent, not in ours."""
    module = types.ModuleType("users_module")
    module.__dict__.update(Agent=Agent, on=on, Signal=Signal, BaseModel=BaseModel, Directive=Directive)
    sys.modules["users_module"] = module
    try:
        code = (
            "from __future__ import annotations\n"
            "class Payload(BaseModel):\n    n: int\n"
            "class Theirs(Agent):\n"
            "    @on('x')\n"
            "    def do(self, state, signal: Signal[Payload]) -> Directive: ...\n"
        )
        exec(compile(code, "users_module.py", "exec"), module.__dict__)
        (kind,) = _plan(module.Theirs).kinds
        assert kind.handlers("x")[0].model is module.Payload
    finally:
        del sys.modules["users_module"]
