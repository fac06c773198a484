"""The names that users import. One that goes, or comes, is a change of the public interface: the changelog tells it."""

import importlib

import pytest

PUBLIC = {
    "signalbox.actions": [
        "BUILTIN_ACTIONS",
        "Action",
        "ActionContext",
        "ActionError",
        "Breaker",
        "Dependency",
        "Rate",
        "Retry",
        "action",
    ],
    "signalbox.agents": [
        "Agent",
        "AgentState",
        "CancelAction",
        "CancelTimer",
        "Context",
        "Directive",
        "Emit",
        "FoundationAgent",
        "Keyed",
        "Pool",
        "Reply",
        "RunAction",
        "Schedule",
        "Singleton",
        "Skill",
        "Spawn",
        "Stop",
        "data",
        "minutes",
        "on",
        "seconds",
        "state",
    ],
    "signalbox.resources": [
        "MemoryWatch",
        "PoolUsage",
        "ResourceExhausted",
        "ResourceManager",
        "ResourceReading",
        "Token",
        "level_of",
        "share",
    ],
    "signalbox.routing": [
        "Condition",
        "ConditionError",
        "InvalidCondition",
        "InvalidPattern",
        "Operand",
        "Pattern",
        "Route",
        "Router",
        "data",
        "is_valid_type",
        "state",
    ],
    "signalbox.sensors": [
        "BUILTIN_SENSORS",
        "LoadSensor",
        "ResourceUsageSensor",
        "SampleContext",
        "Sensor",
        "SystemHealthSensor",
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these(module):
    """A package exports exactly the names that are promised, sorted, and each exists."""
    package = importlib.import_module(module)
    assert package.__all__ == PUBLIC[module]
    assert all(hasattr(package, name) for name in package.__all__)


def test_what_the_readme_imports_is_there():
    """The two objects that live in modules of their own."""
    assert importlib.import_module("signalbox.app").App
    assert importlib.import_module("signalbox.testing").Harness
