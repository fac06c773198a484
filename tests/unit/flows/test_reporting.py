"""What a worker tells about itself."""

from typing import Any

from flows.reporting import ResourceReport
from schemas.signal import Signal
from signalbox.config import Settings
from signalbox.telemetry.metrics import CHILDREN
from tests.support.resources import make_manager


def test_resources_are_reported():
    """Tokens by pool and state, and memory, are on `/metrics` as they are at the moment."""
    manager = make_manager(pools={"p": {"tokens": 4}, "q": {"tokens": 2}})
    report = ResourceReport(manager, Settings(), "agents-0", lambda topic, signal: None)
    token = manager.try_acquire("p", 3, holder="a")
    for used in (3, 0):
        report.report()
        told = {
            (pool, state): CHILDREN.get_sample_value("signalbox_resource_tokens", {"pool": pool, "state": state})
            for pool in ("p", "q")
            for state in ("used", "waiting", "total")
        }
        assert told == {
            ("p", "used"): used,
            ("p", "waiting"): 0,
            ("p", "total"): 4,
            ("q", "used"): 0,
            ("q", "waiting"): 0,
            ("q", "total"): 2,
        }
        assert CHILDREN.get_sample_value("signalbox_resource_memory_ratio") == 0.1
        manager.release(token)


def test_the_monitor_is_told_of_a_change_at_once():
    """Levels are told at the start and when one of them changes; in between, only now and then."""
    told: list[tuple[str, Signal[Any]]] = []
    manager = make_manager(pools={"p": {"tokens": 2}})
    settings = Settings.model_validate({"node": {"name": "n1"}})
    report = ResourceReport(manager, settings, "agents-0", lambda topic, signal: told.append((topic, signal)))
    report.report()
    report.report()
    manager.try_acquire("p", 2, holder="a")
    report.report()
    assert [topic for topic, _ in told] == ["signals", "signals"]
    levels = [{one.resource: one.level for one in signal.data.levels} for _, signal in told]
    assert [level["pool.p"] for level in levels] == ["normal", "warning"]
    assert {signal.subject for _, signal in told} == {"n1/agents-0"}
