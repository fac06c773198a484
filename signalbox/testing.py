"""Test agents without a broker and without waiting: `Harness` runs an app under virtual time.

The harness runs the very code that runs in a flow (`signalbox.agents.group`). It does not show partitions, several
workers or delivery; for those, run against a broker. Actions with effects run for real, in real time, when asked for.
"""

from collections import deque
from datetime import timedelta
from queue import Queue
from typing import Any

from schemas.control import AgentControl
from schemas.signal import Signal, decode, encode, new_signal
from signalbox.actions.executor import Acknowledged, Executor
from signalbox.actions.ledger import OUTCOMES, REQUESTED, Ledger
from signalbox.actions.services import Services
from signalbox.agents.admission import Refused, commanded, homeless, unhandled
from signalbox.agents.group import CONTROL, OUTCOME, AgentGroup
from signalbox.agents.plan import Place, Plan, topic_router
from signalbox.agents.pools import PoolSizes
from signalbox.agents.stats import Stats
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.config import EFFECTS_TOPIC, Settings
from signalbox.dead_letters import DEAD_LETTERS, Where, dead_letter
from signalbox.errors import NotFound
from signalbox.ids import KEY_GROUPS, key_group
from signalbox.routing import Pattern

#: Signals that one call may set off; more means that agents keep each other busy for ever.
_MOST_SIGNALS = 10_000
#: An action under test that takes longer is stuck.
_ACTION_TIMEOUT_S = 60.0
#: A harness stands for one partition of the input.
_PART = "signals-0"
_LISTENED = ("signals", "alerts", "scaling", "registry", "control")


class _Journal:
    """Takes an action's records and waits for the last of them."""

    def __init__(self) -> None:
        self._outcomes: Queue[Signal[Any]] = Queue()

    def append(self, partition: int, signal: Signal[Any], acknowledged: Acknowledged) -> None:
        if signal.type in OUTCOMES:
            self._outcomes.put(decode(encode(signal)))
        acknowledged(None)

    def announce(self, topic: str, signal: Signal[Any]) -> None:
        return

    def close(self) -> None:
        return

    def outcome(self) -> Signal[Any]:
        return self._outcomes.get(timeout=_ACTION_TIMEOUT_S)


