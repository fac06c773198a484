"""Reads the project's Markdown pages: their code blocks, the commands in them, and their links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True, slots=True)
class Command:
    """A line that a reader is to type, and what the page shows as its answer."""

    line: str
    answer: str

    @property
    def words(self) -> list[str]:
        """As the shell splits it; what it would substitute is left as a word."""
        return shlex.split(re.sub(r"\$\([^)]*\)", "SUBSTITUTED", self.line), comments=True)


def pages() -> list[Path]:
    """Every page for readers."""
    return sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
        key=lambda path: path.as_posix(),
    )


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language, in order."""
    return [text for found, text in _BLOCK.findall(page.read_text()) if found == language]


def file_name(block: str) -> str | None:
    """The file that a Python block is, if its first line names one: `# thermostat.py`."""
    match = _FILE.match(block)
    return match[1] if match else None


def commands(page: Path) -> Iterator[Command]:
    """The commands of the page's `console` blocks. A backslash at the end of a line joins it with the next."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            line, _, answer = part.partition("\n")
            yield Command(line, answer)


def links(page: Path) -> list[str]:
    """Where the page's links lead, code left out."""
    return _LINK.findall(_BLOCK.sub("", page.read_text()))
