"""What the how-to pages say in words is what the code does: reasons, error messages, settings from several places."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from schemas.signal import Reason
from signalbox.config import load_settings
from tests.support.pages import ROOT, blocks

HOW_TO = ROOT / "docs" / "how-to"
PACKAGES = ("schemas", "signalbox", "connectors", "flows")
#: Functions whose arguments hold the reason of a dead letter.
_SETTING_ASIDE = {"Refused", "_dead_letter", "refuse"}
_REASON = re.compile(r"[a-z]+(_[a-z0-9]+)+")


def sources() -> Iterator[str]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield path.read_text()


def reasons_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = [*node.args, *(one.value for one in node.keywords if one.arg == "reason")]
            texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if name in _SETTING_ASIDE:
                yield from (text for text in texts if _REASON.fullmatch(text))


def test_every_reason_of_a_dead_letter_is_explained():
    """The page lists exactly the reasons that the code gives."""
    page = (HOW_TO / "replay-dead-letters.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    given = {str(reason) for reason in Reason} | {one for source in sources() for one in reasons_in(source)}
    assert listed == given


def test_every_error_to_recover_from_exists():
    """An error that heads a chapter is one that the code raises, word for word."""
    code = " ".join(" ".join(source.split()) for source in sources())
    headings = re.findall(r"^### `(.+)`$", (HOW_TO / "recover.md").read_text(), re.MULTILINE)
    fragments = [part.strip() for heading in headings for part in heading.split("...") if part.strip()]
    assert len(headings) == 7
    assert [part for part in fragments if part not in code] == []


def test_secrets_from_the_environment_join_the_file(tmp_path, monkeypatch):
    """`kafka.client` of the page's file and the one of the environment become one."""
    [toml] = blocks(HOW_TO / "run-in-production.md", "toml")
    file = Path(tmp_path / "node.toml")
    file.write_text(toml)
    monkeypatch.setenv("SIGNALBOX_KAFKA__CLIENT", json.dumps({"sasl.password": "p"}))
    client = load_settings(profile="prod", file=file).kafka.client
    assert client == {**tomllib.loads(toml)["kafka"]["client"], "sasl.password": "p"}
