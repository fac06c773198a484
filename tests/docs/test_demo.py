"""The README shows what `make demo` prints."""

import doctest
import os
import signal
import subprocess
import sys

import pytest

from connectors.brokers.embedded import EmbeddedBroker
from signalbox.errors import ConfigError
from tests.support.pages import ROOT, commands

_TIMEOUT_S = 90


@pytest.mark.slow
@pytest.mark.timeout(_TIMEOUT_S + 30)
def test_the_readme_shows_the_demo(tmp_path):
    """The demo ends by itself within 90 seconds, with exit 0 and the lines of the README: nothing lost or doubled."""
    try:
        EmbeddedBroker(tmp_path).prepare()
    except ConfigError as error:
        pytest.skip(f"no embedded broker: {error}")
    [shown] = [command.answer for command in commands(ROOT / "README.md") if command.line == "make demo"]
    demo = subprocess.Popen(
        [sys.executable, "-m", "signalbox.cli", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo:
        try:
            printed, _ = demo.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            demo.send_signal(signal.SIGINT)
            raise
    assert demo.returncode == 0, printed
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(shown, printed, flags), printed
    assert list(tmp_path.iterdir()) == []