class Harness:
    """An app under virtual time.

    >>> harness = Harness(App(agents=[Thermostat]))
    >>> harness.send("room.temperature", {"celsius": 15}, subject="kitchen")
    >>> harness.advance(minutes(5))
    >>> [signal.type for signal in harness.emitted("heating.**")]
    """

    def __init__(self, app: App, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.clock = VirtualClock()
        self.stats = Stats()
        self._plan = Plan(app, self.settings)
        self._pools = PoolSizes(self._plan.pools())
        self._topics = topic_router(self.settings.kafka.routes)
        self._groups = {str(key): self._group(str(key)) for key in range(KEY_GROUPS)}
        self._sent = 0
        self._written: list[tuple[str, Signal[Any]]] = []
        self._begin()

    def send(self, type: str, data: Any = None, *, subject: str | None = None, **attributes: Any) -> Signal[Any]:
        """Deliver a signal, and everything that it sets off at this instant; returns it as the agents got it."""
        self._sent += 1
        attributes = {"id": f"test-{self._sent}", "source": "test", "time": self.clock.now(), **attributes}
        signal = decode(encode(new_signal(type, data, subject=subject, **attributes)))
        self._deliver("signals", signal)
        self._settle()
        return signal

    def advance(self, by: timedelta) -> None:
        """Let time pass; timers fire at their own instants, in order."""
        end = self.clock.now() + by
        while True:
            due = [due_ms for group in self._groups.values() if (due_ms := group.next_due_ms()) is not None]
            now_ms = int(self.clock.now().timestamp() * 1000)
            if not due or min(due) > int(end.timestamp() * 1000):
                break
            self.clock.advance(timedelta(milliseconds=max(0, min(due) - now_ms)))
            for group in self._groups.values():
                group.fire_due()
            self._settle()
        if self.clock.now() < end:
            self.clock.advance(end - self.clock.now())

    def restart(self) -> None:
        """Save every agent, forget everything, and restore: what a crash right after a snapshot would leave."""
        for group in self._groups.values():
            group.take_changes()
        saved = {key: list(group.all_records()) for key, group in self._groups.items()}
        self._groups = {key: self._group(key) for key in saved}
        for key, changes in saved.items():
            self._groups[key].restore(changes)
            self._groups[key].restored()
        self._begin()

    def pause(self, agent_id: str) -> None:
        """Tell an agent to hold its signals back."""
        self._order("pause", agent_id)

    def resume(self, agent_id: str) -> None:
        """Tell a paused agent to go on."""
        self._order("resume", agent_id)

    def stop(self, agent_id: str) -> None:
        """Tell an agent to end."""
        self._order("stop", agent_id)

    def resize(self, pool: str, size: int) -> None:
        """Give a pool another size, as at the end of an epoch.

        Members beyond it get nothing new, and end when no action and no timer of their own is under way.

        Raises:
            NotFound: there is no such pool.
            ConfigError: the pool cannot have this size.
        """
        self._pools.resize({pool: size})
        self._tell_sizes()
        self._settle()

    def emitted(self, pattern: str = "**", *, topic: str | None = None) -> list[Signal[Any]]:
        """What agents have written, oldest first: by pattern of the type, and by topic if given."""
        wanted = Pattern.parse(pattern)
        return [
            signal
            for where, signal in self._written
            if wanted.matches(signal.type) and (where == topic if topic else where not in (DEAD_LETTERS, "telemetry"))
        ]

    @property
    def dead_letters(self) -> list[dict[str, Any]]:
        """The records set aside so far."""
        return [signal.data or {} for where, signal in self._written if where == DEAD_LETTERS]

    def agents(self) -> list[str]:
        """The ids of all agents, sorted."""
        return sorted(agent_id for group in self._groups.values() for agent_id in group)

    def state(self, agent_id: str) -> Any:
        """The state of an agent.

        Raises:
            NotFound: there is no such agent.
        """
        instance = self._groups[str(key_group(agent_id))].get(agent_id)
        if instance is None:
            msg = f"there is no agent {agent_id!r}"
            raise NotFound(msg, hint=f"there are: {', '.join(self.agents()) or 'none'}")
        return instance.committed()

    def _begin(self) -> None:
        for group in self._groups.values():
            group.start()
        self._tell_sizes()
        for group in self._groups.values():
            group.caught_up()
        self._settle()

    def _tell_sizes(self) -> None:
        for group in self._groups.values():
            group.resized(_PART, self._pools.wanted())

    def _group(self, key: str) -> AgentGroup:
        return AgentGroup(key, self._plan, self._topics, settings=self.settings, clock=self.clock, stats=self.stats)

    def _order(self, verb: str, agent_id: str) -> None:
        data = AgentControl(agent_id=agent_id)
        self._sent += 1
        signal = new_signal(f"control.agent.{verb}", data, source="test", id=f"test-{self._sent}", subject=agent_id)
        self._deliver("control", decode(encode(signal)))
        self._settle()

    def _deliver(self, topic: str, signal: Signal[Any]) -> None:
        if topic == "control":
            self._command(topic, signal)
            return
        kinds = self._plan.targets(signal.type)
        if not kinds and (refusal := unhandled(signal)) is not None:
            self._refuse(topic, signal, refusal)
        for kind in kinds:
            place = kind.place(signal.subject, signal.id, self._pools.wanted().get(kind.name, 0))
            if place is not None:
                self._deliver_to(topic, place, kind.index, signal)
            else:
                self._refuse(topic, signal, homeless(kind))

    def _perform(self, request: Signal[Any]) -> None:
        """Run an action at once and a single time, and give its outcome to the agent that asked for it."""
        journal = _Journal()
        executor = Executor(self._plan.actions, journal, Services.of(self.settings, self.clock))
        ledger = Ledger(executor)
        ledger.caught_up(0)
        ledger.saw(0, [(self._sent, encode(request))])
        outcome = journal.outcome()
        executor.stop(0)
        self._written.append((EFFECTS_TOPIC, outcome))
        agent_id = outcome.data["agent_id"]
        self._deliver_to(EFFECTS_TOPIC, (agent_id, str(key_group(agent_id))), OUTCOME, outcome)

    def _command(self, topic: str, signal: Signal[Any]) -> None:
        try:
            agent_id = commanded(self._plan, signal)
        except Refused as error:
            self._refuse(topic, signal, error)
            return
        if agent_id is not None:
            self._deliver_to(topic, (agent_id, str(key_group(agent_id))), CONTROL, signal)

    def _refuse(self, topic: str, signal: Signal[Any], error: Refused) -> None:
        letter = dead_letter(
            error.reason,
            str(error),
            where=Where(topic, 0, self._sent),
            key=signal.key.encode(),
            value=encode(signal),
            limit_bytes=self.settings.limits.dead_letter_bytes,
            now=self.clock.now(),
            signal=signal,
        )
        self._written.append((letter.topic, decode(letter.value)))

    def _deliver_to(self, topic: str, place: Place, kind_index: int, signal: Signal[Any]) -> None:
        name, group = place
        self._groups[group].deliver((topic, 0), [(kind_index, [(name, signal, self._sent)])])

    def _settle(self) -> None:
        """Feed what agents wrote to the topics they listen to back to them, until nothing new comes."""
        fresh: deque[tuple[str, Signal[Any]]] = deque()
        for _ in range(_MOST_SIGNALS):
            for group in self._groups.values():
                group.release(snapshots=0)  # as if saved at once: a test wants to see it now
                fresh.extend((out.topic, decode(out.value)) for out in group.take_output())
            if not fresh:
                return
            topic, signal = fresh.popleft()
            self._written.append((topic, signal))
            if topic in _LISTENED:
                self._deliver(topic, signal)
            elif signal.type == REQUESTED:
                self._perform(signal)
        msg = f"one call set off more than {_MOST_SIGNALS} signals: do agents answer each other without end?"
        raise RuntimeError(msg)
