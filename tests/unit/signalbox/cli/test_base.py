"""Global options, errors and exit codes, whatever the command."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from signalbox import errors
from signalbox.cli.base import GLOBAL_PANEL
from signalbox.cli.main import app
from signalbox.cli.session import Session
from tests.unit.signalbox.cli.conftest import Cli

ERRORS = [
    (errors.SignalboxError, 1),
    (errors.UsageError, 2),
    (errors.ConfigError, 3),
    (errors.Unreachable, 4),
    (errors.NotFound, 5),
    (errors.ConditionNotMet, 6),
    (errors.Conflict, 7),
    (errors.StateDamaged, 8),
    (errors.DeadlineExceeded, 124),
]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `config show` raise this."""

    def fail(_self: Session) -> Any:
        raise error

    monkeypatch.setattr(Session, "settings", fail)


def all_commands() -> list[tuple[str, Any]]:
    """Every command and group below the root, with its words."""
    found = []
    waiting = [(name, command) for name, command in typer.main.get_command(app).commands.items()]
    while waiting:
        words, command = waiting.pop()
        found.append((words, command))
        waiting += [(f"{words} {name}", inner) for name, inner in getattr(command, "commands", {}).items()]
    return found


@pytest.mark.parametrize(("kind", "code"), ERRORS, ids=lambda value: getattr(value, "__name__", None))
def test_error_becomes_message_hint_and_exit_code(
    bare_cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: type[errors.SignalboxError], code: int
) -> None:
    """An error of ours is two plain lines on stderr and its own exit code, and nothing on stdout."""
    failing(monkeypatch, kind("the thing is off", hint="switch it on"))
    result = bare_cli("config", "show")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == "error: the thing is off\nhint: switch it on\n"


def test_every_error_is_covered() -> None:
    """No error of ours is missing from the table above."""

    def below(kind: type[errors.SignalboxError]) -> set[type[errors.SignalboxError]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__() if one.__module__ == errors.__name__))

    assert below(errors.SignalboxError) == {kind for kind, _ in ERRORS}


def test_interrupt_ends_with_130(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and without a traceback."""
    failing(monkeypatch, KeyboardInterrupt())
    result = bare_cli("config", "show")
    assert (result.exit_code, result.output) == (130, "")


def test_unexpected_error_is_one_line(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours is told in a line, and the traceback only with -v."""
    failing(monkeypatch, KeyError("x"))
    short = bare_cli("config", "show")
    assert (short.exit_code, short.stderr.splitlines()[0]) == (1, "error: unexpected KeyError: 'x'")
    assert "Traceback" not in short.stderr
    long = bare_cli("-v", "config", "show")
    assert (long.exit_code, "Traceback" in long.stderr) == (1, True)


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("topic", "tail"), ("topic", "tail", "signals", "--count", "0"), ("config", "show", "--nonsense")],
)
def test_wrong_words_are_usage_errors(bare_cli: Cli, words: tuple[str, ...]) -> None:
    """Words that no command takes end with 2, say what is wrong and where help is."""
    result = bare_cli(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert "--help" in result.stderr


def test_wrong_output_format_is_a_usage_error(bare_cli: Cli) -> None:
    """An output format that does not exist ends with 2."""
    assert bare_cli("-o", "xml", "config", "show").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "node.name=here", "-o", "json", "config", "show"),
        ("config", "--set", "node.name=here", "-o", "json", "show"),
        ("config", "show", "--set", "node.name=here", "-o", "json"),
        ("--set", "node.name=there", "-o", "yaml", "config", "show", "-o", "json", "--set", "node.name=here"),
    ],
)
def test_global_options_stand_on_either_side(bare_cli: Cli, words: tuple[str, ...]) -> None:
    """A global option may come before or after the command, and the later one wins."""
    assert json.loads(bare_cli(*words).stdout)["node"]["name"] == "here"


