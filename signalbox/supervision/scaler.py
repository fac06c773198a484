"""Obeys the commands about scaling: how many workers a flow has, how many agents a pool, and who may decide.

The newest target wins, and one change of a flow is under way at a time: a newer command replaces a change whose workers
are only being got ready, and follows one that has gone further. What is wanted is on disk before anything is done
(`targets.py`), and each step is told on the topic `scaling` (`notices.py`). How processes make place: `group.py`.
"""

import asyncio
import time
from collections import deque
from typing import Any

from pydantic import ValidationError

from schemas.control import FlowControl, ScaleCommand
from signalbox.config import Settings
from signalbox.errors import SignalboxError
from signalbox.ids import derived_id
from signalbox.supervision.commands import Command
from signalbox.supervision.group import GroupState, ProcessGroup
from signalbox.supervision.notices import Notices
from signalbox.supervision.pools import PoolKeeper
from signalbox.supervision.targets import AUTOSCALER, Change, FlowTarget, TargetsFile
from signalbox.telemetry import metrics
from signalbox.telemetry.logs import get_logger

_KEPT_CHANGES = 50
_KEPT_PAUSES = 5
#: A change that a killed supervisor left is given up when its workers have crashed so often.
_CRASHES_TO_GIVE_UP = 2
_LOOK_S = 0.2
#: What a flow is in when it has all the workers that it is to have, which may be none.
_AT_REST = (GroupState.RUNNING, GroupState.PAUSED)

log = get_logger(__name__)


