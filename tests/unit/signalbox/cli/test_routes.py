"""`route test`, `route list` and `route which`."""

import json
from pathlib import Path

import pytest

from tests.unit.signalbox.cli.conftest import Cli

APP = '''
from signalbox.agents import Agent, AgentState, data, on
from signalbox.app import App

class Thermostat(Agent):
    """Heats."""
    class State(AgentState):
        heating: bool = False

    @on("room.temperature", when=data("celsius") < 18, priority=5)
    def too_cold(self, state, signal, context): ...

    @on("room.*")
    def anything(self, state, signal, context): ...

app = App(agents=[Thermostat])
'''


@pytest.fixture
def own_app(tmp_path: Path) -> str:
    (tmp_path / "route_test_agents.py").write_text(APP)
    return "node.app=route_test_agents:app"


@pytest.mark.parametrize(
    ("pattern", "type", "code", "word"),
    [
        ("room.*.hot", "room.kitchen.hot", 0, "yes\n"),
        ("**", "a", 0, "yes\n"),
        ("room.*", "room.a.b", 6, "no\n"),
        ("room.*", "not a type", 6, "no\n"),
        ("a.*b", "a.b", 2, ""),
        ("", "a", 2, ""),
    ],
)
def test_test_says_yes_no_or_invalid(bare_cli: Cli, pattern: str, type: str, code: int, word: str) -> None:
    """A match is exit 0, none is 6, an invalid pattern 2 with the reason on stderr."""
    result = bare_cli("route", "test", pattern, type)
    assert (result.exit_code, result.stdout) == (code, word)
    assert result.stderr.startswith("error: the pattern") == (code == 2)


def test_file_form_judges_every_line(bare_cli: Cli) -> None:
    """One word per line, in order; nothing is stripped from a field, and empty ones are fields too."""
    lines = ["a.*\ta.b", "a.*\tb", "a..b\ta", "\ta", "**\t", "a \ta ", "a\ta ", "no tab", "a\ta\tb", "a.b\ta.b"]
    for text in ("\n".join(lines), "\r\n".join(lines) + "\r\n"):
        result = bare_cli("route", "test", "--file", "-", input=text)
        assert result.exit_code == 0
        assert result.stdout.split() == [
            "yes",
            "no",
            "invalid",
            "invalid",
            "no",
            "invalid",
            "no",
            "invalid",
            "no",
            "yes",
        ]


def test_file_form_survives_any_bytes(bare_cli: Cli, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and line ends that only Unicode knows, are characters that no pattern allows."""
    (tmp_path / "f.tsv").write_bytes(b"a\ta\n\xff\ta\na\ta\x85\xe2\x80\xa8\na\ta")
    assert bare_cli("route", "test", "--file", "f.tsv").stdout.split() == ["yes", "invalid", "no", "yes"]


@pytest.mark.parametrize("words", [("a",), (), ("a", "b", "--file", "-")])
def test_incomplete_words_are_refused(bare_cli: Cli, words: tuple[str, ...]) -> None:
    """Either a pattern and a type, or a file."""
    assert bare_cli("route", "test", *words).exit_code == 2


def test_list_shows_the_order_of_routes(bare_cli: Cli, own_app: str) -> None:
    """All routes of the app are listed as they are tried, with what decides the order."""
    rows = json.loads(bare_cli("route", "list", "--set", own_app, "-o", "json").stdout)
    assert [row["order"] for row in rows] == list(range(1, len(rows) + 1))
    first, second = [row for row in rows if row["agent"] == "thermostat"]
    assert (first["handler"], first["pattern"], first["priority"]) == ("too_cold", "room.temperature", 5)
    assert (second["handler"], second["condition"]) == ("anything", None)
    assert "celsius" in first["condition"]
    assert first["specificity"] > second["specificity"]


def test_which_tells_who_handles_a_type(bare_cli: Cli, own_app: str) -> None:
    """Only the routes that match are shown, and a type that nobody handles ends with 6 and says why."""
    rows = json.loads(bare_cli("route", "which", "room.humidity", "--set", own_app, "-o", "json").stdout)
    assert [row["handler"] for row in rows] == ["anything"]
    for type, why in (("garden.light", "no pattern matches"), ("no type", "not a valid type")):
        result = bare_cli("route", "which", type, "--set", own_app)
        assert (result.exit_code, why in result.stderr) == (6, True)


def test_app_that_cannot_be_loaded_is_a_configuration_error(bare_cli: Cli, tmp_path: Path) -> None:
    """An import string that names nothing, or something else, ends with 3."""
    (tmp_path / "route_test_no_app.py").write_text("app = 1")
    for reference in ("no_such_module:app", "route_test_no_app:app", "route_test_no_app:other", "nonsense"):
        result = bare_cli("route", "list", "--set", f"node.app={reference}")
        assert (result.exit_code, "hint: " in result.stderr) == (3, True)


def test_the_routes_of_the_autoscaler_are_listed(bare_cli: Cli) -> None:
    """It has a flow of its own, and still is who handles what is said about load, under its skill's name."""
    result = bare_cli("-o", "json", "route", "which", "system.load.high")
    [row] = json.loads(result.stdout)
    assert (row["agent"], row["handler"], row["priority"]) == ("autoscaler", "auto_scaling.scale_up", 100)
    listed = json.loads(bare_cli("-o", "json", "route", "list").stdout)
    assert {"agent.queue.overflow", "task.submitted"} <= {row["pattern"] for row in listed}
