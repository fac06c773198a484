"""`up`: which node its words describe. The node itself is tested where it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signalbox.config import Settings
from signalbox.errors import Conflict
from signalbox.supervision import node as node_module
from tests.unit.signalbox.cli.conftest import Cli


class FakeNode:
    """Remembers how it was made, and is ready at once."""

    made: "list[FakeNode]" = []  # noqa: RUF012  # emptied by the fixture
    refuse = False

    def __init__(self, settings: Settings, *, flows: Any) -> None:
        self.settings, self.flows = settings, flows
        FakeNode.made.append(self)

    def run(self, on_ready: Callable[[str], None]) -> None:
        if FakeNode.refuse:
            msg = "the data directory is in use by node n (process 1)"
            raise Conflict(msg, hint="stop it")
        on_ready("ready http://127.0.0.1:1 kafka 127.0.0.1:2")


@pytest.fixture(autouse=True)
def _fake_node(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNode.made, FakeNode.refuse = [], False
    monkeypatch.setattr(node_module, "Node", FakeNode)


def settings_of(cli: Cli, *words: str, **more: Any) -> Settings:
    result = cli("up", *words, **more)
    assert result.exit_code == 0, result.stderr
    return FakeNode.made[-1].settings


def test_one_line_on_stdout_when_ready(bare_cli: Cli) -> None:
    """The ready line is all that stdout gets."""
    result = bare_cli("up")
    assert (result.exit_code, result.stdout) == (0, "ready http://127.0.0.1:1 kafka 127.0.0.1:2\n")
    assert FakeNode.made[0].flows == ["agents", "scaling"]


def test_words_become_settings(bare_cli: Cli) -> None:
    """Every option of `up` is a setting of the node."""
    settings = settings_of(bare_cli, "--http", "0.0.0.0:81", "--workers", "3", "--flows", "agents", "--data-dir", "d")
    assert (settings.http.host, settings.http.port, settings.flows.agents.workers) == ("0.0.0.0", 81, 3)
    assert settings.node.data_dir == Path("d")
    assert settings_of(bare_cli, "--http", "[::1]:0").http.host == "::1"


@pytest.mark.parametrize(
    ("words", "kind", "bootstrap"),
    [
        ((), "embedded", None),
        (("--broker", "embedded"), "embedded", None),
        (("--broker", "kafka"), "kafka", None),
        (("--broker", "b:1"), "external", "b:1"),
        (("--bootstrap", "b:1,c:2"), "external", "b:1,c:2"),
        (("--broker", "kafka", "--profile", "prod"), "kafka", None),
    ],
)
def test_broker_is_a_kind_or_an_address(
    bare_cli: Cli, words: tuple[str, ...], kind: str, bootstrap: str | None
) -> None:
    """A kind is run by the node, an address is somebody else's."""
    kafka = settings_of(bare_cli, *words).kafka
    assert kafka.broker == kind
    assert bootstrap is None or kafka.bootstrap == bootstrap


@pytest.mark.parametrize(("words", "level"), [((), "info"), (("-v",), "debug"), (("-q",), "error")])
def test_verbosity_is_the_log_level(bare_cli: Cli, words: tuple[str, ...], level: str) -> None:
    """-v and -q say how much a node logs."""
    assert settings_of(bare_cli, *words).log.level == level


def test_set_wins_over_verbosity(bare_cli: Cli) -> None:
    """A setting named outright counts more than -v."""
    assert settings_of(bare_cli, "-v", "--set", "log.level=warning").log.level == "warning"


def test_app_of_the_present_folder_is_found(bare_cli: Cli, tmp_path: Path) -> None:
    """A user's module lies beside where the command is run."""
    (tmp_path / "up_test_app.py").write_text("from signalbox.app import App\napp = App()\n")
    assert settings_of(bare_cli, "--app", "up_test_app:app").node.app == "up_test_app:app"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--broker", "nonsense"), 2),
        (("--http", "8080"), 2),
        (("--http", "host:port"), 2),
        (("--flows", "agents,nonsense"), 2),
        (("--workers", "0"), 2),
        (("--http", "host:99999"), 3),
        (("--app", "nonsense"), 3),
        (("--app", "no_such_module:app"), 3),
        (("--set", "kafka.nonsense=1"), 3),
        (("--set", "agents.nobody.size=1"), 3),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(bare_cli: Cli, words: tuple[str, ...], code: int) -> None:
    """Wrong words end with 2, a wrong configuration with 3, and no node is made."""
    result = bare_cli("up", *words)
    assert (result.exit_code, result.stdout, FakeNode.made) == (code, "", [])


def test_second_node_is_refused_with_7(bare_cli: Cli) -> None:
    """A data directory in use ends with 7 and names the owner."""
    FakeNode.refuse = True
    result = bare_cli("up")
    assert (result.exit_code, result.stdout, "node n (process 1)" in result.stderr) == (7, "", True)
