"""What the pages show is true: their Python runs, their settings load, their commands exist and answer as shown.

Run are the commands that need neither a node nor a broker; of all others, names and options are checked.
"""

import doctest
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from signalbox.cli.main import app
from signalbox.config import load_settings
from tests.support.pages import ROOT, blocks, commands, file_name, links, pages

PAGES = pages()
#: Commands that answer the same on every machine.
OFFLINE = {("route", "test"), ("route", "which"), ("route", "list"), ("check",)}
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def having(language: str) -> Any:
    found = [page for page in PAGES if blocks(page, language)]
    return pytest.mark.parametrize("page", found, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reader's present folder, from which Python imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write_files(page: Path, folder: Path) -> None:
    """Put the files that the page is about into the folder: its blocks that are files, and those that lie beside it."""
    for path in page.parent.glob("*.py") if page.parent.parent.name == "examples" else ():
        shutil.copy(path, folder)
    for block in blocks(page, "python"):
        if (name := file_name(block)) is not None:
            (folder / name).write_text(block)


@having("python")
def test_the_python_of_a_page_runs(page, folder):
    """A page's blocks run one after the other, and the tests among them pass."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        if (name := file_name(block)) is not None:
            (folder / name).write_text(block)
            names |= vars(importlib.import_module(name.removesuffix(".py")))
        else:
            exec(compile(block, str(page), "exec"), names)
    for name, test in names.items():
        if name.startswith("test_"):
            test(*([folder] if inspect.signature(test).parameters else []))


@having("toml")
def test_the_settings_of_a_page_load(page, folder):
    """A page's TOML is a settings file that is taken as it stands."""
    for number, block in enumerate(blocks(page, "toml")):
        file = folder / f"{number}.toml"
        file.write_text(block)
        load_settings(profile="dev", file=file)


@having("console")
def test_the_commands_of_a_page_exist(page):
    """A command's name and options are known to the program that is called."""
    for command in commands(page):
        match command.words:
            case ["signalbox", *words]:
                _parse(words)
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command.line
            case ["python", "-m", module, *_]:
                assert importlib.util.find_spec(module), command.line


@having("console")
def test_the_answers_of_a_page_are_right(page, folder):
    """A command that needs nothing else answers what the page shows."""
    write_files(page, folder)
    for command in commands(page):
        words = command.words
        if words[:1] != ["signalbox"] or not {tuple(words[1:3]), tuple(words[1:2])} & OFFLINE:
            continue
        result = subprocess.run(
            [sys.executable, "-m", "signalbox.cli", *words[1:]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        answer = result.stdout + result.stderr
        checker = doctest.OutputChecker()
        assert checker.check_output(command.answer, answer, SAME), f"$ {command.line}\n{answer}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(page):
    """A link to another file of the project finds it."""
    for link in links(page):
        if not re.match(r"[a-z]+:", link):
            target = link.partition("#")[0]
            assert (page.parent / target).exists(), link


def test_the_readme_is_short():
    """A newcomer reads it to the end."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def _parse(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = command.make_context("signalbox", words)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)
