"""The flow under the engine's own runner, without a supervisor and without our worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.worker import RECOVERY_PARTITIONS
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.worker import PATIENCE_S, System, task_ids, tasks

pytestmark = pytest.mark.kafka
_ROOT = Path(__file__).parents[3]


def _environment(system: System) -> dict[str, str]:
    settings = system.settings
    return {
        **os.environ,
        "SIGNALBOX_KAFKA__BOOTSTRAP": settings.kafka.bootstrap,
        "SIGNALBOX_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "SIGNALBOX_NODE__DATA_DIR": str(settings.node.data_dir),
        "SIGNALBOX_NODE__NAME": "n1",
    }


def _run(system: System, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", "flows.agents:flow", *words],
            cwd=_ROOT, env=_environment(system), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip


def test_the_stock_runner_runs_the_flow(make_system: MakeSystem, tmp_path: Path) -> None:
    """`python -m bytewax.run flows.agents:flow`, with settings from the environment, answers tasks."""
    system, log = make_system(), tmp_path / "log"
    process = _run(system, log)
    try:
        system.send(tasks(0, 50))
        eventually(lambda: system.answers().total() >= 50 or process.poll() is not None, timeout_s=PATIENCE_S)
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
    system.await_answers(task_ids(50))


def test_the_stock_runner_recovers_too(make_system: MakeSystem, tmp_path: Path) -> None:
    """With the engine's own recovery option a killed run goes on where it was, and answers each task once."""
    system, log = make_system(), tmp_path / "log"
    recovery = tmp_path / "engine"
    recovery.mkdir()
    subprocess.run(
        [sys.executable, "-m", "bytewax.recovery", str(recovery), str(RECOVERY_PARTITIONS)], check=True, timeout=60
    )
    for number in range(2):
        process = _run(system, log, "-r", str(recovery), "-s", "1", "-b", "0")
        try:
            system.send(tasks(number * 50, 50))
            eventually(
                lambda number=number, process=process: (
                    system.answers().total() >= 50 * (number + 1) or process.poll() is not None
                ),
                timeout_s=PATIENCE_S,
            )
            assert process.poll() is None, log.read_text()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    system.await_answers(task_ids(100))


def test_the_module_needs_no_broker_to_be_imported() -> None:
    """Importing the flow's module connects to nothing; only asking for `flow` does, and other names are unknown."""
    from flows import agents  # noqa: PLC0415 - the import is what is tested

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = agents.nonsense
