"""Measures the load of this node's flows and pools, which scaling decisions rest on.

It asks the workers on their inspection sockets and the broker where the topics end, so arrivals are known even when
nobody reads. Which workers there are is in `<data_dir>/run/scaling.json`, which the supervisor writes; without that
file it is the workers of the agents flow whose sockets there are. What the numbers mean: `load_meter.py`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import msgspec
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from schemas.payloads.load import LoadLevel, LoadMetrics, QueueOverflow
from schemas.signal import Signal
from signalbox import config, plugins
from signalbox.config import EFFECTS_TOPIC, KafkaSettings
from signalbox.errors import ConfigError, NotFound, SignalboxError
from signalbox.ports import Admin
from signalbox.sensors.contract import SampleContext, Sensor
from signalbox.sensors.load_meter import Answer, FlowMeter, Look, PoolMeter, topics_of
from signalbox.supervision import inspection

Ask = Callable[[Path], Answer]

#: The flow whose agents make up the pools.
_AGENTS = "agents"
#: What a flow reads at least, while no worker has told what it reads.
_INPUTS = frozenset(("signals", "control", EFFECTS_TOPIC))
#: A worker that needs longer to say how it is counts as silent.
_ANSWER_S = 1.0
_ASKED_AT_ONCE = 16
#: Actions that an agent is meant to have under way at once, where nothing limits them.
_SLOTS = 10
#: The load has to be so far inside its bound again before it can leave it anew (hysteresis),
_MARGIN = 0.1
#: and outside for so many looks in a row.
_LOOKS = 2
#: An overflow that lasts is told again after so long.
_OVERFLOW_AGAIN_S = 30.0


class _Flow(msgspec.Struct):
    target: int
    """Workers that there are to be. Whether they are there yet, they tell themselves."""
    pauses: list[float] = []


class _Pool(msgspec.Struct):
    size: int


class _Facts(msgspec.Struct):
    flows: dict[str, _Flow] = {}
    pools: dict[str, _Pool] = {}


class LoadSensor(Sensor):
    """Signals `system.load.metrics` per flow and `agent.queue.metrics` per pool, as `LoadMetrics`.

    When the load of the busiest flow leaves the band, it signals `system.load.high` or `.low` besides, and
    `agent.queue.overflow` while more actions wait for a pool than may.
    """

    name = "load"

    class Settings(Sensor.Settings):
        """Loads are shares of what can be borne, 0 to 1."""

        interval_s: PositiveFloat = 2.0
        timeout_s: PositiveFloat | None = 10.0
        high: float = Field(0.8, gt=0, le=1)
        """Above it, the load is high."""
        low: float = Field(0.2, ge=0, le=1)
        """Below it, the load is low."""
        slots: PositiveInt | None = None
        """Actions that an agent is meant to have under way at once. None: `actions.max_running_per_agent`, or 10."""
        overflow: PositiveInt = 500
        """A pool overflows when more of its actions are under way than its slots and so many."""

        @model_validator(mode="after")
        def _fits_together(self) -> Self:
            if self.low >= self.high:
                msg = "low has to lie below high"
                raise ValueError(msg)
            return self

    settings: Settings

    def __init__(
        self,
        settings: Settings,
        node: str,
        *,
        ask: Ask | None = None,
        admin: Callable[[KafkaSettings], Admin] = plugins.admin,
    ) -> None:
        super().__init__(settings, node)
        self._ask = ask or (lambda path: inspection.ask(path, "status", timeout_s=_ANSWER_S))
        self._make_admin = admin
        self._admin: Admin | None = None
        self._asking: ThreadPoolExecutor | None = None
        self._flows: dict[str, FlowMeter] = {}
        self._pools: dict[str, PoolMeter] = {}
        self._topics: dict[str, frozenset[str]] = {}
        self._level = _Level(settings.low, settings.high)
        self._overflowed_at: dict[str, float] = {}

    def start(self, context: SampleContext) -> None:
        """Get ready to ask.

        Raises:
            ConfigError: whoever runs the sensor does not give it the node's settings.
        """
        if context.node_settings is None:
            msg = "the load sensor looks at a node, and was given no settings of one"
            raise ConfigError(msg, hint="run it in the sensor process of a node, or pass node_settings")
        self._admin = self._make_admin(context.node_settings.kafka)
        self._asking = self._asking or ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="load")

    def stop(self, context: SampleContext) -> None:
        """Let go of the threads that ask."""
        if self._asking is not None:
            self._asking.shutdown(wait=False, cancel_futures=True)

    def sample(self, context: SampleContext) -> Iterator[Signal[Any]]:
        settings = context.node_settings
        assert settings is not None, "else it was not started"
        facts = _read_facts(context.data_dir)
        loads: dict[str, LoadMetrics] = {}
        agents: Look | None = None
        for name, flow in facts.flows.items():
            look = self._look(name, flow, settings, context)
            agents = look if name == _AGENTS else agents
            meter = self._flows.setdefault(name, FlowMeter(max_in_flight=settings.actions.max_in_flight))
            loads[name] = meter.measure(look)
            yield self._signal(context, "system.load.metrics", f"flow/{name}", loads[name])
        yield from self._told_level(context, loads)
        if agents is not None:
            yield from self._look_at_pools(context, settings, agents, facts)

    def _look(self, name: str, flow: _Flow, settings: config.Settings, context: SampleContext) -> Look:
        silence = []
        ends: dict[str, int] | None = None
        mirrored: dict[str, int] = {}
        # The ends first: what comes while the workers are asked does not seem to wait.
        try:
            ends, mirrored = self._ends(name, settings.kafka)
        except SignalboxError as error:
            silence.append(str(error))
        at = context.monotonic()
        answers = self._answers(name, flow.target, context.data_dir)
        silence += [f"{name}-{index} does not answer" for index, answer in enumerate(answers) if answer is None]
        parts = [part for answer in answers if answer for part in answer.get("positions", {})]
        if parts and None not in answers:
            self._topics[name] = frozenset(topics_of(parts))
        return Look(
            at=at,
            answers=answers,
            ends=ends,
            mirrored=mirrored,
            pauses=tuple(flow.pauses),
            silence="; ".join(silence) or None,
        )

    def _ends(self, name: str, kafka: KafkaSettings) -> tuple[dict[str, int], dict[str, int]]:
        """Where the partitions that a flow reads end, and how far the flow had got by what it told the broker."""
        assert self._admin is not None, "else it was not started"
        prefix = kafka.topic_prefix
        topics = self._topics.get(name, _INPUTS)
        try:
            found = self._admin.lag(f"{prefix}signalbox.{name}", [prefix + topic for topic in sorted(topics)])
        except NotFound:
            self._topics.pop(name, None)
            raise
        ends = {f"{place.topic.removeprefix(prefix)}-{place.partition}": place for place in found}
        # Nothing was ever written to a partition that ends at 0, so nothing of it was left out.
        positions = {part: 0 if place.end == 0 else place.position for part, place in ends.items()}
        told = {part: position for part, position in positions.items() if position is not None}
        return {part: place.end for part, place in ends.items()}, told

    def _answers(self, name: str, workers: int, data_dir: Path) -> list[Answer | None]:
        assert self._asking is not None, "else it was not started"
        paths = [inspection.socket_path(data_dir, f"{name}-{index}") for index in range(workers)]
        return list(self._asking.map(self._answer, paths))

    def _answer(self, path: Path) -> Answer | None:
        try:
            return self._ask(path)
        except SignalboxError:
            return None

    def _look_at_pools(
        self, context: SampleContext, settings: config.Settings, look: Look, facts: _Facts
    ) -> Iterator[Signal[Any]]:
        slots = self.settings.slots or settings.actions.max_running_per_agent or _SLOTS
        told: dict[str, Any] = next((answer["pools"] for answer in look.told() if answer.get("pools")), {})
        sizes = {name: int(pool["size"]) for name, pool in told.items()}
        sizes |= {name: pool.size for name, pool in facts.pools.items()}
        for name, size in sorted(sizes.items()):
            meter = self._pools.setdefault(name, PoolMeter(name))
            measured, queued = meter.measure(look, size=size, slots=slots)
            yield self._signal(context, "agent.queue.metrics", f"pool/{name}", measured)
            if self._overflows(name, queued, look.at):
                overflow = QueueOverflow(
                    pool=name, queued=queued, limit=self.settings.overflow, timestamp=context.now()
                )
                yield context.signal("agent.queue.overflow", overflow, subject=f"pool/{name}")

    def _overflows(self, name: str, queued: int | None, at: float) -> bool:
        """Whether it is to be told that a pool overflows: when it begins, and now and then while it lasts."""
        if queued is None or queued <= self.settings.overflow:
            if queued is not None and queued <= self.settings.overflow / 2:
                self._overflowed_at.pop(name, None)
            return False
        if at - self._overflowed_at.get(name, float("-inf")) < _OVERFLOW_AGAIN_S:
            return False
        self._overflowed_at[name] = at
        return True

    def _told_level(self, context: SampleContext, loads: Mapping[str, LoadMetrics]) -> Iterator[Signal[Any]]:
        busy = {name: load.busy for name, load in loads.items() if load.busy is not None}
        if not busy:
            return
        name, load = max(busy.items(), key=lambda item: item[1])
        if (level := self._level.entered(load)) is not None:
            told = LoadLevel(load=load, target=f"flow/{name}", timestamp=context.now())
            yield context.signal(f"system.load.{level}", told)

    def _signal(self, context: SampleContext, type: str, subject: str, load: LoadMetrics) -> Signal[Any]:
        return context.signal(type, load.model_copy(update={"timestamp": context.now()}), subject=subject)


class _Level:
    """Notices when a load leaves its band, and not when it only wavers."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._now = "normal"
        self._candidate = "normal"
        self._looks = 0

    def entered(self, load: float) -> str | None:
        """`high` or `low` if the load has become that with this look."""
        level = self._judged(load)
        self._looks = self._looks + 1 if level == self._candidate else 1
        self._candidate = level
        if level == self._now or self._looks < _LOOKS:
            return None
        self._now = level
        return None if level == "normal" else level

    def _judged(self, load: float) -> str:
        if load > self._high - (_MARGIN if self._now == "high" else 0.0):
            return "high"
        return "low" if load < self._low + (_MARGIN if self._now == "low" else 0.0) else "normal"


def _read_facts(data_dir: Path) -> _Facts:
    """What the supervisor wrote down last; without it, what can be seen from the sockets.

    Raises:
        MsgspecError: the file is not one of ours.
    """
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode((data_dir / "run" / "scaling.json").read_bytes(), type=_Facts)
    workers = 0
    while inspection.socket_path(data_dir, f"{_AGENTS}-{workers}").exists():
        workers += 1
    return _Facts(flows={_AGENTS: _Flow(target=workers)} if workers else {})