def test_set_collects_from_both_sides(bare_cli: Cli) -> None:
    """Settings given with --set before and after the command all count."""
    result = bare_cli("--set", "node.name=here", "config", "show", "--set", "kafka.partitions=3", "-o", "json")
    values = json.loads(result.stdout)
    assert (values["node"]["name"], values["kafka"]["partitions"]) == ("here", 3)


def test_environment_gives_options_and_the_command_line_wins(bare_cli: Cli) -> None:
    """A global option can come from its variable, and a word on the command line overrides it on either side."""
    env = {"SIGNALBOX_OUTPUT": "json", "SIGNALBOX_SET": "node.name=here kafka.partitions=3"}
    values = json.loads(bare_cli("config", "show", env=env).stdout)
    assert (values["node"]["name"], values["kafka"]["partitions"]) == ("here", 3)
    env = {"SIGNALBOX_OUTPUT": "yaml"}
    assert json.loads(bare_cli("-o", "json", "config", "show", env=env).stdout)
    assert json.loads(bare_cli("config", "show", "-o", "json", env=env).stdout)


@pytest.mark.parametrize("word", ["nonsense", "=x"])
def test_set_without_a_name_and_value_is_refused(bare_cli: Cli, word: str) -> None:
    """--set takes NAME=VALUE and says so."""
    result = bare_cli("config", "show", "--set", word)
    assert (result.exit_code, "NAME=VALUE" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "command"), all_commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_flag_has_a_variable_and_help(bare_cli: Cli, words: str, command: Any) -> None:
    """Every command's help explains each option and names its SIGNALBOX_ variable."""
    result = bare_cli(*words.split(), "--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for option in command.params:
        if option.param_type_name == "option":
            assert option.help, option.name
            variable = option.envvar or f"SIGNALBOX_{words.replace(' ', '_').upper()}_{option.name.upper()}"
            assert variable in text, option.name
    assert f"{GLOBAL_PANEL}:" in result.stdout


def test_command_flag_comes_from_its_variable(cli: Cli) -> None:
    """An option of a command can be set by its own variable."""
    result = cli("signal", "send", "a.b", env={"SIGNALBOX_SIGNAL_SEND_ID": "from-env"})
    assert result.stdout == "from-env\n"


def test_help_and_version_do_not_import_what_is_heavy() -> None:
    """Help and version come without the settings, the agents, the engine, the broker's client or rich."""
    script = (
        "import sys\n"
        "from signalbox.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "for words in (['--help'], ['--version'], ['topic', 'tail', '--help']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0\n"
        "heavy = {'signalbox.config', 'bytewax', 'confluent_kafka', 'rich', 'starlette', 'uvicorn', 'psutil'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_reader_that_goes_away_is_no_error() -> None:
    """A closed stdout, as behind `head`, ends the command silently and with 0."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed_pipe:
        result = subprocess.run(
            [sys.executable, "-m", "signalbox.cli", "config", "show"],
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (0, "")


def test_version_option_names_the_program() -> None:
    """--version prints name and version."""
    result = CliRunner().invoke(app, ["--version"], env={"SIGNALBOX_VERSION": "1"})
    assert result.stdout.startswith("signalbox ")


@pytest.mark.parametrize("words", [("route", "list"), ("doctor",), ("config", "show"), ("--help",)])
def test_no_colour_unless_on_a_terminal(bare_cli: Cli, words: tuple[str, ...]) -> None:
    """What is not written to a terminal holds no escape sequences."""
    assert "\x1b" not in bare_cli(*words).output


def test_shells_can_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells are given a script for completion, which asks for the commands and options that fit."""
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    script = CliRunner().invoke(app, ["--show-completion"])
    assert (script.exit_code, "_SIGNALBOX_COMPLETE" in script.stdout) == (0, True)
    env = {"_SIGNALBOX_COMPLETE": "complete_bash", "COMP_WORDS": "signalbox topic tail --boot", "COMP_CWORD": "3"}
    asked = CliRunner().invoke(app, [], env=env)
    assert (asked.exit_code, asked.stdout.split()) == (0, ["--bootstrap"])
