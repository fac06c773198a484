"""Which actions were asked for and have not ended, as far as the topic `effects` has been read.

The topic is the truth: an action runs when its request is read back, and its outcome reaches the agent when that is
read back. So after a crash nothing has to be reconciled. Reading begins again at the oldest request without an outcome;
when it has caught up, what is still open was cut short by the crash or never began, and only that is run.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from schemas.payloads.actions import ActionAttempted, ActionCancel, ActionRequested, ActionStepEnded
from schemas.signal import MalformedSignal, Signal, decode

log = logging.getLogger(__name__)

REQUESTED, ATTEMPTED, STEP_ENDED, CANCEL, COMPLETED, FAILED = (
    "action.requested",
    "action.attempted",
    "action.step.ended",
    "action.cancel",
    "action.completed",
    "action.failed",
)
OUTCOMES = (COMPLETED, FAILED)


@dataclass(slots=True)
class Instruction:
    """One action that was asked for."""

    id: str
    partition: int
    offset: int
    subject: str | None
    correlation_id: str | None
    traceparent: str | None
    request: ActionRequested
    attempts: int = 0
    """Attempts that were noted before this process read of them."""
    restarts: int = 0
    """How many of them began because a process had ended in the middle of one."""
    steps: dict[str, ActionStepEnded] = field(default_factory=dict)
    """The steps that ended, by key."""
    is_recovered: bool = False
    """Whether it was asked for before this process began: an attempt may have been cut short."""
    is_drained: bool = False
    """Whether the last attempt was cut short by a drain, which is no fault of the action's."""
    is_cancelled: bool = False


class Runner(Protocol):
    """Who runs instructions."""

    def start(self, instruction: Instruction) -> None:
        """Run an instruction as soon as there is room for it."""
        ...

    def cancel(self, instruction: Instruction) -> None:
        """End a started instruction, if it has not ended yet."""
        ...


class Ledger:
    """The open instructions of the partitions that this worker reads, oldest first."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._open: defaultdict[int, dict[str, Instruction]] = defaultdict(dict)
        self._caught_up: set[int] = set()

    def saw(self, partition: int, records: Iterable[tuple[int, bytes | None]]) -> set[int]:
        """Take note of records (offset, value) of a partition.

        Returns the offsets of those that concern nobody else. Outcomes are for agents, and what cannot be read is for
        the intake.
        """
        settled = set()
        for offset, value in records:
            try:
                if self._note(partition, offset, decode(value)):
                    settled.add(offset)
            except (MalformedSignal, ValidationError, KeyError, TypeError) as error:
                log.debug("effects/%d at %d is passed over: %s", partition, offset, error)
        return settled

    def caught_up(self, partition: int) -> None:
        """Run what is still open, now that everything written before the start has been read."""
        self._caught_up.add(partition)
        for instruction in list(self._open[partition].values()):
            instruction.is_recovered = True
            self._runner.start(instruction)

    def low_water(self, partition: int, position: int) -> int:
        """Where reading has to begin after a crash: at the oldest open request, or at `position`."""
        oldest = next(iter(self._open[partition].values()), None)
        return position if oldest is None else min(position, oldest.offset)

    def _note(self, partition: int, offset: int, signal: Signal[Any]) -> bool:
        """Returns whether the record was in order and concerns nobody else."""
        found = self._open[partition]
        is_live = partition in self._caught_up
        match signal.type:
            case "action.requested" if signal.id not in found:
                instruction = Instruction(
                    signal.id,
                    partition,
                    offset,
                    signal.subject,
                    signal.correlationid,
                    signal.traceparent,
                    ActionRequested.model_validate(signal.data),
                )
                found[signal.id] = instruction
                if is_live:
                    self._runner.start(instruction)
            # Of our own attempts and steps, which come back here as well, the executor keeps count itself.
            case "action.attempted" if not is_live:
                attempted = ActionAttempted.model_validate(signal.data)
                if known := found.get(attempted.instruction_id):
                    known.attempts = attempted.attempt
                    known.restarts += attempted.reason == "restart"
                    known.is_drained = attempted.reason == "drain"
            case "action.step.ended" if not is_live:
                step = ActionStepEnded.model_validate(signal.data)
                if known := found.get(step.instruction_id):
                    known.steps[step.key] = step
            case "action.cancel":
                self._cancel(partition, ActionCancel.model_validate(signal.data))
            case "action.completed" | "action.failed":
                found.pop(signal.data["instruction_id"], None)
                return False
            case _:
                return False
        return True

    def _cancel(self, partition: int, wish: ActionCancel) -> None:
        for instruction in self._open[partition].values():
            if (instruction.request.agent_id, instruction.request.name) == (wish.agent_id, wish.name):
                instruction.is_cancelled = True
                if partition in self._caught_up:
                    self._runner.cancel(instruction)
