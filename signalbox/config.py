"""Settings: what can be turned, its unit, its default and why.

Later wins: the defaults below, `config/<profile>.toml`, the file given with `-c`, `SIGNALBOX_*` environment variables
(`SIGNALBOX_KAFKA__BOOTSTRAP` sets `kafka.bootstrap`), `--set a.b=c`. An unknown key is an error, never ignored.
Settings are passed down as an argument; nothing imports them as a global.
"""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from signalbox.errors import ConfigError
from signalbox.scaling.policy import ScalingSettings, Units

PROFILES = ("dev", "prod")
#: The topic of actions that were asked for, and how they ended.
EFFECTS_TOPIC = "effects"
#: The topic of the agents and nodes there are.
REGISTRY_TOPIC = "registry"
#: The topics of a system, without prefix.
TOPICS = (
    "signals", "alerts", "scaling", "results", "telemetry", "control", EFFECTS_TOPIC, REGISTRY_TOPIC, "dead-letters",
)  # fmt: skip
#: Where a supervisor leaves the resolved settings for the processes it starts.
RESOLVED_VARIABLE = "SIGNALBOX_RESOLVED_SETTINGS"
_SECRET_WORDS = ("password", "secret", "token", "key.pem")
_MASK = "**********"
_DOTTED_GROUPS = ("kafka.client.", "kafka.routes.")


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class NodeSettings(_Group):
    """This node: one supervised set of processes with its own data directory."""

    name: str = Field(default_factory=lambda: socket.gethostname().split(".")[0].lower() or "node")
    """Also the subject of this node's own health signals."""
    data_dir: Path = Path(".signalbox")
    """Where snapshots, logs and a local broker's records are kept; on a local disk, and of this node alone."""
    app: str = "signalbox.app:default_app"
    """Import string of the `App` to run, `module:attribute`."""


def _default_routes() -> dict[str, str]:
    return {
        "alert.**": "alerts",
        "alert.ack": "signals",
        "insight.**": "alerts",
        "scaling.**": "scaling",
        "task.completed": "results",
        "task.failed": "results",
        "task.rejected": "results",
        "action.**": "effects",
        "agent.registered": REGISTRY_TOPIC,
        "agent.stopped": REGISTRY_TOPIC,
        "node.**": REGISTRY_TOPIC,
        "agent.action.**": "telemetry",
        "breaker.**": "telemetry",
        "agent.error": "telemetry",
        "control.**": "control",
        "**": "signals",
    }


class KafkaSettings(_Group):
    """The broker, and the names and shapes of the topics."""

    bootstrap: str = "127.0.0.1:9092"
    """`HOST:PORT` of the broker, or several separated by commas. A broker that the node runs itself has its own."""
    broker: Literal["embedded", "kafka", "external"] = "external"
    """Who runs the broker: this node (`embedded` or a local Apache `kafka`), or somebody else."""
    client: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """librdkafka settings passed through to every client: SASL, TLS, timeouts. Secrets among them are masked."""
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]*$")
    """Put before every topic name, so that several systems can share a broker."""
    partitions: PositiveInt = 8
    """Of topics the node creates. Bounds the number of workers that can share the input."""
    replication: PositiveInt = 1
    """Copies of topics the node creates; at most as many as the cluster has brokers."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a new data directory begins to read a topic. Recorded once; afterwards the snapshot decides."""
    routes: dict[str, str] = Field(default_factory=_default_routes)
    """Signal type pattern -> topic that signals derived by agents go to; the most specific pattern wins. Those given
    come on top of the defaults."""
    linger_ms: NonNegativeFloat = 0.5
    """How long the sink waits to fill a request, with telemetry 50 at least. While one is sent, the next fills up."""

    @field_validator("routes")
    @classmethod
    def _on_top_of_the_defaults(cls, routes: dict[str, str]) -> dict[str, str]:
        """A route that is given replaces the default one of the same pattern and leaves the others."""
        return {**_default_routes(), **routes}


class FlowSettings(_Group):
    """One Bytewax dataflow."""

    workers: Units = 1
    """Worker processes to begin with. More than `kafka.partitions` cannot share the load."""
    epoch_ms: PositiveInt = 1000
    """Snapshot interval: at most this much work is repeated after a crash."""
    poll_records: PositiveInt = 3_000
    """Most records taken from the client at once: enough to share the cost of a round, few enough for a cache."""
    delivery: Literal["effectively_once", "exactly_once"] = "effectively_once"
    """`exactly_once` writes each epoch in a Kafka transaction: outputs are seen when it ends instead of at once, and a
    worker that was given up and wakes up again writes none. Not with the embedded broker."""


