"""`config show` and `check`."""

import json
from pathlib import Path

import pytest

from tests.unit.signalbox.cli.conftest import Cli


def test_show_hides_secrets(bare_cli: Cli) -> None:
    """Every setting is shown as resolved, and no secret is."""
    words = ("--set", "http.token=s3cret", "--set", 'kafka.client={"sasl.password": "s3cret"}')
    for format in ("table", "json", "yaml"):
        result = bare_cli("config", "show", *words, "-o", format)
        assert (result.exit_code, "s3cret" in result.stdout, "partitions" in result.stdout) == (0, False, True)


def test_origin_names_the_layer(bare_cli: Cli, tmp_path: Path) -> None:
    """--origin tells of every value which layer it comes from, and the later layer wins."""
    (tmp_path / "c.toml").write_text("[kafka]\npartitions = 3\nlinger_ms = 2\n[flows.agents]\nepoch_ms = 500\n")
    env = {"SIGNALBOX_KAFKA__LINGER_MS": "5", "SIGNALBOX_HTTP": '{"port": 1}'}
    result = bare_cli(
        "-c", "c.toml", "--set", "flows.agents.epoch_ms=7", "config", "show", "--origin", "-o", "json", env=env
    )  # fmt: skip
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(result.stdout)}
    assert rows["kafka.partitions"] == (3, "c.toml")
    assert rows["kafka.linger_ms"] == (5.0, "SIGNALBOX_KAFKA__LINGER_MS")
    assert rows["http.port"] == (1, "SIGNALBOX_HTTP")
    assert rows["flows.agents.epoch_ms"] == (7, "command line")
    assert rows["log.level"] == ("info", "default")
    value, origin = rows["kafka.broker"]
    assert (value, origin.endswith("dev.toml")) == ("embedded", True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "kafka.nonsense=1"), "kafka.nonsense: there is no such setting"),
        (("--set", "kafka.partitions=none"), "kafka.partitions"),
        (("--profile", "test"), "no profile 'test'"),
        (("-c", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_bad_settings_end_with_3(bare_cli: Cli, words: tuple[str, ...], told: str) -> None:
    """A setting that does not exist or does not fit is named, and the exit code is 3."""
    result = bare_cli("config", "show", *words)
    assert (result.exit_code, told in result.stderr, result.stdout) == (3, True, "")


def test_check_says_what_there_is(bare_cli: Cli) -> None:
    """Settings and app that fit together are summed up with exit 0."""
    found = json.loads(bare_cli("check", "-o", "json").stdout)
    assert {"task_agent", "monitor_agent"} <= set(found["agents"])
    assert {"system_health", "resource_usage"} <= set(found["sensors"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "node.app=nonsense"), ["nonsense"]),
        (("--set", "agents.nobody.size=1"), ["nobody"]),
        (("--set", "sensors.nobody.enabled=true"), ["nobody"]),
        (("--set", "sensors.system_health.nonsense=1"), ["sensors.system_health.nonsense"]),
        (("--set", 'kafka.routes={"a.*b": "x"}', "--set", "node.app=x:y"), ["'x'", "a.*b"]),
    ],
)
def test_check_ends_with_3_and_names_everything_wrong(bare_cli: Cli, words: tuple[str, ...], told: list[str]) -> None:
    """What does not fit is named, several things at once, and the exit code is 3."""
    result = bare_cli("check", *words)
    assert (result.exit_code, result.stdout) == (3, "")
    for word in told:
        assert word in result.stderr
