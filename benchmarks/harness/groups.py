"""What saving and restoring agents costs, measured on the key groups themselves, without engine and broker.

The groups are the ones of the agents flow (`flows.operators.GroupLogic`) with their segment files in a directory. The
engine's own share of an epoch, one small row per touched group, is not in these numbers; `state_size` shows the whole.
"""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from contenders.signalbox_agents import app

from connectors.kafka.placement import Placement
from connectors.segments import SegmentStore
from flows.operators import GroupLogic, Runtime
from harness.job import SIGNAL_TYPE
from schemas.signal import Signal
from signalbox.agents.group import Delivery
from signalbox.agents.plan import Plan, topic_router
from signalbox.agents.stats import Stats
from signalbox.clock import SystemClock
from signalbox.config import TOPICS, load_settings

_FULL_EPOCHS = 3
#: Enough that every group writes a new base at least once, so that its cost is in the mean.
_SMALL_EPOCHS = 100
_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCosts:
    """Seconds; `small` epochs touched 1 % of the agents, the `full` one all of them."""

    agents: int
    full_epoch_s: float
    small_epoch_s: float
    small_epoch_worst_s: float
    restore_s: float
    disk_mb: float

    @property
    def ratio(self) -> float:
        """The mean small epoch as a share of a full one."""
        return self.small_epoch_s / self.full_epoch_s


def measure(agents: int, directory: Path) -> GroupCosts:
    """Make so many agents, touch all, then 1 % of them again and again, then restore them from what was saved."""
    groups = _Groups(directory)
    subjects = [f"host-{number:07d}" for number in range(agents)]
    full = [groups.epoch(subjects) for _ in range(_FULL_EPOCHS + 1)][1:]
    chance = random.Random(agents)
    few = max(1, int(agents * _SHARE))
    small = [groups.epoch(chance.sample(subjects, few)) for _ in range(_SMALL_EPOCHS)]
    disk = sum(path.stat().st_size for path in directory.rglob("*.seg"))
    return GroupCosts(
        agents=agents,
        full_epoch_s=mean(full),
        small_epoch_s=mean(small),
        small_epoch_worst_s=max(small),
        restore_s=groups.restored_in_s(agents),
        disk_mb=disk / 1e6,
    )


class _Groups:
    """All key groups of one process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runtime = self._new_runtime()
        self._kind = self._runtime.plan.targets(SIGNAL_TYPE)[0]
        self._logics: dict[str, GroupLogic] = {}
        self._saved: dict[str, bytes] = {}
        self._offset = 0

    def epoch(self, subjects: Iterable[str]) -> float:
        """Send each subject a signal, then save the groups; the seconds that saving took."""
        parcels: dict[str, list[Delivery]] = {}
        for subject in subjects:
            self._offset += 1
            signal: Signal[Any] = Signal(
                id=str(self._offset), source="bench", type=SIGNAL_TYPE, subject=subject, data={"value": 0.5}
            )
            place = self._kind.place(subject, signal.id)
            assert place is not None, "a keyed agent has a place for every subject"
            agent_id, group = place
            parcels.setdefault(group, []).append((agent_id, signal, self._offset))
        for group, deliveries in parcels.items():
            logic = self._logics.get(group)
            if logic is None:
                logic = self._logics[group] = GroupLogic(self._runtime, None)
            logic.on_batch([(group, (("signals", 0), [(self._kind.index, deliveries)]))])
        began = time.perf_counter()
        for group in parcels:
            self._saved[group] = self._logics[group].snapshot()
        return time.perf_counter() - began

    def restored_in_s(self, agents: int) -> float:
        """Seconds to restore every group, as after a restart."""
        runtime = self._new_runtime()
        began = time.perf_counter()
        logics = [GroupLogic(runtime, saved) for saved in self._saved.values()]
        took = time.perf_counter() - began
        found = sum(len(group) for group in runtime.groups.values())
        if found != agents or len(logics) != len(self._saved):
            msg = f"{found} of {agents} agents were restored"
            raise RuntimeError(msg)
        return took

    def _new_runtime(self) -> Runtime:
        settings = load_settings(overrides={"node.data_dir": str(self._directory)})
        return Runtime(
            settings=settings,
            plan=Plan(app, settings),
            topics=topic_router(settings.kafka.routes),
            placement=Placement(dict.fromkeys(TOPICS, settings.kafka.partitions)),
            store=SegmentStore(self._directory / "segments"),
            clock=SystemClock(),
            stats=Stats(),
        )