class FlowsSettings(_Group):
    """The dataflows by name."""

    agents: FlowSettings = FlowSettings()
    scaling: FlowSettings = FlowSettings()

    def of(self, name: str) -> FlowSettings:
        """Of the flow of this name."""
        return {"agents": self.agents, "scaling": self.scaling}[name]


class AgentSettings(_Group):
    """Settings of one agent class, under its name."""

    size: PositiveInt | None = None
    """Members of a pool, if the class is one."""
    idle_ttl_s: PositiveFloat | None = None
    """Evict keyed instances that got no signal for so long. None keeps them for ever."""
    state: dict[str, Any] = Field(default_factory=dict)
    """Initial values of state fields, in place of the class's own defaults."""
    skills: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of the skills that it mounts, by the skill's name."""


class SensorSettings(BaseModel):
    """Settings of one sensor, under its name; further keys are the sensor's own and it validates them."""

    model_config = ConfigDict(extra="allow", frozen=True)
    enabled: bool = True
    """Whether it runs."""
    interval_s: PositiveFloat | None = None
    """From one sample to the next. None: the sensor's own."""


class HttpSettings(_Group):
    """The node's own server: health, metrics and the API."""

    host: str = "127.0.0.1"
    """Address to listen on. On a loopback address, requests for other host names are refused."""
    port: int = Field(8080, ge=0, le=65535)
    """0 takes any free port; the ready line names it."""
    token: SecretStr | None = None
    """Needed for writes. Without one, writes are refused."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose pages may write."""


