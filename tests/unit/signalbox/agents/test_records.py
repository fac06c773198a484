"""Saved agents: what is in a record, how it is brought back, and what happens when it cannot be."""

from typing import Any

import msgspec
import pytest

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Pool, Schedule, on, seconds
from signalbox.agents.contract import Directives
from signalbox.agents.population import StateUnreadable
from signalbox.app import App
from signalbox.clock import VirtualClock
from tests.unit.signalbox.agents.examples import Counter, Groups, group_of, harness_of, make_signal


class Part(msgspec.Struct):
    weight: float = 1.5


def _versioned(version: int, fields: dict[str, Any], migrate: Any = None, pool: int = 0) -> type[Agent]:
    """The class `thing` as it is at some time of its life."""

    def touch(self: Any, state: Any, signal: Signal[Any]) -> None:
        state.touched = getattr(state, "touched", 0) + 1

    def wait(self: Any, state: Any, signal: Signal[Any]) -> Directives:
        return Schedule("thing.touch", seconds(10))

    annotations = {name: type(value) if value is not None else (str | None) for name, value in fields.items()}
    body: dict[str, Any] = {
        "name": "thing",
        "state_version": version,
        "State": type(
            "State", (AgentState,), {"__annotations__": {"touched": int, **annotations}, "touched": 0, **fields}
        ),
        "touch": on("thing.touch")(touch),
        "wait": on("thing.wait")(wait),
    }
    if migrate is not None:
        body["migrate"] = classmethod(migrate)
    if pool:
        body["addressing"] = Pool(size=pool)
    return type("Thing", (Agent,), body)


def _saved_by(agent: type[Agent], *types: str) -> Groups:
    groups = Groups(App(agents=[agent], builtins=False), VirtualClock())
    groups.deliver([(n, make_signal(type, id=str(n))) for n, type in enumerate(types)])
    return groups


def _opened_by(before: Groups, *agents: type[Agent]) -> Groups:
    after = Groups(App(agents=agents, builtins=False), before.clock)
    after.restore(before.saved())
    return after


def test_records_are_plain_data_that_name_no_class() -> None:
    """A record is msgpack of plain values; it holds the agent's name and no name of a Python class or module."""

    class Tagged(Agent):
        class State(AgentState):
            parts: list[Part] = []  # noqa: RUF012

        @on("tag")
        def tag(self, state: State, signal: Signal[Any]) -> Directives:
            state.parts.append(Part())
            return Schedule("tag", seconds(5), {"x": 1})

    harness = harness_of(Tagged)
    harness.send("tag", subject="a")
    harness.pause("tagged:a")
    harness.send("tag", subject="a")
    (record,) = [record for group in harness._groups.values() for _, _, record in group.all_records()]
    assert record is not None
    plain = msgspec.msgpack.decode(record)
    assert plain[1] == "tagged"
    assert plain[3] == {"parts": [{"weight": 1.5}]}
    for word in (b"Tagged", b"Part", b"State", b"signalbox", b"tests", b"__"):
        assert word not in record


def test_fields_can_come_and_go() -> None:
    """Without a new version, a field that is new has its default, and one that is gone is dropped."""
    before = _saved_by(_versioned(1, {"old": 7}), "thing.touch")
    after = _opened_by(before, _versioned(1, {"new": "fresh"}))
    state = after.states()["thing:s"][0]
    assert (state.touched, state.new) == (1, "fresh")
    assert not hasattr(state, "old")


def test_migrate_turns_old_fields_into_new_ones_once() -> None:
    """`migrate` gets the saved fields with their version, only when versions differ, and its result is saved."""
    calls: list[tuple[dict[str, Any], int]] = []

    def migrate(cls: type, fields: dict[str, Any], version: int) -> dict[str, Any]:
        calls.append((dict(fields), version))
        return {"touched": fields["touched"], "label": f"was {fields['number']}"}

    before = _saved_by(_versioned(3, {"number": 7}), "thing.touch")
    after = _opened_by(before, _versioned(5, {"label": ""}, migrate))
    after.deliver([(9, make_signal("thing.touch", id="9"))])
    assert calls == [({"touched": 1, "number": 7}, 3)]
    assert (after.states()["thing:s"][0].touched, after.states()["thing:s"][0].label) == (2, "was 7")
    again = _opened_by(after, _versioned(5, {"label": ""}, migrate))
    assert again.states()["thing:s"][0].label == "was 7"
    assert len(calls) == 1


def _raises(cls: type, fields: dict[str, Any], version: int) -> dict[str, Any]:
    raise KeyError("number")


def _nonsense(cls: type, fields: dict[str, Any], version: int) -> Any:
    return {"touched": "many"}


