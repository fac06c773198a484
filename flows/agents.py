"""The agents flow: signals in, agents decide, alerts, results, telemetry and dead letters out.

    signals, control -> intake -> one keyed state per key group -> one writer per output partition
    pulse -------------^          starts the declared agents       keeps idle output partitions up to date

Run by `flows.worker` under `signalbox up`, or by the engine alone: `python -m bytewax.run flows.agents:flow`.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.kafka.journal import KafkaJournal
from connectors.kafka.origins import origins
from connectors.kafka.placement import Placement
from connectors.kafka.sink import PULSE, KafkaSink
from connectors.kafka.source import KafkaSource, part_name
from connectors.kafka.transactions import Transactions
from connectors.segments import SegmentStore
from flows.intake import Input, Intake, Pulse
from flows.operators import GroupLogic, Inputs, Placed, Runtime
from signalbox import plugins
from signalbox.actions.executor import Executor
from signalbox.actions.ledger import Ledger
from signalbox.actions.services import Services
from signalbox.agents.plan import Plan, topic_router
from signalbox.agents.stats import Stats
from signalbox.clock import SystemClock
from signalbox.config import EFFECTS_TOPIC, TOPICS, Settings, load_settings
from signalbox.routing import Pattern, Router

NAME = "agents"
#: Topics that agents write and may also listen to.
_READ_BACK = ("alerts", "scaling", "registry")


@dataclass(frozen=True, slots=True)
class AgentsFlow:
    """A dataflow ready to run, and the handles on it."""

    dataflow: Dataflow
    runtime: Runtime
    source: KafkaSource
    sink: KafkaSink
    executor: Executor
    drain: threading.Event
    """Set it, and the flow saves everything and ends."""


def build(settings: Settings, *, workers: int = 1, index: int = 0) -> AgentsFlow:
    """Wire the flow for worker process `index` of so many.

    Raises:
        ConfigError: the app or its settings are wrong.
        NotFound: a topic is missing.
        Unreachable: no broker answers.
        Conflict: the data directory belongs to another cluster.
    """
    plan = Plan(plugins.load_app(settings.node.app), settings)
    recovery = settings.node.data_dir / "recovery"
    starts, ends = origins(recovery, settings.kafka, inputs=input_topics(plan, settings), outputs=TOPICS)
    partitions: dict[str, int] = {}
    for topic, partition in ends:
        partitions[topic] = max(partitions.get(topic, 0), partition + 1)
    drain = threading.Event()
    runtime = Runtime(
        settings=settings,
        plan=plan,
        topics=topic_router(settings.kafka.routes),
        placement=Placement(partitions),
        store=SegmentStore(recovery / "segments"),
        clock=SystemClock(),
        stats=Stats(),
        inputs=frozenset(part_name(*place) for place in starts),
    )
    services = Services.of(settings, runtime.clock, workers=workers, index=index)
    executor = Executor(plan.actions, KafkaJournal(settings.kafka), services)
    source = KafkaSource(
        settings.kafka,
        starts=starts,
        group=consumer_group(settings),
        poll_records=settings.flows.agents.poll_records,
        drain=drain,
        watchers={EFFECTS_TOPIC: Ledger(executor)},
        full=executor.is_full,
    )
    transactions = Transactions(
        settings.kafka,
        directory=settings.node.data_dir / "transactions",
        flow=NAME,
        index=index,
        workers=workers,
        epoch_ms=settings.flows.agents.epoch_ms,
        used=settings.flows.agents.delivery == "exactly_once",
    )
    sink = KafkaSink(settings.kafka, starts=ends, transactions=transactions)
    return AgentsFlow(_wire(runtime, source, sink, drain), runtime, source, sink, executor, drain)


def consumer_group(settings: Settings) -> str:
    """The consumer group that shows the flow's progress to lag tools."""
    return f"{settings.kafka.topic_prefix}signalbox.{NAME}"


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


def _wire(runtime: Runtime, source: KafkaSource, sink: KafkaSink, drain: threading.Event) -> Dataflow:
    flow = Dataflow(NAME)
    intake = Intake(runtime.plan, runtime.settings, runtime.stats)
    pulses = [(part, PULSE) for part in runtime.placement.all_parts()]

    def pulse(item: Input) -> Iterable[Placed]:
        # At the start too: the sooner a partition knows its place, the less there is to read back.
        return pulses if isinstance(item, Pulse) else ()

    inputs = op.input("inputs", flow, Inputs(source, drain))
    parcels = op.flat_map_batch("intake", inputs, intake.parcels)
    decided = op.stateful_batch("agents", parcels, lambda resumed: GroupLogic(runtime, resumed))
    written = op.flat_map_batch("written", decided, _without_keys)
    op.output("write", op.merge("outbox", written, op.flat_map("pulse", inputs, pulse)), sink)
    return flow


def _without_keys(items: list[tuple[str, Placed]]) -> list[Placed]:
    return [placed for _, placed in items]


def __getattr__(name: str) -> Any:
    """`flow`, made on first use: importing this module must not need a broker."""
    if name == "flow":
        return build(load_settings()).dataflow
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
