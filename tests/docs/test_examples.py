"""The examples run as their pages say, in a folder outside the project."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.brokers.embedded import EmbeddedBroker
from signalbox.errors import ConfigError
from tests.support.eventually import eventually
from tests.support.pages import ROOT, blocks, file_name

EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*"))
THERMOSTAT = ROOT / "examples" / "01-thermostat"


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_tests_of_an_example_pass(example, tmp_path, environment):
    """`python -m pytest` in a copy of the folder is green, and there is something to run."""
    folder = shutil.copytree(example, tmp_path / example.name, ignore=shutil.ignore_patterns("__pycache__"))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_shows_the_example():
    """The agent in the README is the file of the example, and has fifteen lines besides its docstring."""
    [shown] = [block for block in blocks(ROOT / "README.md", "python") if file_name(block) == "thermostat.py"]
    text = (THERMOSTAT / "thermostat.py").read_text()
    assert shown == f"# thermostat.py\n{text}"
    docstrings = [ast.get_docstring(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    lines = [line for line in text.splitlines() if line.strip() and line.strip().strip('"') not in docstrings]
    assert len(lines) == 15


@pytest.mark.slow
def test_a_users_agent_runs_on_a_node(tmp_path, environment):
    """What the README shows: `signalbox up --app thermostat:app` heats a room that a signal says is cold."""
    try:
        EmbeddedBroker(tmp_path).prepare()
    except ConfigError as error:
        pytest.skip(f"no embedded broker: {error}")
    folder = shutil.copytree(THERMOSTAT, tmp_path / "mine")
    command = [sys.executable, "-m", "signalbox.cli"]

    def run(*words: str) -> str:
        result = subprocess.run(
            [*command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    with (tmp_path / "stderr").open("w") as stderr:
        node = subprocess.Popen(
            [*command, "up", "--app", "thermostat:app", "--http", "127.0.0.1:0"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with node:
        try:
            assert node.stdout is not None
            assert node.stdout.readline().startswith("ready "), (tmp_path / "stderr").read_text()
            run("signal", "send", "room.temperature", "--subject", "kitchen", "--data", '{"celsius": 15}')
            tail = ("topic", "tail", "signals", "--from", "start", "--pattern", "heating.*", "--count", "1")
            heating = json.loads(run(*tail, "--timeout", "30", "-o", "jsonl"))
            assert (heating["type"], heating["subject"]) == ("heating.on", "kitchen")
            state = eventually(
                lambda: json.loads(run("agent", "state", "thermostat:kitchen", "-o", "json")), timeout_s=20
            )
            assert state == {"heating": True}
        finally:
            node.send_signal(signal.SIGTERM)
        assert node.wait(30) == 0


def test_every_example_has_a_page():
    """A folder that nobody explains is no example."""
    assert EXAMPLES
    assert [example.name for example in EXAMPLES if not Path(example / "README.md").is_file()] == []