class Scaler:
    """Brings the flows of a node to their targets. Call it inside one event loop."""

    def __init__(self, settings: Settings, targets: TargetsFile, notices: Notices) -> None:
        self._settings = settings
        self._targets = targets
        self._notices = notices
        self._groups: dict[str, ProcessGroup] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self.pools = PoolKeeper(settings.node.data_dir, self._groups, targets, notices, self._save)
        self.changes: deque[dict[str, Any]] = deque(maxlen=_KEPT_CHANGES)
        """The latest notices about changes, newest last."""

    @property
    def autoscaling(self) -> bool:
        """Whether decisions of the autoscaler are obeyed."""
        return self._settings.scaling.enabled and self._targets.now.autoscaling

    def changing(self, name: str) -> bool:
        """Whether the number of a flow's workers is being changed."""
        flow = self._targets.now.flows.get(name)
        return flow is not None and flow.change is not None

    def target(self, name: str, configured: int) -> FlowTarget:
        """What a flow is to begin with; a change that a killed supervisor had begun is finished by this."""
        found = self._targets.flow(name, configured)
        self._targets.save()
        return found

    async def began(self, name: str, generation: int) -> None:
        """Write down that a generation of a flow begins."""
        self._targets.now.flows[name].generation = generation
        await self._save()

    async def keep(self, group: ProcessGroup) -> None:
        """Bring a flow to its target, for ever."""
        name = group.name
        self._groups[name] = group
        wake = self._wakes[name] = asyncio.Event()
        flow = self._targets.now.flows[name]
        if flow.change is not None:
            await self._finish(group, flow, flow.change)
        while True:
            wake.clear()
            if _wanted(flow) != group.target:
                await self._change(group, flow, wake)
            else:
                await wake.wait()

    def obey(self, command: Command) -> None:
        """Take a command from `control`. What is not for the supervisor, or not valid, is left to others."""
        signal, record = command
        try:
            match signal.type:
                case "control.scale":
                    self._scale(ScaleCommand.model_validate(signal.data), command)
                case "control.pause" | "control.resume" | "control.drain":
                    self._control(FlowControl.model_validate(signal.data), pause=signal.type != "control.resume")
        except ValidationError:
            log.debug("a command that is not valid is left to the agents flow", id=signal.id)
        now = self._targets.now
        now.read[record.partition] = record.offset + 1
        now.since_s = max(now.since_s or 0.0, record.timestamp.timestamp() if record.timestamp else 0.0)
        self._targets.save()
        for wake in self._wakes.values():
            wake.set()

    def listens(self) -> None:
        """Commands are read from now on: those that come while no supervisor is there count, from the first start."""
        if self._targets.now.since_s is None:
            self._targets.now.since_s = time.time()
            self._targets.save()

    def forget_commands(self) -> None:
        """The topic begins anew: what was read of it says nothing any more."""
        self._targets.now.read.clear()
        self._targets.now.since_s = None
        self._targets.save()

    def _scale(self, wanted: ScaleCommand, command: Command) -> None:
        kind, _, name = wanted.target.partition("/")
        flow = self._targets.now.flows.get(name) if name in self._groups else None
        if kind == "flow" and flow is None:
            return
        now = self.pools.size(name) if flow is None or kind == "pool" else flow.workers
        if wanted.decision_id is not None and not self.autoscaling:
            self._notices.refuse(
                command, "autoscaler_paused", "the autoscaler is paused, and this carries out a decision of it"
            )
            return
        if wanted.expected is not None and now is not None and wanted.expected != now:
            message = f"it was meant for {wanted.expected}, and {now} are wanted by now"
            self._notices.refuse(command, "stale_command", message)
            return
        change = Change(
            id=derived_id(command.signal.id, wanted.target, 0),
            before=now or 0,
            desired=wanted.desired,
            reason=wanted.reason,
            decision_id=wanted.decision_id,
        )
        if kind == "pool":
            self.pools.want(name, change, command)
        elif flow is not None:
            flow.workers, flow.asked = wanted.desired, change

    def _control(self, wanted: FlowControl, *, pause: bool) -> None:
        if wanted.flow == AUTOSCALER:
            self._targets.now.autoscaling = not pause
            self._notices.autoscaling(on=not pause, reason=wanted.reason)
        elif (flow := self._targets.now.flows.get(wanted.flow)) is not None:
            flow.paused = pause
            word = "paused" if pause else "resumed"
            flow.asked = Change(
                id=f"{word}-{time.time_ns()}", before=0, desired=_wanted(flow), reason=wanted.reason or word
            )

    async def _change(self, group: ProcessGroup, flow: FlowTarget, wake: asyncio.Event) -> None:
        """Make one change, from its plan to its end, and tell of each step."""
        asked = flow.asked or Change(id=f"target-{time.time_ns()}", before=0, desired=0, reason="the target")
        flow.change = change = Change(
            id=asked.id,
            before=group.target,
            desired=_wanted(flow),
            reason=asked.reason,
            decision_id=asked.decision_id,
        )
        await self._save()
        story = _Story(self._notices, self.changes, group, change)
        story.tell("plan", "started", note=self._crowding(change))
        work = asyncio.create_task(group.resize(change.desired, story.step))
        while not work.done():
            waking = asyncio.create_task(wake.wait())
            await asyncio.wait({work, waking}, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            wake.clear()
            if _wanted(flow) != change.desired and not story.has_drained and not work.done():
                work.cancel()
                await asyncio.wait({work})
        flow.change = None
        if work.cancelled():
            metrics.RESCALES.labels(flow=group.name, status="superseded").inc()
            story.tell("superseded", "failed", error=f"{_wanted(flow)} workers are wanted by now")
        elif (error := work.exception()) is not None:
            self._failed(flow, change, story, error)
        else:
            self._done(flow, group, story)
        await self._save()

    def _done(self, flow: FlowTarget, group: ProcessGroup, story: "_Story") -> None:
        pause_s = story.pause_s()
        if pause_s is not None:
            flow.pauses = [*flow.pauses, round(pause_s, 4)][-_KEPT_PAUSES:]
            metrics.RESCALE_PAUSE.labels(flow=group.name).observe(pause_s)
        metrics.RESCALES.labels(flow=group.name, status="completed").inc()
        story.tell("done", "completed", pause_s=pause_s)

    def _failed(self, flow: FlowTarget, change: Change, story: "_Story", error: BaseException) -> None:
        if not isinstance(error, SignalboxError):
            raise error
        metrics.RESCALES.labels(flow=story.flow, status="failed").inc()
        if _wanted(flow) == change.desired:  # nobody has asked for anything else meanwhile
            flow.workers = change.before
        story.tell("rollback", "failed", error=str(error))

    async def _finish(self, group: ProcessGroup, flow: FlowTarget, change: Change) -> None:
        """See through, or give up, a change in whose middle the supervisor before this one ended."""
        story = _Story(self._notices, self.changes, group, change)
        while group.state not in _AT_REST and group.restarts < _CRASHES_TO_GIVE_UP:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        flow.change = None
        if group.state in _AT_REST:
            story.tell("done", "completed")
        else:
            flow.workers = change.before
            story.tell("rollback", "failed", error=f"the workers crashed {group.restarts} times")
        await self._save()

    def _crowding(self, change: Change) -> str | None:
        partitions, desired = self._settings.kafka.partitions, change.desired
        if desired <= partitions:
            return None
        return f"{desired - partitions} of {desired} workers read nothing: topics have {partitions} partitions"

    async def _save(self) -> None:
        self._targets.save()
        await self._notices.facts(self._targets.now, self._groups)


class _Story:
    """The steps of one change as they are told."""

    def __init__(self, notices: Notices, changes: deque[dict[str, Any]], group: ProcessGroup, change: Change) -> None:
        self._notices = notices
        self._changes = changes
        self._group = group
        self._change = change
        self._began_s = time.monotonic()
        self._drained_s: float | None = None

    @property
    def flow(self) -> str:
        """The flow's name."""
        return self._group.name

    @property
    def has_drained(self) -> bool:
        """Whether the change has gone too far to be taken back."""
        return self._drained_s is not None

    def step(self, step: str) -> None:
        """A step of `ProcessGroup.resize` begins."""
        if step == "drain":
            self._drained_s = time.monotonic()
        self.tell(step, "step")

    def pause_s(self) -> float | None:
        """Seconds from the drain to the moment when the last worker read again."""
        since = [answer.get("reading_since") for answer in self._group.answers if answer]
        read = [one for one in since if one is not None]
        return max(read) - self._drained_s if read and self._drained_s is not None else None

    def tell(self, step: str, what: str, **more: Any) -> None:
        """Put a notice about the change on the topic `scaling`; `what` ends its type."""
        change, group = self._change, self._group
        notice = self._notices.rescale(
            what,
            rescale_id=change.id,
            target=f"flow/{group.name}",
            generation=group.generation,
            before=change.before,
            desired=change.desired,
            step=step,
            reason=change.reason,
            decision_id=change.decision_id,
            duration_s=round(time.monotonic() - self._began_s, 4),
            workers=len(group.pids),
            **more,
        )
        self._changes.append(notice)


def _wanted(flow: FlowTarget) -> int:
    return 0 if flow.paused else flow.workers
