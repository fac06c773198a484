"""What docs/how-to/find-agents.md says of queries is what they do."""

import json
import re

import pytest

from signalbox.config import Settings
from signalbox.registry.query import Query
from signalbox.registry.terms import FIELDS, KINDS, STATUSES
from tests.support.pages import ROOT, blocks, commands

PAGE = ROOT / "docs" / "how-to" / "find-agents.md"
TEXT = PAGE.read_text()
QUERIES = [words[words.index("--where") + 1] for one in commands(PAGE) if "--where" in (words := one.words)]


@pytest.mark.parametrize("text", QUERIES)
def test_the_queries_of_the_page_can_be_read(text):
    """A query that a reader copies is one."""
    assert Query.parse(text)


def test_the_json_of_the_page_is_a_query():
    """The example for programs is taken as it stands."""
    [request] = [line for block in blocks(PAGE, "text") for line in block.splitlines() if "{" in line]
    assert Query.of(json.loads(request.partition("where=")[2]))


def test_the_page_lists_the_fields_and_their_values():
    """The table names every field, and every kind and status there is."""
    rows = dict(re.findall(r"^\| `([a-z.<>]+)` \| (.*?) \|", TEXT, re.MULTILINE))
    assert rows.keys() == {*FIELDS, "metadata.<name>"}
    for field, values in (("status", STATUSES), ("kind", KINDS)):
        assert re.findall(r"`(\w+)`", rows[field]) == list(values)


def test_the_numbers_of_the_page_are_the_defaults():
    """Intervals and sizes are those of the settings."""
    settings = Settings()
    for name, value in (
        ("registry.ttl_s", f"{settings.registry.ttl_s:g} s"),
        ("registry.heartbeat_s", f"{settings.registry.heartbeat_s:g} s"),
    ):
        assert f"`{name}` ({value})" in " ".join(TEXT.split())
    assert f"({settings.resources.registry_size:,})" in TEXT