class LogSettings(_Group):
    """What is logged, and where to."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    console: bool = True
    """On stderr: for people on a terminal, else as JSON lines."""
    file: bool = True
    """One rotating file per process under `<data_dir>/logs`."""
    file_bytes: PositiveInt = 10_000_000
    """A log file that has grown to this size is set aside."""
    file_count: PositiveInt = 5
    """So many set-aside files are kept per process."""


class LimitSettings(_Group):
    """Bounds that keep one sender from hurting everybody."""

    signal_bytes: PositiveInt = 262_144
    """A larger input record becomes a dead letter."""
    dead_letter_bytes: PositiveInt = 2_097_152
    """A dead letter keeps so much of the original value; its origin offset names the rest."""
    output_bytes: PositiveInt = 900_000
    """A handler that emits a larger signal fails. Below the 1 MB that brokers take by default."""
    held_signals: PositiveInt = 1000
    """Signals kept per paused agent before further ones become dead letters."""
    sensor_buffer: PositiveInt = 10_000
    """Signals a sensor process keeps while the broker is away; then the oldest are dropped and counted."""


class HttpClientSettings(_Group):
    """The HTTP client of actions, per worker process."""

    allow_private: bool = False
    """Whether actions may call loopback and private addresses. Whoever may submit tasks can then call your own services
    from this machine."""
    response_bytes: PositiveInt = 1_000_000
    """A longer answer, decompressed, fails its action. What an action returns is bounded by `actions.result_bytes`."""
    max_redirects: NonNegativeInt = 5
    """So many redirects are followed, each checked like the first address."""
    connections: PositiveInt = 500
    """Most connections open at once; further calls wait for one within their timeout."""


class DatasetSettings(_Group):
    """Files that the action `process_large_dataset` may read and write."""

    roots: tuple[Path, ...] = ()
    """Directories below which they lie. Without any, files are refused."""
    file_bytes: PositiveInt = 1_073_741_824
    """A larger file is refused."""


class ActionSettings(_Group):
    """How actions with effects are run, per worker process."""

    max_running: PositiveInt = 2_000
    """Most actions that run at once; further ones wait, the more urgent first."""
    max_running_per_agent: PositiveInt | None = None
    """Most that run at once for one agent. Members of a pool share theirs. None: as many as there are places."""
    max_in_flight: PositiveInt = 5_000
    """With so many running or waiting, no further signals are read."""
    threads: PositiveInt = 64
    """Threads for actions that are plain functions."""
    result_bytes: PositiveInt = 450_000
    """A larger result, as JSON, fails its action."""
    max_restarts: PositiveInt = 5
    """An action in whose middle the process ended more often than this is given up."""
    grace_s: NonNegativeFloat = 5.0
    """A drain waits so long for actions that run; the rest goes on after the next start."""
    datasets: DatasetSettings = DatasetSettings()
    http: HttpClientSettings = HttpClientSettings()


class PoolSettings(_Group):
    """One pool of tokens, under its name."""

    tokens: PositiveInt = 4
    """Tokens of the node; each worker process gets its part of them."""
    ttl_s: PositiveFloat = 600.0
    """A holder that neither released nor renewed its tokens loses them after so long."""


def _default_pools() -> dict[str, PoolSettings]:
    return {"heavy_computation": PoolSettings()}


class ResourceSettings(_Group):
    """What the worker processes of the node may use together."""

    pools: dict[str, PoolSettings] = Field(default_factory=_default_pools)
    """Those given come on top of the default one, `heavy_computation`."""
    memory_mb: PositiveInt = 2048
    """Megabytes of resident memory; a worker process beyond its part begins no further work that needs a pool."""
    alert_threshold: float = Field(0.9, gt=0, le=1)
    """A ratio in use from which on a resource is worth an alert."""
    cleanup_interval_s: PositiveFloat = 60.0
    """How often those who wait look for tokens whose time is over; every other request looks at once."""
    registry_size: PositiveInt = 100_000
    """Most agents that a view of the registry keeps."""

    @field_validator("pools")
    @classmethod
    def _on_top_of_the_defaults(cls, pools: dict[str, PoolSettings]) -> dict[str, PoolSettings]:
        return {**_default_pools(), **pools}


class SupervisionSettings(_Group):
    """How processes are started, stopped and restarted."""

    backoff_min_s: PositiveFloat = 0.2
    """Wait after a first crash; it doubles with each further one."""
    backoff_max_s: PositiveFloat = 10.0
    """The longest such wait."""
    crash_limit: PositiveInt = 5
    """So many crashes within `crash_window_s` put a process in quarantine."""
    crash_window_s: PositiveFloat = 60.0
    """A process that has been well for so long starts afresh."""
    quarantine_s: PositiveFloat = 60.0
    """A quarantined process is tried again after so long."""
    drain_timeout_s: PositiveFloat = 15.0
    """SIGTERM to SIGKILL. A drain normally takes well under a second."""
    start_timeout_s: PositiveFloat = 60.0
    """A process or broker that is not running after so long has failed to start."""
    frozen_s: PositiveFloat = 15.0
    """A running process that answers nothing for so long is killed and started again; a shorter pause is left alone."""
    stuck_s: PositiveFloat = 20.0
    """A flow that has closed no epoch for so long, although the broker answers, is killed and started again."""


class RegistrySettings(_Group):
    """How nodes tell that they live, and how long a silence counts as life."""

    heartbeat_s: PositiveFloat = 5.0
    """From one heartbeat of the node to the next."""
    ttl_s: PositiveFloat = 20.0
    """The agents of a node that was silent for so long are shown as stale; nothing is deleted."""

    @model_validator(mode="after")
    def _outlasts_a_heartbeat(self) -> "RegistrySettings":
        if self.ttl_s <= self.heartbeat_s:
            msg = f"ttl_s ({self.ttl_s:g}) has to be longer than heartbeat_s ({self.heartbeat_s:g})"
            raise ValueError(msg)
        return self


class TelemetrySettings(_Group):
    """What the system tells about itself while it works."""

    actions: bool = True
    """Emit `agent.action.starting` and `agent.action.finished` on `telemetry`."""
    flush_s: PositiveFloat = 1.0
    """How often workers turn their counters into metrics."""


class Settings(BaseSettings):
    """Everything. See the module's docstring for where values come from."""

    model_config = SettingsConfigDict(
        env_prefix="SIGNALBOX_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    profile: Literal["dev", "prod"] = "dev"
    node: NodeSettings = Field(default_factory=NodeSettings)
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    flows: FlowsSettings = Field(default_factory=FlowsSettings)
    agents: dict[str, AgentSettings] = Field(default_factory=dict)
    sensors: dict[str, SensorSettings] = Field(default_factory=dict)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    actions: ActionSettings = Field(default_factory=ActionSettings)
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    scaling: ScalingSettings = Field(default_factory=ScalingSettings)
    supervision: SupervisionSettings = Field(default_factory=SupervisionSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    @model_validator(mode="after")
    def _delivery_suits_the_broker(self) -> "Settings":
        wanted = (self.flows.agents.delivery, self.flows.scaling.delivery)
        if self.kafka.broker == "embedded" and "exactly_once" in wanted:
            msg = "flows.*.delivery is exactly_once, but the embedded broker shows transactions that were taken back"
            hint = "use Apache Kafka (--broker kafka or HOST:PORT, or kafka.broker), or leave it at effectively_once"
            raise ConfigError(msg, hint=hint)
        return self

    def topic(self, name: str) -> str:
        """The broker's name of one of our topics."""
        return self.kafka.topic_prefix + name


def load_settings(
    *, profile: str | None = None, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Resolve the settings, or take over those that a supervisor resolved for this process.

    Args:
        profile: `dev` or `prod`; else `SIGNALBOX_PROFILE`, else `dev`.
        file: a TOML file on top of the profile's; else `SIGNALBOX_CONFIG`.
        overrides: dotted keys, such as `{"kafka.bootstrap": "broker:9092"}`; text is converted to the field's type.

    Raises:
        ConfigError: a file cannot be read, a key is unknown or a value does not fit.
    """
    values: dict[str, Any] = {}
    for dotted, value in (overrides or {}).items():
        values = _merged(values, _nested(dotted, value))
    try:
        if resolved := os.environ.get(RESOLVED_VARIABLE):
            return Settings.model_validate(_merged(json.loads(Path(resolved).read_text()), values))
        profile = profile or os.environ.get("SIGNALBOX_PROFILE") or "dev"
        return _layered(_files(profile, file))(profile=profile, **values)
    except ValidationError as error:
        raise _explain(error) from None
    except (OSError, ValueError) as error:
        msg = f"the settings cannot be read: {error}"
        raise ConfigError(msg) from error


def resolved_environment(settings: Settings, path: Path) -> dict[str, str]:
    """Write the settings, secrets included, to `path` (mode 0600).

    Returns the environment variables that make a child process use them.
    """
    # What a policy leaves unsaid depends on its target, so that it was not said has to arrive too.
    scaling = settings.scaling.model_dump(mode="json", exclude_unset=True)
    values = {**settings.model_dump(mode="json"), "scaling": scaling}
    values["http"]["token"] = settings.http.token and settings.http.token.get_secret_value()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(values))
    return {RESOLVED_VARIABLE: str(path.resolve())}


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values with every secret hidden, fit to be shown."""
    return {name: _masked(name, value) for name, value in settings.model_dump(mode="json").items()}


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _masked(inner, held) for inner, held in value.items()}
    return _MASK if value is not None and _is_secret(name) else value


def _is_secret(name: str) -> bool:
    name = name.lower()
    # Those of a resource pool are a number.
    return name.rpartition(".")[2] != "tokens" and any(word in name for word in _SECRET_WORDS)


def profile_file(profile: str) -> Path:
    """The TOML file of a profile: beside the packages in a source tree, inside the package in a wheel."""
    package = Path(__file__).parent
    # In this order: beside an installed package, a folder `config` is somebody else's.
    in_wheel = package / "profiles" / f"{profile}.toml"
    return in_wheel if in_wheel.is_file() else package.parent / "config" / f"{profile}.toml"


def _files(profile: str, file: Path | None) -> list[Path]:
    if profile not in PROFILES:
        msg = f"there is no profile {profile!r}"
        raise ConfigError(msg, hint=f"use one of: {', '.join(PROFILES)}")
    chosen = file or (Path(given) if (given := os.environ.get("SIGNALBOX_CONFIG")) else None)
    files = [profile_file(profile), *([chosen] if chosen else [])]
    for path in files:
        if not path.is_file():
            msg = f"there is no settings file {path}"
            raise ConfigError(msg, hint="check -c/--config and SIGNALBOX_CONFIG")
    return files


def _layered(files: list[Path]) -> type[Settings]:
    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml = TomlConfigSettingsSource(settings_cls, toml_file=files, deep_merge=True)
            return init_settings, env_settings, toml

    return Layered


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    shared = base.keys() & over.keys()
    groups = [name for name in shared if isinstance(base[name], dict) and isinstance(over[name], dict)]
    return {**base, **over, **{name: _merged(base[name], over[name]) for name in groups}}


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):  # a text that only looks like JSON, such as [::1]
            value = json.loads(value)
    # The keys of these groups have dots themselves.
    depth = 2 if dotted.startswith(_DOTTED_GROUPS) else -1
    for part in reversed(dotted.split(".", depth)):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def _explain(error: ValidationError) -> ConfigError:
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: there is no such setting")
        elif _is_secret(key) or isinstance(item["input"], dict | list):  # it may be, or hold, what nobody should read
            lines.append(f"{key}: {item['msg']}")
        else:
            lines.append(f"{key}: {item['msg']} (got {item['input']!r})")
    return ConfigError("; ".join(lines), hint="`signalbox config show` lists every setting with its value")
