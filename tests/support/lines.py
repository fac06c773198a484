"""Reads a file that another process appends lines to."""

from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """The lines that are complete so far: a line may be seen while only its first half is written. No file has none."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
