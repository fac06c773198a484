"""Which actions were asked for and have not ended, as far as the topic `effects` has been read.

The topic is the truth: an action runs when its request is read back, and its outcome reaches the agent when that is
read back. So after a crash nothing has to be reconciled. Reading begins again at the oldest request without an outcome;
when it has caught up, what is still open was cut short by the crash or never began, and only that is run.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from schemas.payloads.actions import ActionAttempted, ActionRequested
from schemas.signal import MalformedSignal, Signal, decode

log = logging.getLogger(__name__)

REQUESTED, ATTEMPTED, COMPLETED, FAILED = (
    "action.requested",
    "action.attempted",
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
    """Attempts that began before this process read of them."""
    restarts: int = 0
    """How many of them began because a process had ended in the middle of one."""


class Ledger:
    """The open instructions of the partitions that this worker reads, oldest first.

    Args:
        start: called with each instruction that is to be run now.
    """

    def __init__(self, start: Callable[[Instruction], None]) -> None:
        self._start = start
        self._open: defaultdict[int, dict[str, Instruction]] = defaultdict(dict)
        self._caught_up: set[int] = set()

    def saw(self, partition: int, records: Iterable[tuple[int, bytes | None]]) -> None:
        """Take note of records (offset, value) of a partition; what cannot be read is the intake's concern."""
        for offset, value in records:
            try:
                self._note(partition, offset, decode(value))
            except (MalformedSignal, ValidationError, KeyError, TypeError) as error:
                log.debug("effects/%d at %d is passed over: %s", partition, offset, error)

    def caught_up(self, partition: int) -> None:
        """Run what is still open, now that everything written before the start has been read."""
        self._caught_up.add(partition)
        for instruction in list(self._open[partition].values()):
            instruction.attempts = max(1, instruction.attempts)
            self._start(instruction)

    def low_water(self, partition: int, position: int) -> int:
        """Where reading has to begin after a crash: at the oldest open request, or at `position`."""
        oldest = next(iter(self._open[partition].values()), None)
        return position if oldest is None else min(position, oldest.offset)

    def _note(self, partition: int, offset: int, signal: Signal[object]) -> None:
        found = self._open[partition]
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
                if partition in self._caught_up:
                    self._start(instruction)
            case "action.attempted":
                attempted = ActionAttempted.model_validate(signal.data)
                # Of our own attempts, which come back here as well, the executor keeps count itself.
                if partition not in self._caught_up and (known := found.get(attempted.instruction_id)):
                    known.attempts = attempted.attempt
                    known.restarts += attempted.reason == "restart"
            case "action.completed" | "action.failed":
                found.pop(signal.data["instruction_id"], None)  # type: ignore[index]  # else it is passed over
