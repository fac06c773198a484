"""Alerts under fire: whatever is killed, each alert is raised once, told of in order, and as without any fault."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from schemas.signal import Signal
from signalbox.agents.monitor_agent import MonitorAgent
from signalbox.app import App
from signalbox.testing import Harness
from tests.support.chaos import PATIENCE_S, Chaos, Fault, MortalNode, plan_faults
from tests.support.chaos_check import AlertLedger, TopicLog
from tests.support.chaos_load import OpenLoop, host, reading, readings
from tests.support.eventually import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

_HOSTS = 200
_RATE = 400
#: So many hosts per second are new: without timers a host's alert is raised and escalated once, and no more.
_MOVING = 10
#: So long that no timer of a monitor fires: then alerts depend on the readings alone, and an oracle can tell them.
_WITHOUT_TIMERS = '{"check_interval": 3600000, "escalate_after": 3600000}'
#: So short that every monitor lives with its timers.
_WITH_TIMERS = '{"check_interval": 300, "escalate_after": 700}'


class _Run:
    """Readings go in, faults happen, alerts are taken down."""

    def __init__(self, node: MortalNode, rng: random.Random, stack: ExitStack, *, moving: float) -> None:
        self.source = f"load-{rng.randrange(1 << 32):08x}"
        self.node = node
        self.ledger = AlertLedger()
        self.alerts: list[Signal[Any]] = []
        self._rng = rng
        self._stack = stack
        self._log = TopicLog(node.bootstrap, f"{node.prefix}alerts")
        stack.callback(self._log.close)
        self.load = self.send(readings(_HOSTS, source=self.source, rate=_RATE, moving=moving))
        self.chaos = Chaos(rng, node, self.load)

    def send(self, make: Callable[[int], Signal[object]]) -> OpenLoop:
        """A further load, not yet started."""
        load = OpenLoop(self.node.bootstrap, f"{self.node.prefix}signals", make, rate=_RATE)
        self._stack.callback(load.close)
        return load

    def strike(self, faults: Sequence[Fault]) -> int:
        """Let the faults happen one after another, each when alerts flow; returns how many readings were sent."""
        self.load.start()
        for fault in faults:
            self._alerts_flow()
            self.load.run_for(self._rng.uniform(0, 3))
            self.chaos.strike(fault)
        return self.load.finish()

    def _alerts_flow(self) -> None:
        told = self.take_down()
        eventually(lambda: self.take_down() > told, timeout_s=PATIENCE_S)

    def take_down(self) -> int:
        """Read on; returns how many alert signals there are by now."""
        for written in self._log.read_on(timeout_s=PATIENCE_S):
            self.ledger.add(written)
            self.alerts.append(written.signal)
        self.ledger.check()
        return len(self.alerts)

    def alerts_sent(self) -> dict[str, int]:
        """How often each monitor that told of an alert says that it did."""
        path = "/api/v1/agents/monitor_agent:"
        return {name: self.node.get(f"{path}{name}")["state"]["alerts_sent"] for name in self.ledger.told}

    def report(self, name: str, sent: int) -> str:
        strikes = f"{len(self.chaos.strikes)} strikes ({self.chaos.count()})"
        return f"{name}: {strikes}, {sent} readings of {len(self.ledger.told)} hosts, {len(self.alerts)} alert signals"


def _by_host(alerts: Sequence[Signal[Any]]) -> dict[str | None, list[tuple[str, ...]]]:
    told: dict[str | None, list[tuple[str, ...]]] = defaultdict(list)
    for alert in alerts:
        evidence = [one["signal_id"] for one in alert.data["evidence"]]
        told[alert.subject].append((alert.type, alert.id, alert.data["alert_id"], alert.data["severity"], *evidence))
    return dict(told)


def _oracle(source: str, sent: int) -> Harness:
    """The same readings without Kafka, processes and faults."""
    harness = Harness(App(agents=[MonitorAgent], builtins=False))
    make = readings(_HOSTS, source=source, rate=_RATE, moving=_MOVING)
    for number in range(sent):
        signal = make(number)
        harness.send(signal.type, signal.data, subject=signal.subject, id=signal.id, source=source)
    return harness


def test_alerts_are_those_of_a_run_without_faults(
    make_node: Callable[..., MortalNode],
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """Hundreds of flapping hosts give exactly the alerts of an oracle, in its order, and leave the same state."""
    node = make_node(settings={"agents.monitor_agent.state": _WITHOUT_TIMERS})
    run = _Run(node, rng, closing, moving=_MOVING)
    sent = run.strike(plan_faults(rng, max(2, rounds // 2), broker=0))
    oracle = _oracle(run.source, sent)
    expected = _by_host(oracle.emitted("alert.**"))
    told = sum(map(len, expected.values()))
    eventually(lambda: run.take_down() >= told, timeout_s=PATIENCE_S)
    assert _by_host(run.alerts) == expected
    assert run.alerts_sent() == {name: len(alerts) for name, alerts in expected.items()}
    node.drain()
    assert run.take_down() == told
    summarize(run.report("alerts", sent))


def test_an_alert_lives_once_whatever_is_killed(
    make_node: Callable[..., MortalNode],
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """With timers that escalate and resolve, each alert is raised once, told of in order, and resolved in the end."""
    node = make_node(settings={"agents.monitor_agent.state": _WITH_TIMERS})
    run = _Run(node, rng, closing, moving=0)
    sent = run.strike(plan_faults(rng, max(2, rounds // 2), broker=0))
    calm = run.send(lambda number: reading(sent + number, host(number % _HOSTS), 0.5, source=run.source))
    calm.start()
    eventually(lambda: run.take_down() > 0 and calm.sent > _HOSTS and not run.ledger.open, timeout_s=PATIENCE_S)
    calm.finish()
    assert run.alerts_sent() == dict(run.ledger.told)
    node.drain()
    run.take_down()
    summarize(run.report("alerts with timers", sent))
