"""The agents flow: signals in, agents decide, alerts, results, telemetry and dead letters out.

Run by `flows.worker` under `signalbox up`, or by the engine alone: `python -m bytewax.run flows.agents:flow`.
"""

from typing import Any

from flows.assembly import Flow, assemble
from signalbox import plugins
from signalbox.agents.plan import Plan, topic_router
from signalbox.config import EFFECTS_TOPIC, Settings, load_settings
from signalbox.routing import Pattern, Router

NAME = "agents"
#: Topics that agents write and may also listen to.
_READ_BACK = ("alerts", "scaling", "registry")


def build(settings: Settings, *, workers: int = 1, index: int = 0) -> Flow:
    """Wire the flow of the app's agents for worker process `index` of so many. Raises what `assemble` raises."""
    plan = Plan(plugins.load_app(settings.node.app), settings)
    return assemble(NAME, plan, settings, inputs=input_topics(plan, settings), workers=workers, index=index)


def input_topics(plan: Plan, settings: Settings) -> list[str]:
    """What the flow reads.

    `signals` and `control`, `effects` if the app has actions with effects, and those of the flow's own output topics
    that some agent listens to.
    """
    topics = topic_router(settings.kafka.routes)
    listened = {topic for route in plan.routes() for topic in _topics_of(route.pattern, topics)}
    effects = [EFFECTS_TOPIC] if plan.has_effects else []
    return ["signals", "control", *effects, *(topic for topic in _READ_BACK if topic in listened)]


def _topics_of(pattern: Pattern, topics: Router[str]) -> set[str]:
    """The topics on which a type that matches `pattern` may be written; a wildcard is judged by its first segment."""
    if "*" not in pattern.text:
        return {route.target for route in topics.route(pattern.text)[:1]}
    first = pattern.segments[0]
    firsts = {route.pattern.segments[0]: route.target for route in topics.routes()}
    return {topic for other, topic in firsts.items() if first == other or first.startswith("*")}


def __getattr__(name: str) -> Any:
    """`flow`, made on first use: importing this module must not need a broker."""
    if name == "flow":
        return build(load_settings()).dataflow
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
