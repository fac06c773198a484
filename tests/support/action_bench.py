"""An executor with a journal in memory, for tests of actions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from schemas.payloads.actions import ActionRequested
from schemas.signal import Signal, decode, encode
from signalbox.actions import Action
from signalbox.actions.executor import Acknowledged, Executor
from signalbox.actions.ledger import OUTCOMES, Instruction
from signalbox.actions.services import Services
from signalbox.actions.tally import Tally
from signalbox.clock import SystemClock
from signalbox.config import Settings
from tests.support.eventually import eventually


class Params(BaseModel):
    """Any number."""

    value: int = 0


class MemoryJournal:
    """Keeps what was appended."""

    def __init__(self) -> None:
        self.records: list[Signal[Any]] = []
        self.announced: list[tuple[str, Signal[Any]]] = []
        self.closed = False

    def append(self, partition: int, signal: Signal[Any], acknowledged: Acknowledged) -> None:
        self.records.append(decode(encode(signal)))
        acknowledged(None)

    def announce(self, topic: str, signal: Signal[Any]) -> None:
        self.announced.append((topic, decode(encode(signal))))

    def close(self) -> None:
        self.closed = True

    def outcomes(self) -> dict[str, dict[str, Any]]:
        return {
            one.data["instruction_id"]: {"type": one.type, **one.data} for one in self.records if one.type in OUTCOMES
        }


class Bench:
    """An executor with some actions; `settings` are those of `actions`, `members` how many each pool has."""

    def __init__(self, *actions: Action, members: Mapping[str, int] = MappingProxyType({}), **settings: Any) -> None:
        self.journal = MemoryJournal()
        services = Services.of(Settings.model_validate({"actions": settings}), SystemClock())
        tally = Tally(lambda agent_id: pool if (pool := agent_id.rpartition("_")[0]) in members else None)
        self.executor = Executor({one.name: one for one in actions}, self.journal, services, tally, members.__getitem__)
        self._count = 0

    def start(
        self,
        name: str,
        *,
        attempts: int = 0,
        restarts: int = 0,
        recovered: bool = False,
        drained: bool = False,
        **request: Any,
    ) -> str:
        """Have an action run; its parameter is how many were started, unless `params` say otherwise."""
        instruction = self.instruction(name, **request)
        instruction.attempts, instruction.restarts = attempts, restarts
        instruction.is_recovered, instruction.is_drained = recovered, drained
        self.executor.start(instruction)
        return instruction.id

    def instruction(self, name: str, *, subject: str = "s", **request: Any) -> Instruction:
        """An instruction that has not been started."""
        self._count += 1
        asked = ActionRequested(action=name, **{"agent_id": "a", "params": {"value": self._count}, **request})
        return Instruction(f"i{self._count}", 0, self._count, subject, None, None, asked)

    def outcome(self, id: str) -> dict[str, Any]:
        """How an instruction ended."""
        return eventually(lambda: self.journal.outcomes().get(id), timeout_s=10)


MakeBench = Callable[..., Bench]
