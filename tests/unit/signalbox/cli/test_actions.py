"""`signalbox action`: what an app's actions take and promise, for people and for programs that make tools of them."""

import json

import jsonschema
import pytest

from tests.unit.signalbox.cli.conftest import Cli

SHIPPED = {"echo", "transform", "call_external_api", "process_large_dataset", "complex_workflow", "distribute_task"}


def test_the_list_has_every_action_of_the_app(bare_cli: Cli) -> None:
    """Each shipped action is listed with a sentence about it."""
    rows = [json.loads(line) for line in bare_cli("action", "list", "-o", "jsonl").stdout.splitlines()]
    assert {row["name"] for row in rows} == SHIPPED
    assert all(row["description"].endswith(".") for row in rows)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_an_action_shows_the_schemas_of_what_it_takes_and_gives(bare_cli: Cli, name: str) -> None:
    """Both are valid JSON Schemas."""
    shown = json.loads(bare_cli("action", "show", name, "-o", "json").stdout)
    assert shown["name"] == name
    for schema in (shown["params"], shown["result"]):
        jsonschema.Draft202012Validator.check_schema(schema)


def test_an_unknown_action_is_not_found(bare_cli: Cli) -> None:
    """The error names those there are."""
    result = bare_cli("action", "show", "nothing")
    assert result.exit_code == 5
    assert "echo" in result.stderr
