"""`topic list` and `topic tail`."""

import json
from datetime import UTC, datetime

import pytest

from schemas.signal import new_signal
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli


def fill(broker: MemoryBroker, *types: str, topic: str = "signals") -> None:
    for number, type in enumerate(types):
        broker.add_signal(topic, new_signal(type, {"n": number}, source="test", subject="s", id=f"{topic}-{number}"))


def test_list_counts_partitions_and_records(cli: Cli, broker: MemoryBroker) -> None:
    """Every topic is listed with its partitions and the records written to it."""
    fill(broker, "a", "b", "c")
    rows = json.loads(cli("topic", "list", "-o", "json").stdout)
    assert {"topic": "signals", "partitions": 2, "written": 3} in rows
    assert len(rows) == 9


@pytest.mark.parametrize("words", [(), ("-o", "jsonl")])
def test_tail_shows_one_cloudevent_per_line(cli: Cli, broker: MemoryBroker, words: tuple[str, ...]) -> None:
    """Each line is the whole CloudEvents object, and reaching --count is success."""
    fill(broker, "a.b", "a.c", "a.d")
    result = cli("topic", "tail", "signals", "--from", "start", "--count", "2", *words)
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["a.b", "a.c"]
    assert (lines[0]["specversion"], lines[0]["id"], lines[0]["data"]) == ("1.0", "signals-0", {"n": 0})


def test_tail_ends_with_124_when_time_is_up_first(cli: Cli, broker: MemoryBroker) -> None:
    """Too few signals within --timeout are shown, and the exit code is 124."""
    fill(broker, "a.b")
    result = cli("topic", "tail", "signals", "--from", "start", "--count", "2", "--timeout", "0.5")
    assert (result.exit_code, len(result.stdout.splitlines())) == (124, 1)
    assert result.stderr == "error: time is up after 0.5 s, with 1 signals shown of 2\n"


def test_tail_of_what_there_is_ends_with_0(cli: Cli, broker: MemoryBroker) -> None:
    """With --no-follow the end of the topic is the end."""
    fill(broker, "a.b")
    result = cli("topic", "tail", "signals", "--from", "start", "--no-follow", "--count", "9")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)


def test_tail_begins_now_or_at_a_time(cli: Cli, broker: MemoryBroker) -> None:
    """Without --from nothing old is shown; with a time, what is not older than it. A time without zone is UTC."""
    broker.add(
        "signals", b'{"specversion":"1.0","id":"1","source":"s","type":"a"}', timestamp=datetime(2026, 1, 1, tzinfo=UTC)
    )
    broker.add(
        "signals", b'{"specversion":"1.0","id":"2","source":"s","type":"a"}', timestamp=datetime(2026, 1, 3, tzinfo=UTC)
    )

    def ids(*words: str) -> list[str]:
        lines = cli("topic", "tail", "signals", "--no-follow", *words).stdout.splitlines()
        return [json.loads(line)["id"] for line in lines]

    assert ids() == []
    assert ids("--from", "2026-01-03T00:00:00Z") == ["2"]
    assert ids("--from", "2026-01-03") == ["2"]
    assert ids("--from", "2026-01-01T01:00:00+01:00") == ["1", "2"]


def test_tail_takes_several_topics_and_a_pattern(cli: Cli, broker: MemoryBroker) -> None:
    """Only signals whose type matches the pattern are shown and counted, from all the topics."""
    fill(broker, "room.a.hot", "other", "room.b.hot")
    fill(broker, "room.c.hot", topic="alerts")
    broker.add("signals", b"no signal")
    words = ("--from", "start", "--pattern", "room.*.hot", "--count", "3")
    result = cli("topic", "tail", "signals", "alerts", *words)
    assert [json.loads(line)["type"] for line in result.stdout.splitlines()] == [
        "room.a.hot",
        "room.b.hot",
        "room.c.hot",
    ]


def test_record_that_is_no_signal_is_shown_as_what_it_is(cli: Cli, broker: MemoryBroker) -> None:
    """A foreign record is an object that says why it is no signal, where it lies and what it holds."""
    broker.add("signals", b"hello", key=b"k")
    broker.add("signals", b"\xff\xfe", key=b"\xff")
    broker.add("signals", None)
    result = cli("topic", "tail", "signals", "--from", "start", "--no-follow")
    text, binary, empty = [json.loads(line) for line in result.stdout.splitlines()]
    assert (text["invalid"]["reason"], text["key"], text["value"]) == ("invalid_json", "k", "hello")
    assert (text["topic"], text["offset"]) == ("signals", 0)
    assert (binary["key_base64"], binary["value_base64"]) == ("/w==", "//4=")
    assert (empty["invalid"]["reason"], empty["value"]) == ("empty_value", None)


def test_names_may_be_given_with_or_without_the_prefix(cli: Cli, broker: MemoryBroker) -> None:
    """`signals` and `x.signals` are the same topic under the prefix `x.`."""
    fill(broker, "a", topic="x.signals")
    for name in ("signals", "x.signals"):
        result = cli("topic", "tail", name, "--from", "start", "--no-follow", "--set", "kafka.topic_prefix=x.")
        assert len(result.stdout.splitlines()) == 1


def test_unknown_topic_is_not_found(cli: Cli) -> None:
    """A topic that is not there ends with 5."""
    assert cli("topic", "tail", "nonsense").exit_code == 5


@pytest.mark.parametrize("words", [("--from", "yesterday"), ("--pattern", "a.*b")])
def test_wrong_words_are_refused(cli: Cli, words: tuple[str, ...]) -> None:
    """A start that is no time and a pattern that is none end with 2."""
    assert cli("topic", "tail", "signals", *words).exit_code == 2


def test_table_lines_up_columns(cli: Cli, broker: MemoryBroker) -> None:
    """As a table, each signal is one line under the heads."""
    fill(broker, "a.b")
    broker.add("signals", b"junk", key=b"k")
    lines = cli("topic", "tail", "signals", "--from", "start", "--no-follow", "-o", "table").stdout.splitlines()
    assert lines[2].split() == ["(invalid_json)", "k", "junk"]
    assert lines[0].split() == ["TIME", "TYPE", "SUBJECT", "DATA"]
    assert lines[1].split()[1:] == ["a.b", "s", '{"n":0}']
