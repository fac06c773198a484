"""Alerts under fire: whatever is killed, an alert is raised once, told of in order, and resolved in the end."""

import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.support.chaos import PATIENCE_S, Chaos, MortalBroker, MortalNode, plan_faults
from tests.support.chaos_check import AlertLedger, TopicLog
from tests.support.chaos_load import OpenLoop, host, reading, readings
from tests.support.eventually import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

_HOSTS = 200
_RATE = 400
#: Short, so that alerts come and go within the test: calm after half a second, overdue after four.
_STATE = '{"check_interval": 500, "escalate_after": 4000}'


def test_an_alert_lives_once_whatever_is_killed(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """Of 200 flapping hosts each has at most one open alert, raised before it is resolved, and state agrees."""
    node = make_node(settings={"agents.monitor_agent.state": _STATE, "telemetry.actions": "false"})
    source = f"load-{rng.randrange(1 << 32):08x}"
    load = OpenLoop(node.bootstrap, f"{node.prefix}signals", readings(_HOSTS, source=source, rate=_RATE), rate=_RATE)
    closing.callback(load.close)
    log = TopicLog(node.bootstrap, f"{node.prefix}alerts")
    closing.callback(log.close)
    ledger = AlertLedger()

    def take_down() -> int:
        for written in log.read_on(timeout_s=PATIENCE_S):
            ledger.add(written)
        ledger.check()
        return sum(ledger.told.values())

    chaos = Chaos(rng, node, load, broker)
    load.start()
    for fault in plan_faults(rng, max(2, rounds // 2), broker=0):
        told = take_down()
        eventually(lambda told=told: take_down() > told, timeout_s=PATIENCE_S)
        load.run_for(rng.uniform(0, 3))
        chaos.strike(fault)
    sent = load.finish()
    calm = OpenLoop(
        node.bootstrap,
        f"{node.prefix}signals",
        lambda number: reading(sent + number, host(number % _HOSTS), 0.5, source=source),
        rate=_HOSTS,
    )
    closing.callback(calm.close)
    calm.start()
    eventually(lambda: take_down() > 0 and calm.sent > _HOSTS and not ledger.open, timeout_s=PATIENCE_S)
    calm.finish()
    assert _alerts_sent(node) == dict(ledger.told)
    node.drain()
    take_down()
    alerts = sum(state == "resolved" for state in ledger.state.values())
    summarize(f"alerts: {chaos.count()}, {sent} readings, {sum(ledger.told.values())} alert signals, {alerts} resolved")


def _alerts_sent(node: MortalNode) -> dict[str, int]:
    """How often each host's monitor says that it told of an alert."""
    states = {host(number): node.get(f"/api/v1/agents/monitor_agent:{host(number)}") for number in range(_HOSTS)}
    return {name: agent["state"]["alerts_sent"] for name, agent in states.items() if agent["state"]["alerts_sent"]}