def _nothing(cls: type, fields: dict[str, Any], version: int) -> Any:
    return None


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (_versioned(2, {}, _raises), "KeyError"),
        (_versioned(2, {}, _nonsense), "Expected `int`"),
        (_versioned(2, {}, _nothing), "thing:s cannot be read"),
        (_versioned(1, {"number": "text"}), "Expected `str`"),
    ],
    ids=["migrate raises", "migrate gives a wrong type", "migrate gives nothing", "a field changed its type"],
)
def test_a_state_that_cannot_be_read_fails_closed(agent: type[Agent], message: str) -> None:
    """A signal for an agent whose saved state does not fit becomes `state_unreadable`; the saved state is kept."""
    before = _saved_by(_versioned(1, {"number": 7}), "thing.touch", "thing.wait")
    after = _opened_by(before, agent)
    after.deliver([(9, make_signal("thing.touch", id="9")), (10, make_signal("thing.touch", subject="other", id="10"))])
    letters = [msgspec.json.decode(out.value)["data"] for out in after.outgoing if out.topic == "dead-letters"]
    assert [(letter["reason"], letter["signal_id"], letter["agent_id"]) for letter in letters] == [
        ("state_unreadable", "9", "thing:s")
    ]
    assert message in letters[0]["message"]
    assert after.group(group_of("thing:other")).get("thing:other") is not None
    group = after.group(group_of("thing:s"))
    with pytest.raises(StateUnreadable, match="thing:s"):
        group.get("thing:s")
    after.clock.advance(seconds(60))
    after.fire_due()
    kept = {change[0]: change for change in group.all_records()}["thing:s"]
    assert kept in before.saved()[group.key]
    assert [change for change in group.take_changes() if change[0] == "thing:s"] in ([], [kept])
    repaired = _opened_by(after, _versioned(1, {"number": 7}))
    again = repaired.group(group.key).get("thing:s")
    assert again is not None
    assert msgspec.to_builtins(again.committed()) == {"touched": 1, "number": 7}


def test_a_declared_agent_with_an_unreadable_state_does_not_stop_the_others() -> None:
    """At a start, a pool member that cannot be read is passed over; the flow runs, its signals become dead letters."""
    before = Groups(App(agents=[_versioned(1, {"number": 7}, pool=3)], builtins=False), VirtualClock())
    for key in map(str, range(128)):
        before.group(key).start()
        before.group(key).resized("signals-0", {"thing": 3})
    after = _opened_by(before, _versioned(2, {}, _raises, pool=3))
    for group in after.groups.values():
        group.start()
    assert after.stats.failed["thing", "state"] == 3
    after.deliver([(1, make_signal("thing.touch"))])
    assert [out.topic for out in after.outgoing] == ["dead-letters"]


def test_agents_of_a_class_that_is_gone_keep_their_records() -> None:
    """When an app no longer has a class, its saved agents rest: due timers do not fire, and snapshots carry them on."""
    before = _saved_by(_versioned(1, {"number": 7}), "thing.touch", "thing.wait")
    after = _opened_by(before, Counter)
    after.clock.advance(seconds(60))
    after.fire_due()
    assert after.outgoing == []
    group = after.group(group_of("thing:s"))
    assert group.census["unknown"] == 1
    later = _opened_by(after, _versioned(1, {"number": 7}))
    later.fire_due()
    assert later.states()["thing:s"][0].touched == 2


@pytest.mark.parametrize(
    "record", [b"", b"\xc1", b"\x01", msgspec.msgpack.encode([99, "thing", 1, {}, 0, 0, 0, {}, False, []])]
)
def test_a_record_of_another_form_is_unreadable_and_no_more(record: bytes) -> None:
    """Bytes that are no record of ours, or of a later version, make one agent unreadable and raise nothing else."""
    groups = Groups(App(agents=[_versioned(1, {})], builtins=False), VirtualClock())
    groups.restore({group_of("thing:s"): [("thing:s", 1, record)]})
    groups.fire_due()
    groups.deliver([(0, make_signal("thing.touch"))])
    (letter,) = [msgspec.json.decode(out.value)["data"] for out in groups.outgoing]
    assert letter["reason"] == "state_unreadable"
    assert list(groups.group(group_of("thing:s")).all_records()) == [("thing:s", 1, record)]


def test_counters_outlive_a_restart() -> None:
    """How many signals an agent has handled, and how many errors it had, are saved with it."""
    harness = harness_of(Counter)
    harness.send("counter.add", {"amount": 1}, subject="a")
    harness.send("counter.fail", {"after": "nothing"}, subject="a")
    harness.restart()
    harness.send("counter.add", {"amount": 1}, subject="a")
    instance = harness._groups[group_of("counter:a")].get("counter:a")
    assert instance is not None
    assert (instance.processed, instance.errors) == (3, 1)


def test_looking_at_an_agent_does_not_change_it() -> None:
    """What `committed` gives is a copy: changing it reaches neither the agent nor its record."""
    harness = harness_of(Counter)
    harness.send("counter.add", {"amount": 1}, subject="a")
    harness.state("counter:a").seen.append("x")
    harness.send("counter.add", {"amount": 1}, subject="a")
    assert harness.state("counter:a").seen == ["test-1", "test-2"]


def test_a_handler_that_asks_for_nothing_is_saved_all_the_same() -> None:
    """Each signal puts its agent into the next changes, even if a handler only changes the state, round after round."""
    groups = _saved_by(_versioned(1, {}))
    group = groups.group(group_of("thing:s"))
    for number in range(1, 4):
        groups.deliver([(number, make_signal("thing.touch", id=str(number)))])
        (change,) = group.take_changes()
        rebuilt = Groups(App(agents=[_versioned(1, {})], builtins=False), VirtualClock())
        rebuilt.restore({group.key: [change]})
        assert rebuilt.states()["thing:s"][0].touched == number
    assert group.take_changes() == []
