"""`dlq list`, `dlq show` and `dlq replay`."""

import json
from datetime import UTC, datetime
from typing import Any

from schemas.dead_letter import DEAD_LETTER_TYPE, dead_letter_data
from schemas.signal import new_signal
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli


def set_aside(
    broker: MemoryBroker, id: str, value: bytes | None = b"broken", reason: str = "invalid_json", **more: Any
) -> None:
    data = dead_letter_data(
        **{
            "reason": reason,
            "message": "not good",
            "topic": "signals",
            "partition": 1,
            "offset": int(id),
            "key": b"k",
            "value": value,
            "headers": [("h", b"v"), ("none", None)],
            "limit_bytes": 1000,
            **more,
        }
    )
    time = datetime(2026, 1, 1, 0, int(id), tzinfo=UTC)
    signal = new_signal(DEAD_LETTER_TYPE, data.model_dump(mode="json"), source="t", id=id, time=time)
    broker.add_signal("dead-letters", signal)


def outcomes(cli: Cli, *words: str) -> list[tuple[str, str]]:
    rows = json.loads(cli("dlq", "replay", "-o", "json", *words).stdout)
    return [(row["id"], row["outcome"]) for row in rows]


def test_list_shows_reason_and_origin(cli: Cli, broker: MemoryBroker) -> None:
    """Every dead letter is listed in the order of time with why and whence; reason and limit select."""
    set_aside(broker, "2", reason="too_large")
    set_aside(broker, "1")
    broker.add("dead-letters", b"junk")
    rows = json.loads(cli("dlq", "list", "-o", "json").stdout)
    assert [(row["id"], row["reason"], row["origin"], row["bytes"]) for row in rows] == [
        ("1", "invalid_json", "signals[1]@1", 6),
        ("2", "too_large", "signals[1]@2", 6),
    ]
    assert [row["id"] for row in json.loads(cli("dlq", "list", "--reason", "too_large", "-o", "json").stdout)] == ["2"]
    assert [row["id"] for row in json.loads(cli("dlq", "list", "--limit", "1", "-o", "json").stdout)] == ["2"]


def test_show_has_the_value_as_text(cli: Cli, broker: MemoryBroker) -> None:
    """One dead letter is shown whole, its value also as text if it is text."""
    set_aside(broker, "1", b'{"a":')
    set_aside(broker, "2", b"\xff")
    shown = json.loads(cli("dlq", "show", "1", "-o", "json").stdout)
    assert (shown["value"], shown["origin"]["topic"], shown["message"]) == ('{"a":', "signals", "not good")
    assert "value" not in json.loads(cli("dlq", "show", "2", "-o", "json").stdout)
    assert cli("dlq", "show", "3").exit_code == 5


def test_replay_restores_the_record(cli: Cli, broker: MemoryBroker) -> None:
    """Key, value and headers are on the origin topic again as they were, with headers that tell of the replay."""
    set_aside(broker, "1", b"\x00\xff")
    set_aside(broker, "2", None)
    assert outcomes(cli, "-y") == [("1", "replayed"), ("2", "replayed")]
    first, second = broker.records("signals")
    assert (first.key, first.value, second.value) == (b"k", b"\x00\xff", None)
    assert first.headers == (
        ("h", b"v"),
        ("none", None),
        ("signalbox_replay", b"1"),
        ("signalbox_dead_letter", b"1"),
    )


def test_replays_are_counted(cli: Cli, broker: MemoryBroker) -> None:
    """A record that comes back to the dead letters carries how often it was replayed, and the next replay counts on."""
    set_aside(broker, "7", headers=[("signalbox_replay", b"2"), ("signalbox_dead_letter", b"1")])
    assert json.loads(cli("dlq", "list", "-o", "json").stdout)[0]["replays"] == 2
    cli("dlq", "replay", "-y")
    assert broker.records("signals")[0].headers == (("signalbox_replay", b"3"), ("signalbox_dead_letter", b"7"))


def test_replay_selects(cli: Cli, broker: MemoryBroker) -> None:
    """Ids, --reason and --limit say which dead letters are replayed; the oldest come first."""
    for id in ("1", "2", "3"):
        set_aside(broker, id, reason="too_large" if id == "3" else "invalid_json")
    assert [id for id, _ in outcomes(cli, "-y", "--dry-run", "2", "3")] == ["2", "3"]
    assert [id for id, _ in outcomes(cli, "-y", "--dry-run", "--reason", "too_large")] == ["3"]
    assert [id for id, _ in outcomes(cli, "-y", "--dry-run", "--limit", "2")] == ["1", "2"]
    assert cli("dlq", "replay", "-y", "9").exit_code == 5


def test_dry_run_changes_nothing(cli: Cli, broker: MemoryBroker) -> None:
    """--dry-run says what would be done, asks nothing and sends nothing."""
    set_aside(broker, "1")
    assert outcomes(cli, "--dry-run") == [("1", "would be replayed")]
    assert broker.records("signals") == []


def test_replay_without_a_terminal_needs_yes(cli: Cli, broker: MemoryBroker) -> None:
    """Where nobody can be asked, a replay without -y is refused with 2 and sends nothing."""
    set_aside(broker, "1")
    result = cli("dlq", "replay")
    assert (result.exit_code, "-y" in result.stderr, broker.records("signals")) == (2, True, [])


def test_cut_record_is_skipped_and_told(cli: Cli, broker: MemoryBroker) -> None:
    """What a dead letter no longer holds whole is not replayed; the others are, and the exit code is 1."""
    set_aside(broker, "1", b"x" * 100, limit_bytes=10)
    set_aside(broker, "2")
    result = cli("dlq", "replay", "-y", "-o", "json")
    assert [(row["id"], row["outcome"]) for row in json.loads(result.stdout)] == [("1", "skipped"), ("2", "replayed")]
    assert (result.exit_code, len(broker.records("signals"))) == (1, 1)


def test_nothing_to_replay_is_success(cli: Cli, broker: MemoryBroker) -> None:
    """An empty dead letter topic is no error, and nobody is asked."""
    result = cli("dlq", "replay")
    assert (result.exit_code, "nothing to replay" in result.stderr) == (0, True)
