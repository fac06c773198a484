"""Who lives in a key group: the agents, loaded or still as they were saved, and what of them the next snapshot needs.

What the agents do is `signalbox.agents.group`. Nothing here does I/O; snapshots are lists of `Change`.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from signalbox.agents.deferral import Deferral
from signalbox.agents.plan import Plan
from signalbox.agents.records import Held, Instance, load, save
from signalbox.agents.stats import Stats
from signalbox.clock import Clock
from signalbox.errors import described

log = logging.getLogger(__name__)

Saved = tuple[int, bytes]
"""An agent that was not needed since it was restored: next due time, and its record."""
Change = tuple[str, int, bytes | None]
"""Agent id, next due time in Unix milliseconds (0 is never), and its record; None when it is gone."""
#: In place of an agent's id, in the changes that hold what the group keeps back, and outcomes that came too early.
_DEFERRED, _EARLY = "", "\0early"
_encode_early = msgspec.msgpack.Encoder().encode
_decode_early = msgspec.msgpack.Decoder(dict[str, Held]).decode


class StateUnreadable(ValueError):
    """A saved agent cannot be brought back by this app: its class is gone, changed, or its `migrate` raised."""


class Population:
    """The agents of one key group, and when each wants to be woken."""

    def __init__(self, plan: Plan, clock: Clock, stats: Stats) -> None:
        self._plan = plan
        self._clock = clock
        self._stats = stats
        self._agents: dict[str, Instance | Saved] = {}
        self.census: Counter[str] = Counter()
        """How many agents of each class live here."""
        self._due: list[tuple[int, str]] = []
        self._dirty: set[str] = set()
        self._deferral = Deferral()
        self._early: dict[str, Held] = {}
        """Outcomes by instruction that were read again before the signal that asks for the action again."""
        self._early_changed = False

    def next_due_ms(self) -> int | None:
        """When `fire_due` wants to be called next, in Unix milliseconds."""
        return self._due[0][0] if self._due else None

    # Saving and restoring.

    def take_changes(self) -> list[Change]:
        """What the next snapshot needs: the records of the agents touched since the last call."""
        dirty, self._dirty = self._dirty, set()
        for agent_id in dirty:
            if isinstance(instance := self._agents.get(agent_id), Instance):
                instance.dirty = False
                self._check_readable(instance)
        changes = [self._change(agent_id) for agent_id in dirty]
        if (deferred := self._deferral.take_change()) is not None:
            changes.append((_DEFERRED, 0, deferred))
        if self._early_changed:
            self._early_changed = False
            changes.append((_EARLY, 0, _encode_early(self._early)))
        return changes

    def _check_readable(self, instance: Instance) -> None:
        """Tell at once of a state that could be written, say with a text in a field for numbers, but not be read.

        From then on the handlers of its class are checked one by one, and those that do so fail.
        """
        try:
            instance.committed()
        except ValueError as error:  # msgspec's ValidationError is one
            self._stats.failed[instance.kind.name, "state"] += 1
            instance.kind.reread = True
            log.error("the state of %s will not be readable after a restart: %s", instance.agent_id, error)

    def all_records(self) -> Iterator[Change]:
        """The records of every agent, touched or not."""
        for agent_id in self._agents:
            yield self._change(agent_id)
        if self._deferral.keeps():
            yield _DEFERRED, 0, self._deferral.record()
        if self._early:
            yield _EARLY, 0, _encode_early(self._early)

    def restore(self, changes: Iterable[Change]) -> None:
        """Apply saved records, oldest first. A record is decoded only when its agent is needed."""
        agents, due = self._agents, self._due
        for agent_id, due_ms, record in changes:
            if record is None:
                agents.pop(agent_id, None)
                continue
            if agent_id == _DEFERRED:
                self._deferral.restore(record)
                continue
            if agent_id == _EARLY:
                self._early = _decode_early(record)
                continue
            agents[agent_id] = (due_ms, record)
            if due_ms:
                due.append((due_ms, agent_id))
        heapq.heapify(due)

    def restored(self) -> None:
        """Take stock after the last `restore`."""
        now_ms = self._clock.now_ms()
        census: Counter[str] = Counter()
        for agent_id, saved in self._agents.items():
            kind = self._plan.kind_of(agent_id)
            census[kind.name if kind else "unknown"] += 1
            if kind is not None and kind.idle_ttl_ms is not None and isinstance(saved, tuple) and not saved[0]:
                # Saved when its class had no idle time yet, or while it was paused: look at it one idle time from now.
                due_ms = now_ms + kind.idle_ttl_ms
                self._agents[agent_id] = (due_ms, saved[1])
                heapq.heappush(self._due, (due_ms, agent_id))
        self.census = census

    def _change(self, agent_id: str) -> Change:
        agent = self._agents.get(agent_id)
        if agent is None:
            return agent_id, 0, None
        if isinstance(agent, tuple):
            return agent_id, *agent
        return agent_id, agent.next_due_ms(), save(agent)

    # Looking in.

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._agents))

    def get(self, agent_id: str) -> Instance | None:
        """The instance of this id. Another thread may call it, and look at `committed()`, not at `state`.

        Raises:
            StateUnreadable: there is one, but this app cannot read it.
        """
        agent = self._agents.get(agent_id)
        return self._load(agent_id, agent) if isinstance(agent, tuple) else agent

    # Within the runtime.

    def _readable(self, agent_id: str) -> Instance | None:
        """The instance, unless there is none or its saved state is for a class that cannot read it."""
        try:
            return self.get(agent_id)
        except StateUnreadable:
            return None

    def _load(self, agent_id: str, saved: Saved) -> Instance:
        kind = self._plan.kind_of(agent_id)
        if kind is None:
            msg = f"the saved agent {agent_id} belongs to no agent of this app"
            raise StateUnreadable(msg)
        due_ms, record = saved
        try:
            instance = load(agent_id, kind, record)
        except Exception as error:
            name, message = described(error)
            msg = f"the saved state of {agent_id} cannot be read: {name}: {message}"
            raise StateUnreadable(msg) from error
        instance.queued_ms = due_ms
        return instance

    def _remember_due(self, instance: Instance) -> None:
        due_ms = instance.next_due_ms()
        if due_ms and not 0 < instance.queued_ms <= due_ms:
            instance.queued_ms = due_ms
            heapq.heappush(self._due, (due_ms, instance.agent_id))

    def _touch(self, instance: Instance) -> None:
        """Let the next snapshot hold this instance."""
        instance.dirty = True
        self._dirty.add(instance.agent_id)
