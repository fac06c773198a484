"""The record made for a signal that could not be handled."""

from datetime import UTC, datetime

from hypothesis import given

from schemas.dead_letter import DeadLetter, original_bytes, original_key
from schemas.signal import Signal, decode, encode
from signalbox.dead_letters import DEAD_LETTERS, Where, dead_letter
from signalbox.ports import Outgoing
from tests.support.signals import signals
from tests.unit.signalbox.agents.examples import Counter, harness_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _letter(reason: str = "why", offset: int = 7, agent_id: str | None = None) -> Outgoing:
    return dead_letter(
        reason, "m", where=Where("t", 3, offset), key=b"k", value=b"\xff", limit_bytes=100, now=NOW, agent_id=agent_id
    )


def test_the_same_record_reason_and_agent_give_the_same_id() -> None:
    """A dead letter's id follows from origin, reason and agent, so that a replay makes it again."""
    ids = {_letter().id, _letter("other").id, _letter(offset=8).id, _letter(agent_id="a").id}
    assert len(ids) == 4
    assert _letter() == _letter()


def test_bytes_that_are_no_signal_are_kept_as_they_are() -> None:
    """Key and value of the original lie in the dead letter byte for byte, with its place; its key is the place."""
    out = _letter()
    assert (out.topic, out.key) == (DEAD_LETTERS, "t/3/7")
    record = DeadLetter.model_validate(decode(out.value).data)
    assert (original_key(record), original_bytes(record)) == (b"k", b"\xff")
    assert (record.origin.topic, record.origin.partition, record.origin.offset) == ("t", 3, 7)


@given(signals())
def test_any_signal_can_become_a_dead_letter(signal: Signal[object]) -> None:
    """Whatever a signal holds, its dead letter can be made and read, stays with the conversation and has its key."""
    out = dead_letter(
        "why", "m", where=Where("t", 0, 0), key=signal.key.encode(), value=encode(signal), limit_bytes=10**6, now=NOW,
        signal=signal, agent_id="a",
    )  # fmt: skip
    letter = decode(out.value)
    assert (out.key, letter.causationid, letter.correlationid) == (signal.key, signal.id, signal.correlationid)
    record = DeadLetter.model_validate(letter.data)
    assert original_bytes(record) == encode(signal)


def test_a_failed_signal_can_be_sent_again_from_its_dead_letter() -> None:
    """What an agent's dead letter holds is the signal itself, so a replay of it is handled like the first time."""
    harness = harness_of(Counter)
    sent = harness.send("counter.add", {"amount": "many"}, subject="a")
    record = DeadLetter.model_validate(harness.dead_letters[0])
    value = original_bytes(record)
    assert value is not None
    assert decode(value) == sent
    assert original_key(record) == b"a"
