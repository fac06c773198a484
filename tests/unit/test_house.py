"""The rules of the house that the linter does not know. `make check` runs this file alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "signalbox", "connectors", "flows")
FOLDERS = (*PACKAGES, ".ci", "benchmarks", "config", "deploy", "docs", "examples", "tests")
TEXTS = {".md", ".py", ".toml", ".tsv", ".txt", ".yaml", ".yml", ""}
MODULE_LINES = 500
FUNCTION_LINES = 50
#: What may be longer, and why.
LONG_MODULES = {"tests/unit/signalbox/routing/test_conditions.py": "one table of cases"}
LONG_FUNCTIONS = {("signalbox/cli/main.py", "root"): "a parameter for every global option"}
#: In pieces, so that this file does not break its own rules.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
SOMEBODYS_MACHINE = re.compile(r"(?<![\w.$}])/(ho" r"me|ro" r"ot|Use" r"rs|wo" r"rk)/\w")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str, suffixes: set[str]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                yield path


SOURCES = {path.relative_to(ROOT).as_posix(): path for path in files(*FOLDERS, suffixes={".py"})}


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def height(path: Path) -> int:
    return len(path.read_text().splitlines())


def length(function: Function) -> int:
    """Lines of a function, without its decorators and its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_a_module_stays_small():
    """No module has more than 500 lines."""
    long = {name: lines for name, path in SOURCES.items() if (lines := height(path)) > MODULE_LINES}
    assert {name: lines for name, lines in long.items() if name not in LONG_MODULES} == {}


def test_a_function_fits_the_screen():
    """No function has more than 50 lines, its docstring aside."""
    lengths = {(name, one.name): length(one) for name, path in SOURCES.items() for one in functions(path)}
    long = {where: lines for where, lines in lengths.items() if lines > FUNCTION_LINES}
    assert {where: lines for where, lines in long.items() if where not in LONG_FUNCTIONS} == {}


def test_the_exceptions_are_still_needed():
    """A module or function that has become short enough is no exception any more."""
    for module in LONG_MODULES:
        assert height(ROOT / module) > MODULE_LINES
    for module, function in LONG_FUNCTIONS:
        assert max(length(one) for one in functions(ROOT / module) if one.name == function) > FUNCTION_LINES


def test_a_long_function_would_be_noticed():
    """The measure counts a function's lines from its name to its end, without the docstring."""
    text = 'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    return a\n'
    [function] = [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]
    assert length(function) == 4


def test_nothing_is_left_for_later():
    """No file says that something remains to be done."""
    assert _lines_with(UNFINISHED) == []


def test_nothing_names_a_machine():
    """No file names a path of somebody's own machine."""
    assert _lines_with(SOMEBODYS_MACHINE) == []


def test_a_module_says_what_it_is_for():
    """Every module that ships begins with a docstring."""
    shipped = {name: path for name, path in SOURCES.items() if name.startswith(PACKAGES)}
    assert [name for name, path in shipped.items() if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_a_test_says_what_it_promises():
    """Every test function has a docstring."""
    tests = (
        (name, one)
        for name, path in SOURCES.items()
        if path.name.startswith("test_")
        for one in functions(path)
        if one.name.startswith("test_")
    )
    assert [f"{name}: {one.name}" for name, one in tests if not ast.get_docstring(one)] == []


def test_the_root_is_no_package():
    """With an `__init__.py` beside them the roots would get another name under `python -m bytewax.run`."""
    assert not (ROOT / "__init__.py").exists()
    assert all((ROOT / package / "__init__.py").is_file() for package in PACKAGES)


def _lines_with(pattern: re.Pattern[str]) -> list[str]:
    top = (path for path in sorted(ROOT.iterdir()) if path.is_file() and path.suffix in TEXTS)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*files(*FOLDERS, suffixes=TEXTS), *top)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
