"""The generated reference of the command line."""

from pathlib import Path

import pytest
import typer

from signalbox import errors
from signalbox.cli import reference
from signalbox.cli.main import EXIT_CODES, app


def test_reference_is_up_to_date() -> None:
    """`docs/reference/cli.md` says what the code says; if not, run `python -m signalbox.cli.reference`."""
    assert reference.main(["--check"]) == 0


def test_drift_is_noticed_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check fails on a file that differs and names the command, which then writes it."""
    file = tmp_path / "docs" / "cli.md"
    assert reference.main(["--check"], file=file) == 1
    assert reference.COMMAND in capsys.readouterr().err
    assert reference.main([], file=file) == 0
    assert reference.main(["--check"], file=file) == 0


def test_every_command_has_a_chapter() -> None:
    """No command is missing from the reference, nor any of its options and their variables."""
    text = reference.reference()

    def check(group: object, words: str) -> None:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                check(command, f"{words} {name}")
                continue
            assert f"\n### {words} {name}\n" in text
            for option in command.params:
                assert all(f"`{one}`" in text for one in option.opts if one.startswith("-"))

    check(typer.main.get_command(app), "signalbox")


def test_every_exit_code_is_listed() -> None:
    """The codes of all errors are in the table, besides success and interruption."""
    kinds = [errors.SignalboxError, *errors.SignalboxError.__subclasses__()]
    assert set(EXIT_CODES) == {0, 130, *(kind.exit_code for kind in kinds if kind.__module__ == errors.__name__)}
