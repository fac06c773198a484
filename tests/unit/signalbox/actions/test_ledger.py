"""The ledger of open instructions, against a plain model of the topic that it follows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.signal import Signal, encode, new_signal
from signalbox.actions.ledger import Instruction, Ledger


class Started:
    """Keeps what it was asked to run and to cancel."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.cancelled: list[Instruction] = []

    def start(self, instruction: Instruction) -> None:
        self.instructions.append(instruction)

    def cancel(self, instruction: Instruction) -> None:
        self.cancelled.append(instruction)


def _requested(id: str) -> Signal[Any]:
    data = {"agent_id": "a", "action": "pay", "params": {}}
    return new_signal("action.requested", data, source="agent/a", subject="s", id=id)


def _attempted(id: str, attempt: int, reason: str) -> Signal[Any]:
    return new_signal(
        "action.attempted", {"instruction_id": id, "attempt": attempt, "reason": reason}, source="x", subject="s"
    )


def _ended(id: str) -> Signal[Any]:
    data = {"instruction_id": id, "agent_id": "a", "action": "pay", "duration_ms": 1, "attempts": 1}
    return new_signal("action.completed", data, source="x", subject="s")


#: Requests and outcomes of a few instructions, and where a process began to read and had caught up.
_logs = st.lists(st.tuples(st.sampled_from(["requested", "ended"]), st.integers(0, 5)), max_size=40)


@given(_logs, st.data())
def test_exactly_what_has_no_outcome_is_run(log: list[tuple[str, int]], data: st.DataObject) -> None:
    """From wherever the low-water mark lets it begin, a new process runs each open instruction once, and no other."""
    records = [(_requested if kind == "requested" else _ended)(f"i{n}") for kind, n in log]
    values = [(offset, encode(record)) for offset, record in enumerate(records)]
    before = Ledger(Started())
    before.caught_up(0)
    cut = data.draw(st.integers(0, len(values)))
    before.saw(0, values[:cut])
    begin = before.low_water(0, cut)
    started = Started()
    after = Ledger(started)
    after.saw(0, values[begin:])
    assert started.instructions == []
    after.caught_up(0)
    still_open: dict[str, None] = {}
    for kind, n in log:
        still_open.pop(f"i{n}", None) if kind == "ended" else still_open.setdefault(f"i{n}")
    assert sorted(one.id for one in started.instructions) == sorted(still_open)


def test_a_request_runs_at_once_when_the_past_is_known() -> None:
    """Behind the end of what was there at the start each request runs when it is read, as its first attempt."""
    started = Started()
    ledger = Ledger(started)
    ledger.caught_up(0)
    ledger.saw(0, [(7, encode(_requested("i")))])
    assert [(one.id, one.partition, one.offset, one.attempts) for one in started.instructions] == [("i", 0, 7, 0)]
    assert ledger.low_water(0, 8) == 7
    ledger.saw(0, [(8, encode(_ended("i")))])
    assert ledger.low_water(0, 9) == 9


def test_attempts_before_a_crash_count() -> None:
    """What was read back counts attempts, and how many of them a process had died in."""
    started = Started()
    ledger = Ledger(started)
    records = [_requested("i"), _attempted("i", 2, "retry"), _attempted("i", 3, "restart"), _requested("j")]
    ledger.saw(0, [(offset, encode(record)) for offset, record in enumerate(records)])
    ledger.caught_up(0)
    assert [(one.id, one.attempts, one.restarts) for one in started.instructions] == [("i", 3, 1), ("j", 0, 0)]
    assert all(one.is_recovered for one in started.instructions)


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"specversion":"1.0","id":"x","source":"s","type":"t"}'])
def test_what_is_no_record_of_an_action_is_passed_over(value: bytes | None) -> None:
    """Anything else on the topic changes nothing."""
    started = Started()
    ledger = Ledger(started)
    ledger.caught_up(0)
    ledger.saw(0, [(0, value), (1, encode(new_signal("action.completed", [], source="x", subject="s")))])
    ledger.caught_up(0)
    assert ledger.low_water(0, 2) == 2
    assert started.instructions == []


def test_a_drain_is_not_held_against_an_action() -> None:
    """An attempt that a drain cut short is known as such, and is no restart."""
    started = Started()
    ledger = Ledger(started)
    records = [_requested("i"), _attempted("i", 1, "drain"), _requested("j"), _attempted("j", 2, "retry")]
    ledger.saw(0, [(offset, encode(record)) for offset, record in enumerate(records)])
    ledger.caught_up(0)
    assert [(one.is_drained, one.restarts) for one in started.instructions] == [(True, 0), (False, 0)]


def test_steps_before_a_crash_are_known() -> None:
    """What was read back has the outcomes of its steps by key."""
    started = Started()
    ledger = Ledger(started)
    step = {"instruction_id": "i", "key": "one", "action": "pay", "result": 7}
    records = [_requested("i"), new_signal("action.step.ended", step, source="x", subject="s")]
    ledger.saw(0, [(offset, encode(record)) for offset, record in enumerate(records)])
    ledger.caught_up(0)
    assert started.instructions[0].steps["one"].result == 7


@pytest.mark.parametrize("live", [False, True])
def test_a_wish_to_cancel_is_about_one_agents_name(live: bool) -> None:
    """It reaches the open actions of that agent under that name, before or after they have been started."""
    started = Started()
    ledger = Ledger(started)
    if live:
        ledger.caught_up(0)
    asked = [
        new_signal(
            "action.requested", {"agent_id": agent, "action": "pay", "params": {}, "name": name}, source="x", id=id
        )
        for id, agent, name in [("i", "a", "n"), ("j", "b", "n"), ("k", "a", "m"), ("l", "a", None)]
    ]
    wish = new_signal("action.cancel", {"agent_id": "a", "name": "n"}, source="x")
    ledger.saw(0, [(offset, encode(record)) for offset, record in enumerate([*asked, wish])])
    ledger.caught_up(0)
    assert {one.id for one in started.instructions if one.is_cancelled} == {"i"}
    assert [one.id for one in started.cancelled] == (["i"] if live else [])
