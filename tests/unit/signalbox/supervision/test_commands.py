import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.signal import encode, new_signal
from signalbox.config import Settings
from signalbox.errors import Unreachable
from signalbox.ports import Record
from signalbox.supervision import follower
from signalbox.supervision.commands import Command, CommandFeed


class Reader:
    """Gives what it was made with, then follows without anything new; may fail a few times first."""

    failures = 0

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self.starts: list[Any] = []

    def read(self, topics: Sequence[str], *, start: Any, stop: Any, **_: Any) -> Iterator[Record]:
        self.starts.append(start)
        if self.failures:
            self.failures -= 1
            msg = "no broker"
            raise Unreachable(msg)
        return iter(self._records)


def record(offset: int, value: bytes | None = None) -> Record:
    command = new_signal("control.scale", {"desired": offset}, source="test", subject="flow/agents")
    return Record(topic="control", partition=0, offset=offset, key=None, value=value or encode(command))


def obeyed(reader: Reader, *, since_s: float | None = None, read: Mapping[int, int] | None = None) -> list[Command]:
    """What a feed passes on of what the reader gives, read several times over."""

    async def follow() -> list[Command]:
        found: list[Command] = []
        feed = CommandFeed(Settings(), found.append, make_reader=lambda: reader)  # type: ignore[arg-type, return-value]
        await feed.release(since_s, read or {})
        async with asyncio.timeout(2):
            while len(reader.starts) < 3:  # noqa: ASYNC110 - the reader is a thread's
                await asyncio.sleep(0.005)
        await feed.hold()
        return found

    return asyncio.run(follow())


def test_each_command_is_passed_on_once(monkeypatch: Any) -> None:
    """Reading again after an interruption repeats nothing, and what was obeyed by an earlier run is left out."""
    monkeypatch.setattr(follower, "_RETRY_S", 0.01)
    reader = Reader([record(offset) for offset in range(5)])
    assert [command.record.offset for command in obeyed(reader, read={0: 2})] == [2, 3, 4]


def test_what_is_no_signal_is_skipped(monkeypatch: Any) -> None:
    """A record that cannot be read does not keep those behind it from being obeyed."""
    monkeypatch.setattr(follower, "_RETRY_S", 0.01)
    reader = Reader([record(0, b"{"), record(1, json.dumps({"a": 1}).encode()), record(2)])
    assert [command.record.offset for command in obeyed(reader)] == [2]


def test_a_broker_that_does_not_answer_does_not_lose_what_is_commanded_meanwhile(monkeypatch: Any) -> None:
    """Who cannot begin at the end of the topic begins, when the broker is back, where the clock said he began."""
    monkeypatch.setattr(follower, "_RETRY_S", 0.01)
    reader = Reader([record(0)])
    reader.failures = 1
    before = datetime.now(UTC)
    assert len(obeyed(reader)) == 1
    assert reader.starts[0] == "now"
    assert before <= reader.starts[1] <= datetime.now(UTC)


def test_a_time_is_taken_at_its_word_until_something_was_read(monkeypatch: Any) -> None:
    """Offsets tell old commands from new ones that slow clocks sent; without any, nothing older is obeyed."""
    monkeypatch.setattr(follower, "_RETRY_S", 0.01)
    first, later = Reader([]), Reader([])
    obeyed(first, since_s=1000.0)
    obeyed(later, since_s=1000.0, read={0: 7})
    assert first.starts[0] == datetime.fromtimestamp(1000, UTC)
    assert later.starts[0] == datetime.fromtimestamp(700, UTC)
