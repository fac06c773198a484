"""What a sensor is: a named source of signals that is sampled at an interval.

A sensor only looks and says what it saw. It promises neither delivery nor timing: `signalbox.sensors.runner` samples
it, buffers what it says and hands it to the broker. What ships is in `system_health.py` and `resource_usage.py`.
"""

from collections.abc import AsyncIterable, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from schemas.signal import Signal, new_signal
from signalbox.clock import Clock, SystemClock
from signalbox.errors import ConfigError

if TYPE_CHECKING:
    from signalbox.config import Settings

Signals = Iterable[Signal[Any]] | Awaitable[Iterable[Signal[Any]]] | AsyncIterable[Signal[Any]]
"""What `Sensor.sample` may return: from `def` a list or generator; from `async def` a list, or an async generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleContext:
    """Where and when a sample is taken; makes its signals."""

    sensor: str
    node: str
    data_dir: Path = Path()
    """This node's data directory; it may not exist yet."""
    clock: Clock = field(default_factory=SystemClock)
    node_settings: "Settings | None" = None
    """All settings of the node, for a sensor that looks at the node itself."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self.clock.now()

    def monotonic(self) -> float:
        """Seconds for measuring intervals; only differences mean anything."""
        return self.clock.monotonic()

    def signal(self, type: str, data: Any = None, *, subject: str | None = None) -> Signal[Any]:
        """A signal of this sensor, with a fresh id and the present time.

        Args:
            type: the signal type, such as `room.temperature`.
            data: JSON values, or the payload model of the type.
            subject: the entity it is about, which is also the Kafka key; else the node.
        """
        return new_signal(
            type,
            data,
            source=f"sensor/{self.sensor}@{self.node}",
            subject=subject or self.node,
            time=self.clock.now(),
        )


class Sensor:
    """Derive from this, give it a `name`, and write `sample`.

    A plain `sample` runs in a thread, so it may block; successive samples may run in different threads, but never two
    at once. An `async` one runs in the event loop that all sensors share, so it must not block.
    An exception counts as a failed sample, is reported, and the sensor is tried again; what was yielded before is kept.
    """

    name: ClassVar[str]
    """Names its settings (`sensors.<name>`) and its signals' source; letters, digits and underscores."""

    class Settings(BaseModel):
        """Extend this with the sensor's own settings, each with a default where one makes sense."""

        model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

        interval_s: PositiveFloat = 10.0
        """From one sample to the next, give or take a tenth, so that many nodes do not sample in step."""
        timeout_s: PositiveFloat | None = None
        """A sample that takes longer has failed, and what it still yields is lost. None: the interval, at least 1 s."""

    settings: Settings

    def __init__(self, settings: Settings, node: str) -> None:
        """Keep the settings; open nothing here, `start` is for that."""
        self.settings = settings
        self.node = node

    def start(self, context: SampleContext) -> Awaitable[None] | None:
        """Open what sampling needs; plain or `async`. Called before the first sample, again later if it raises."""

    def sample(self, context: SampleContext) -> Signals:
        """Look once and say what was seen, as signals made by `context.signal`."""
        raise NotImplementedError

    def stop(self, context: SampleContext) -> Awaitable[None] | None:
        """Close what `start` opened; plain or `async`. Called once at the end if `start` had returned."""


def build_sensors(classes: Sequence[type[Sensor]], settings: "Settings") -> list[Sensor]:
    """Make the enabled sensors, each with its own validated settings.

    Raises:
        ConfigError: two sensors share a name, settings name no known sensor, or a sensor refuses its settings.
    """
    by_name: dict[str, type[Sensor]] = {}
    for kind in classes:
        name = getattr(kind, "name", None)
        if not (isinstance(kind, type) and issubclass(kind, Sensor) and isinstance(name, str) and name.isidentifier()):
            msg = f"{kind!r} is not a sensor with a name"
            raise ConfigError(msg, hint="derive a class from Sensor and give it a name of letters, digits, underscores")
        if by_name.setdefault(name, kind) is not kind:
            msg = f"two sensors are named {name!r}: {by_name[name].__qualname__} and {kind.__qualname__}"
            raise ConfigError(msg, hint="rename one of them")
    if unknown := settings.sensors.keys() - by_name.keys():
        msg = f"there is no sensor {', '.join(sorted(unknown))} to set"
        raise ConfigError(msg, hint=f"the app's sensors are: {', '.join(sorted(by_name)) or 'none'}")
    return [_build(kind, settings) for name, kind in by_name.items() if _enabled(name, settings)]


def _enabled(name: str, settings: "Settings") -> bool:
    given = settings.sensors.get(name)
    return given is None or given.enabled


def _build(kind: type[Sensor], settings: "Settings") -> Sensor:
    given = settings.sensors.get(kind.name)
    values = given.model_dump(exclude={"enabled"}) if given else {}
    if values.get("interval_s") is None:
        values.pop("interval_s", None)
    try:
        return kind(kind.Settings.model_validate(values), settings.node.name)
    except ValidationError as error:
        wrong = "; ".join(
            f"sensors.{kind.name}.{'.'.join(map(str, item['loc']))}: {item['msg']} (got {item['input']!r})"
            for item in error.errors(include_url=False)
        )
        hint = f"the settings of the sensor {kind.name} are: enabled, {', '.join(kind.Settings.model_fields)}"
        raise ConfigError(wrong, hint=hint) from None
