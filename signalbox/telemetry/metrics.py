"""Every metric of the system, in one place: names, labels and meaning.

Names follow Prometheus: prefix `signalbox_`, base units (`_seconds`, `_bytes`, `_ratio`), `_total` on counters.
Labels are bounded: `agent` names an agent class, never an instance; no label holds a key, a signal id or a pattern.

Workers and sensors run with `PROMETHEUS_MULTIPROC_DIR` set by their supervisor, and keep their values in files there;
the supervisor's `/metrics` sums them up (`exposition.py`). So gauges carry a mode that says how the values of several
processes become one. A change costs a microsecond with labels looked up: keep `X.labels(...)` outside of loops, and
count per batch, not per signal.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: Metrics that workers and the sensor process change.
CHILDREN = CollectorRegistry(auto_describe=False)
#: Metrics that only the supervisor changes.
SUPERVISOR = CollectorRegistry(auto_describe=False)

_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Signals on their way through a flow.
SIGNALS_RECEIVED = Counter("signalbox_signals_received", "Records taken from a topic.", ["topic"], registry=CHILDREN)
SIGNALS_UNMATCHED = Counter("signalbox_signals_unmatched", "Signals that no route wanted.", registry=CHILDREN)
DLQ_MESSAGES = Counter("signalbox_dlq_messages", "Records written to dead-letters.", ["reason"], registry=CHILDREN)

# Agents.
AGENT_PROCESSED = Counter(
    "signalbox_agent_processed",
    "Signals handled by agents of a class; status is ok, or error if a handler failed.",
    ["agent", "status"],
    registry=CHILDREN,
)
AGENT_ERRORS = Counter(
    "signalbox_agent_errors", "Handlers that raised, by kind of error.", ["agent", "kind"], registry=CHILDREN
)
AGENT_CONDITION_ERRORS = Counter(
    "signalbox_agent_condition_errors",
    "Route conditions that raised, and so did not match.",
    ["agent"],
    registry=CHILDREN,
)
AGENT_KEYS = Gauge(
    "signalbox_agent_keys",
    "Live agent instances of a class.",
    ["agent"],
    multiprocess_mode="livesum",
    registry=CHILDREN,
)

# Kafka.
KAFKA_LAG = Gauge(
    "signalbox_kafka_consumer_lag_records",
    "Records between a flow's position and the end of the partition.",
    ["topic", "partition"],
    multiprocess_mode="livemostrecent",
    registry=CHILDREN,
)
KAFKA_PRODUCED = Counter(
    "signalbox_kafka_produced", "Records acknowledged by the broker.", ["topic"], registry=CHILDREN
)
KAFKA_REPLAY_SKIPPED = Counter(
    "signalbox_kafka_replay_skipped",
    "Records not written again after a restart, because they were on the topic already.",
    ["topic"],
    registry=CHILDREN,
)

# Recovery and load of the workers.
SNAPSHOT_SECONDS = Counter("signalbox_snapshot_seconds", "Time spent saving state.", registry=CHILDREN)
SNAPSHOT_BYTES = Counter("signalbox_snapshot_bytes", "Bytes of state given to recovery.", registry=CHILDREN)
SNAPSHOT_LAST_SUCCESS = Gauge(
    "signalbox_snapshot_last_success_timestamp_seconds",
    "When state was last given to recovery.",
    multiprocess_mode="max",
    registry=CHILDREN,
)
WORKER_BUSY = Gauge(
    "signalbox_worker_busy_ratio",
    "Share of the last interval that a worker spent working, 0 to 1.",
    ["worker"],
    multiprocess_mode="livemostrecent",
    registry=CHILDREN,
)

# Actions with effects.
ACTIONS_FINISHED = Counter(
    "signalbox_actions_finished", "Actions that ended, by how.", ["action", "status"], registry=CHILDREN
)
ACTION_ATTEMPTS = Counter(
    "signalbox_action_attempts", "Attempts that began, retries included.", ["action"], registry=CHILDREN
)
ACTIONS_RECOVERED = Counter(
    "signalbox_actions_recovered", "Actions that succeeded after more than one attempt.", ["action"], registry=CHILDREN
)
ACTION_LOST_THREADS = Gauge(
    "signalbox_action_lost_threads",
    "Threads held by actions that did not come back in time.",
    ["worker"],
    multiprocess_mode="livemostrecent",
    registry=CHILDREN,
)
ACTIONS_IN_FLIGHT = Gauge(
    "signalbox_actions_in_flight",
    "Actions that were started and have not ended.",
    ["worker"],
    multiprocess_mode="livemostrecent",
    registry=CHILDREN,
)
BREAKER_OPEN = Gauge(
    "signalbox_breaker_open",
    "1 while a dependency's circuit breaker refuses calls, 0.5 while it probes, else 0.",
    ["worker", "dependency"],
    multiprocess_mode="livemostrecent",
    registry=CHILDREN,
)

# Resources that the actions of the workers share.
RESOURCE_TOKENS = Gauge(
    "signalbox_resource_tokens",
    "Tokens of a pool; state is used, waiting (asked for in the queue) or total.",
    ["pool", "state"],
    multiprocess_mode="livesum",
    registry=CHILDREN,
)
RESOURCE_MEMORY = Gauge(
    "signalbox_resource_memory_ratio",
    "Memory of a worker as a ratio of its part of resources.memory_mb; of all workers, the highest.",
    multiprocess_mode="livemax",
    registry=CHILDREN,
)

# Sensors.
SENSOR_SAMPLES = Counter("signalbox_sensor_samples", "Readings taken.", ["sensor"], registry=CHILDREN)
SENSOR_ERRORS = Counter("signalbox_sensor_errors", "Readings that failed.", ["sensor"], registry=CHILDREN)
SENSOR_DROPPED = Counter(
    "signalbox_sensor_dropped", "Readings dropped because the broker was away and the buffer full.", registry=CHILDREN
)
SENSOR_LAST_SUCCESS = Gauge(
    "signalbox_sensor_last_success_timestamp_seconds",
    "When a sensor last took a reading.",
    ["sensor"],
    multiprocess_mode="max",
    registry=CHILDREN,
)
SENSOR_COLLECT = Histogram(
    "signalbox_sensor_collect_seconds", "Time to take one reading.", ["sensor"], buckets=_SLOW, registry=CHILDREN
)

# The node.
BUILD_INFO = Gauge(
    "signalbox_build_info", "Always 1; the labels say what runs.", ["version", "python", "bytewax"], registry=SUPERVISOR
)
READY = Gauge("signalbox_ready", "1 while the node is ready, else 0.", registry=SUPERVISOR)
RESTARTS = Counter(
    "signalbox_restarts", "Child processes started again, by cause.", ["process", "reason"], registry=SUPERVISOR
)
FLOW_WORKERS = Gauge("signalbox_flow_workers", "Worker processes that run.", ["flow"], registry=SUPERVISOR)
FLOW_WORKERS_TARGET = Gauge(
    "signalbox_flow_workers_target", "Worker processes that should run.", ["flow"], registry=SUPERVISOR
)
FLOW_GENERATION = Gauge(
    "signalbox_flow_generation", "How often the flow's workers were started.", ["flow"], registry=SUPERVISOR
)
RESCALE_PAUSE = Histogram(
    "signalbox_scaler_rescale_seconds",
    "How long a change of the number of workers paused a flow.",
    ["flow"],
    buckets=_SLOW,
    registry=SUPERVISOR,
)
RESCALES = Counter(
    "signalbox_scaler_rescales",
    "Changes of the number of workers; status is completed, failed or superseded.",
    ["flow", "status"],
    registry=SUPERVISOR,
)
FLOW_LAG = Gauge(
    "signalbox_flow_lag_records", "Records a flow is behind, over all partitions.", ["flow"], registry=SUPERVISOR
)
REGISTRY_AGENTS = Gauge(
    "signalbox_registry_agents",
    "Registered agents that this node knows of. Beyond a hundred nodes, the rest are counted as other.",
    ["node", "status"],
    registry=SUPERVISOR,
)
REGISTRY_DROPPED = Counter(
    "signalbox_registry_dropped",
    "Records of the registry that were not kept: the view is full, or they are invalid.",
    ["reason"],
    registry=SUPERVISOR,
)
HTTP_REQUESTS = Counter("signalbox_http_requests", "Requests answered.", ["route", "code"], registry=SUPERVISOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """One metric as a reader of `/metrics` sees it."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


def catalogue() -> list[MetricInfo]:
    """Every metric of the system, by name."""
    return sorted(_described(), key=lambda metric: metric.name)


def _described() -> Iterator[MetricInfo]:
    for value in globals().values():
        if isinstance(value, Counter | Gauge | Histogram):
            family = next(iter(value.describe()))
            name = family.name + ("_total" if family.type == "counter" else "")
            yield MetricInfo(name=name, type=family.type, labels=tuple(value._labelnames), help=family.documentation)
