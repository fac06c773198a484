"""The command line run in this process, against a broker in memory and without anything of the real surroundings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from signalbox import plugins
from signalbox.cli.main import app
from tests.support.fakes import MemoryAdmin, MemoryBroker, MemoryPublisher, MemoryReader

TOPICS = (
    "signals",
    "alerts",
    "scaling",
    "results",
    "telemetry",
    "control",
    "effects",
    "registry",
    "dead-letters",
)

Cli = Callable[..., Result]


@pytest.fixture
def bare_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, input: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=input, env=env)

    return run


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """A broker with the topics of a node, used by every command of the test."""
    memory = MemoryBroker(TOPICS)
    monkeypatch.setattr(plugins, "publisher", lambda _kafka: MemoryPublisher(memory))
    monkeypatch.setattr(plugins, "reader", lambda _kafka: MemoryReader(memory))
    monkeypatch.setattr(plugins, "admin", lambda _kafka: MemoryAdmin(memory))
    return memory


@pytest.fixture
def cli(bare_cli: Cli, broker: MemoryBroker) -> Cli:
    """The command line with `--bootstrap` given, so that it talks to the broker in memory."""

    def run(*words: str, **more: Any) -> Result:
        return bare_cli("--bootstrap", "memory:1", *words, **more)

    return run
