"""How a flow is put together: records in, agents decide, what they say out.

    topics -> intake -> one keyed state per key group -> one writer per output partition
    pulse ----^         starts the declared agents       keeps idle output partitions up to date

Which agents a flow runs, and what it reads, is up to its module: `flows.agents`, `flows.scaling`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.kafka.echo import Echo
from connectors.kafka.journal import KafkaJournal
from connectors.kafka.origins import origins
from connectors.kafka.parts import part_name
from connectors.kafka.placement import Placement
from connectors.kafka.sink import PULSE, KafkaSink
from connectors.kafka.source import KafkaSource
from connectors.kafka.transactions import Transactions
from connectors.recovery.store import RecoveryStore
from connectors.segments import SegmentStore
from flows.intake import Input, Intake, Pulse
from flows.operators import GroupLogic, Inputs, Placed, Runtime
from signalbox.actions.executor import Executor
from signalbox.actions.ledger import Ledger
from signalbox.actions.services import Services
from signalbox.actions.tally import Tally
from signalbox.agents.plan import Plan, topic_router
from signalbox.agents.pools import PoolSizes
from signalbox.agents.stats import Stats
from signalbox.clock import SystemClock
from signalbox.config import EFFECTS_TOPIC, TOPICS, FlowSettings, Settings

MakeIntake = Callable[[Plan, Settings, Stats], Intake]


@dataclass(frozen=True, slots=True)
class Flow:
    """A dataflow ready to run, and the handles on it."""

    name: str
    dataflow: Dataflow
    runtime: Runtime
    pools: PoolSizes
    """The sizes that its pools are to have."""
    source: KafkaSource
    sink: KafkaSink
    executor: Executor
    drain: threading.Event
    """Set it, and the flow saves everything and ends."""

    @property
    def settings(self) -> FlowSettings:
        """This flow's own settings."""
        return self.runtime.settings.flows.of(self.name)

    def resize(self, pools: Mapping[str, Any]) -> None:
        """Want other sizes of pools. Raises as `PoolSizes.resize` does."""
        self.pools.resize(pools)
        for pool in pools:
            self.executor.resized(pool)

    def connect(self) -> None:
        """Get to know the broker now, instead of at the first record."""
        self.source.hub.connect()
        self.sink.hub.connect()


def assemble(
    name: str,
    plan: Plan,
    settings: Settings,
    *,
    inputs: Sequence[str],
    workers: int,
    index: int,
    intake: MakeIntake = Intake,
) -> Flow:
    """Wire the flow `name` for worker process `index` of so many.

    Args:
        name: of the flow; its snapshots are in `<data_dir>/recovery/<name>`.
        plan: the agents that it runs.
        settings: resolved.
        inputs: the topics that it reads, without prefix.
        workers: processes of the flow.
        index: of this one.
        intake: makes the step that finds the agents that records are for.

    Raises:
        ConfigError: the settings are wrong.
        NotFound: a topic is missing.
        Unreachable: no broker answers.
        Conflict: the data directory belongs to another cluster.
        StateDamaged: what it began with cannot be read.
    """
    recovery = settings.node.data_dir / "recovery" / name
    starts, ends = origins(recovery, settings.kafka, inputs=inputs, outputs=TOPICS)
    drain = threading.Event()
    runtime = Runtime(
        settings=settings,
        plan=plan,
        topics=topic_router(settings.kafka.routes),
        placement=Placement(Counter(topic for topic, _ in ends)),
        store=SegmentStore(recovery / "segments", RecoveryStore(recovery).suspect),
        clock=SystemClock(),
        stats=Stats(),
        inputs=frozenset(part_name(*place) for place in starts),
    )
    pools = PoolSizes(
        plan.pools(), record=recovery / "pools.json", told=settings.node.data_dir / "run" / "scaling.json"
    )
    services = Services.of(settings, runtime.clock, workers=workers, index=index)
    transactions = _transactions(name, settings, workers=workers, index=index)
    # Where others write too, or a transaction may take back what is acknowledged, records are read back as they come.
    echo = Echo(EFFECTS_TOPIC) if workers == 1 and not transactions.used else None
    executor = Executor(plan.actions, KafkaJournal(settings.kafka, echo), services, Tally(plan.pool_of), pools.size)
    source = KafkaSource(
        settings.kafka,
        starts=starts,
        group=consumer_group(settings, name),
        poll_records=settings.flows.of(name).poll_records,
        drain=drain,
        watchers={EFFECTS_TOPIC: Ledger(executor)} if EFFECTS_TOPIC in inputs else {},
        full=executor.is_full,
        sizing=pools,
        epoch_s=settings.flows.of(name).epoch_ms / 1000,
        workers=workers,
        echo=echo,
    )
    sink = KafkaSink(
        settings.kafka, starts=ends, caught_up=runtime.caught_up.is_set, transactions=transactions, echo=echo
    )
    dataflow = _wire(name, intake(plan, settings, runtime.stats), runtime, source, sink, drain)
    return Flow(name, dataflow, runtime, pools, source, sink, executor, drain)


def consumer_group(settings: Settings, name: str) -> str:
    """The consumer group that shows a flow's progress to lag tools."""
    return f"{settings.kafka.topic_prefix}signalbox.{name}"


def _transactions(name: str, settings: Settings, *, workers: int, index: int) -> Transactions:
    flow = settings.flows.of(name)
    return Transactions(
        settings.kafka,
        directory=settings.node.data_dir / "transactions",
        flow=name,
        index=index,
        workers=workers,
        epoch_ms=flow.epoch_ms,
        used=flow.delivery == "exactly_once",
    )


def _wire(  # noqa: PLR0917
    name: str, intake: Intake, runtime: Runtime, source: KafkaSource, sink: KafkaSink, drain: threading.Event
) -> Dataflow:
    flow = Dataflow(name)
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
