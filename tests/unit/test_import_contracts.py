"""The import contracts of pyproject.toml hold for this tree, and catch a breach of each that is planted in a copy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "signalbox", "connectors", "flows")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

LAYERS = "flows over connectors over core over schemas"
ROOMS = "the rooms of the core, from what a user touches down to what everybody needs"
PURE = "the core knows neither the engine nor the broker"
PORTS = "adapters see ports, not policy"
ENGINE = "only the source and the sink know the engine, among the connectors"
CLIENT = "only the intake knows the Kafka client, among the flows"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the contracts are about."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "json"))
    return copy


def broken(tree: Path) -> set[str]:
    """The names of the contracts that do not hold."""
    result = subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Contracts: " in result.stdout, result.stdout + result.stderr
    found = {match[1] for match in re.finditer(r"^(.+) BROKEN(?: \(.*\))?$", result.stdout, re.MULTILINE)}
    assert result.returncode == bool(found)
    return found


def test_the_contracts_hold(tree):
    """The tree as it is breaks no contract."""
    assert broken(tree) == set()


@pytest.mark.parametrize(
    ("module", "imported", "contracts"),
    [
        ("schemas/control.py", "signalbox.ids", {LAYERS}),
        ("connectors/kafka/offsets.py", "flows.intake", {LAYERS}),
        ("signalbox/agents/group.py", "confluent_kafka", {PURE}),
        ("signalbox/routing/trie.py", "bytewax.operators", {PURE}),
        ("signalbox/agents/group.py", "signalbox.cli.output", {ROOMS}),
        ("signalbox/sensors/buffer.py", "signalbox.agents.stats", {ROOMS}),
        ("connectors/kafka/reader.py", "signalbox.routing", {PORTS}),
        ("connectors/kafka/admin.py", "bytewax.inputs", {ENGINE}),
        ("flows/worker.py", "confluent_kafka", {CLIENT}),
    ],
)
def test_a_planted_breach_is_caught(tree, module, imported, contracts):
    """An import that a contract forbids is reported under that contract's name."""
    path = tree / module
    text = path.read_text()
    try:
        path.write_text(f"{text}\nimport {imported}\n")
        assert broken(tree) == contracts
    finally:
        path.write_text(text)


def test_a_new_room_needs_a_place(tree):
    """A module of the core that no layer names is reported."""
    path = tree / "signalbox" / "attic.py"
    try:
        path.write_text('"""Has no place."""\n')
        assert broken(tree) == {ROOMS}
    finally:
        path.unlink()
