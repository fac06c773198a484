"""Output that rests on a timer's firing, kept until the firing is saved.

The wall clock decides where among its signals an agent's timer fires, so a run that repeats those signals after a crash
may fire it elsewhere and decide otherwise. Therefore nothing that follows from a firing is written before a snapshot
that holds the firing is the one to go on from: a crash before then forgets the firing and what followed alike. The rule
is known as output commit (Elnozahy et al., "A survey of rollback-recovery protocols in message-passing systems", 2002).
"""

import msgspec

from signalbox.ports import Outgoing

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Outgoing]).decode


class Deferral:
    """What one key group keeps back, oldest first.

    Agents whose timer fired keep all their output back, because any of it may rest on the firing.
    """

    def __init__(self) -> None:
        self._snapshots = 0
        self._fired: dict[str, int] = {}
        """Agent -> how many snapshots had been taken when its timer last fired."""
        self._kept: dict[int, list[Outgoing]] = {}
        """Output by the firing that it rests on, given in the same way."""
        self._changed = False

    def __bool__(self) -> bool:
        """Whether an agent's output is being kept back."""
        return bool(self._fired)

    def fired(self, agent_id: str) -> None:
        """From here on, what this agent sends rests on a firing that is not saved yet."""
        self._fired[agent_id] = self._snapshots

    def outlet(self, agent_id: str, direct: list[Outgoing]) -> list[Outgoing]:
        """Where this agent's output goes: `direct`, or to what is kept."""
        fired = self._fired.get(agent_id)
        if fired is None:
            return direct
        self._changed = True
        return self._kept.setdefault(fired, [])

    def release(self, snapshots: int) -> list[Outgoing]:
        """Let go of what rests on firings that were followed by so many snapshots; with 0, of everything."""
        bound = self._snapshots - snapshots
        ready = sorted(fired for fired in self._kept if fired <= bound)
        self._changed = self._changed or bool(ready)
        self._fired = {agent_id: fired for agent_id, fired in self._fired.items() if fired > bound}
        return [one for fired in ready for one in self._kept.pop(fired)]

    # Saving and restoring.

    def take_change(self) -> bytes | None:
        """What is kept, for a snapshot that is taken now; None if the snapshot before holds the same."""
        self._snapshots += 1
        changed, self._changed = self._changed, False
        return self.record() if changed else None

    def keeps(self) -> bool:
        """Whether there is output that waits."""
        return bool(self._kept)

    def record(self) -> bytes:
        """What is kept, encoded."""
        return _encode([one for fired in sorted(self._kept) for one in self._kept[fired]])

    def restore(self, record: bytes) -> None:
        """Keep what a snapshot kept. The snapshot is there, so all of it can be released at once."""
        self._kept = {self._snapshots: kept} if (kept := _decode(record)) else {}
