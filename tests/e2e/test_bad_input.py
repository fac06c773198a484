"""Input that nobody should send: each record is set aside with its reason, origin and bytes, and the rest flows on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from schemas.dead_letter import DeadLetter, original_bytes, original_headers, original_key
from schemas.signal import decode, new_signal
from tests.support.eventually import eventually
from tests.support.kafka import BrokerUnderTest, unique_prefix
from tests.support.worker import PATIENCE_S, System, Worker, tasks

pytestmark = pytest.mark.kafka


def _envelope(**changes: Any) -> bytes:
    body = {"specversion": "1.0", "id": "x", "source": "test", "type": "tally.add", "subject": "bad", "data": 1}
    body.update(changes)
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def _nested(levels: int) -> bytes:
    return _envelope(data=0).replace(b'"data": 0', b'"data": ' + b"[" * levels + b"]" * levels)


@dataclass(frozen=True)
class Bad:
    """One record, and the reason for which it must be set aside."""

    name: str
    reason: str
    value: bytes | None
    key: bytes | None = b"bad"
    topic: str = "signals"
    headers: tuple[tuple[str, Any], ...] = ()


BAD = [
    Bad("truncated JSON", "invalid_json", _envelope()[:-20]),
    Bad("no JSON at all", "invalid_json", b"hello, world"),
    Bad("two objects in one", "invalid_json", _envelope() + b"," + _envelope()),
    Bad("half a pair, first", "invalid_json", b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":[1'),
    Bad("half a pair, second", "invalid_json", b"2]}"),
    Bad("an array", "invalid_envelope", b"[1, 2]"),
    Bad("a number", "invalid_envelope", b"42"),
    Bad("null", "invalid_envelope", b"null"),
    Bad("another envelope", "invalid_envelope", b'{"event": "tally.add", "payload": 1}'),
    Bad("no id", "invalid_envelope", _envelope(id=...)),
    Bad("an empty id", "invalid_envelope", _envelope(id="")),
    Bad("a number as id", "invalid_envelope", _envelope(id=7)),
    Bad("an object as type", "invalid_envelope", _envelope(type={"a": 1})),
    Bad("a time without zone", "invalid_envelope", _envelope(time="2026-01-01T00:00:00")),
    Bad("a wrong extension", "invalid_envelope", _envelope(**{"Bad-Name": "x"})),
    Bad("data twice", "invalid_envelope", _envelope(data_base64="AA==")),
    Bad("no version", "invalid_envelope", _envelope(specversion=...)),
    Bad("a future version", "unsupported_version", _envelope(specversion="2.0")),
    Bad("deep nesting", "too_deep", _nested(300)),
    Bad("very deep nesting", "too_deep", _nested(100_000)),
    Bad("invalid UTF-8", "invalid_utf8", b'{"specversion": "1.0", "id": "\xff\xfe"}'),
    Bad("a lone surrogate", "invalid_json", _envelope(data=0).replace(b'"data": 0', b'"data": "\\ud800"')),
    Bad("a number out of range", "invalid_json", _envelope(data=0).replace(b'"data": 0', b'"data": 1e999')),
    Bad("control characters", "control_characters", _envelope(subject="a\nb")),
    Bad("a NUL in the type", "control_characters", _envelope(type="tally\x00add")),
    Bad("one megabyte", "too_large", _envelope(data="x" * 1_048_576)),
    Bad("one megabyte of nothing", "too_large", b"\x00" * 1_048_576),
    Bad("null key and value", "empty_value", None, key=None),
    Bad("an empty value", "empty_value", b"", key=b""),
    Bad("blanks", "empty_value", b" \n\t "),
    Bad("binary mode without source", "invalid_envelope", b"1", headers=(("ce_specversion", "1.0"), ("ce_id", "1"))),
    Bad(
        "binary mode, wrong header", "invalid_utf8", b"1",
        headers=(("ce_specversion", "1.0"), ("ce_id", b"\xff"), ("ce_source", "s"), ("ce_type", "tally.add")),
    ),
    Bad("a missing subject", "missing_subject", _envelope(subject=...), key=None),
    Bad("an unknown type", "unknown_type", _envelope(type="tally.ad")),
    Bad("an invalid type", "invalid_type", _envelope(type="tally add")),
    Bad("an endless type", "invalid_type", _envelope(type="a." * 2000 + "b")),
    Bad("a wrong payload", "invalid_payload", _envelope(type="task.submitted", data={"task_id": 5})),
    Bad("a payload of another kind", "invalid_payload", _envelope(type="task.submitted", data="text")),
    Bad("a handler that raises", "handler_failed", _envelope(type="tally.fail")),
    Bad("data of the wrong type", "handler_failed", _envelope(data={"many": 1})),
    Bad("a command among signals", "misplaced", _envelope(type="control.agent.stop", data={"agent_id": "tally:good"})),
    Bad("a signal among commands", "misplaced", _envelope(), topic="control"),
    Bad("an unknown command", "unknown_type", _envelope(type="control.agent.explode"), topic="control"),
    Bad("a misspelt command", "unknown_type", _envelope(type="control.agnet.stop"), topic="control"),
    Bad("a command without agent", "invalid_payload", _envelope(type="control.agent.stop", data={}), topic="control"),
    Bad("a command without data", "invalid_payload", _envelope(type="control.agent.pause", data=...), topic="control"),
    Bad(
        "a command for nobody", "unknown_agent", _envelope(type="control.agent.pause", data={"agent_id": "no:body"}),
        topic="control",
    ),
    Bad(
        "a spawn of nothing", "unknown_agent",
        _envelope(type="control.agent.spawn", data={"agent_type": "nothing", "subject": "x"}), topic="control",
    ),
    Bad("no command at all", "invalid_json", b"stop!", topic="control"),
]  # fmt: skip


class Bench:
    """One worker that gets every bad record, with good ones between them."""

    def __init__(self, kafka: BrokerUnderTest, directory: Path) -> None:
        self.system = System(
            kafka.bootstrap, unique_prefix(), directory, partitions=2, node={"app": "tests.support.tally:app"}
        )
        self._allow_large_records()
        self.worker: Worker = self.system.start()
        self.good = 0
        self.sent: dict[str, Message] = {}

    def _allow_large_records(self) -> None:
        larger = ConfigEntry("max.message.bytes", "4194304", incremental_operation=AlterConfigOpType.SET)
        resources = [
            ConfigResource(ConfigResource.Type.TOPIC, self.system.settings.topic(name), incremental_configs=[larger])
            for name in ("signals", "control")
        ]
        admin = AdminClient({"bootstrap.servers": self.system.settings.kafka.bootstrap})
        for future in admin.incremental_alter_configs(resources).values():
            future.result(PATIENCE_S)

    def send_everything(self) -> None:
        producer = Producer(
            {"bootstrap.servers": self.system.settings.kafka.bootstrap, "message.max.bytes": 4_194_304, "linger.ms": 5}
        )
        for bad in BAD:
            producer.produce(
                self.system.settings.topic(bad.topic), bad.value, bad.key, headers=list(bad.headers) or None,
                on_delivery=lambda error, message, name=bad.name: self._note(error, message, name),
            )  # fmt: skip
            self._send_good(producer)
        assert producer.flush(PATIENCE_S) == 0
        assert self.sent.keys() == {bad.name for bad in BAD}

    def _send_good(self, producer: Producer) -> None:
        """One addition and one task, in the same poll as the bad records."""
        self.good += 1
        for signal in (
            new_signal("tally.add", 1, source="test", subject="good", id=f"good-{self.good}"),
            *tasks(self.good, 1),
        ):
            value = json.dumps({"specversion": "1.0", "id": signal.id, "source": signal.source, "type": signal.type,
                                "subject": signal.subject, "data": signal.data}).encode()  # fmt: skip
            producer.produce(self.system.settings.topic("signals"), value, signal.key.encode())

    def _note(self, error: Any, message: Message, name: str) -> None:
        assert error is None, f"{name}: {error}"
        self.sent[name] = message

    def letters(self) -> dict[tuple[str, int, int], list[DeadLetter]]:
        """The dead letters by the place of their originals."""
        found: dict[tuple[str, int, int], list[DeadLetter]] = {}
        for signal in self.system.signals("dead-letters"):
            letter = DeadLetter.model_validate(signal.data)
            found.setdefault((letter.origin.topic, letter.origin.partition, letter.origin.offset), []).append(letter)
        return found


@pytest.fixture(scope="module")
def bench(kafka: BrokerUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path_factory.mktemp("bad-input"))
    made.send_everything()
    eventually(lambda: len(made.system.records("dead-letters")) >= len(BAD), timeout_s=PATIENCE_S, every_s=0.1)
    yield made
    made.system.close()


@pytest.fixture(scope="module")
def letters(bench: Bench) -> dict[tuple[str, int, int], list[DeadLetter]]:
    return bench.letters()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_record_is_set_aside(
    bad: Bad, bench: Bench, letters: dict[tuple[str, int, int], list[DeadLetter]]
) -> None:
    """It ends in `dead-letters`, once, with the right reason, the place it was read from, and what it held."""
    message = bench.sent[bad.name]
    place = (message.topic() or "", message.partition() or 0, message.offset() or 0)
    found = letters.get(place, [])
    assert [letter.reason for letter in found] == [bad.reason]
    (letter,) = found
    assert letter.message
    assert letter.origin.timestamp is not None or letter.agent_id is not None
    if letter.agent_id is None:
        assert original_bytes(letter) == bad.value
        assert original_key(letter) == bad.key
        assert [name for name, _ in original_headers(letter)] == [name for name, _ in bad.headers]
    else:  # it was a signal: what an agent could not handle is kept as the signal, whatever its spelling was
        assert bad.value is not None
        assert decode(original_bytes(letter)) == decode(bad.value)


def test_there_is_no_other_dead_letter(bench: Bench, letters: dict[tuple[str, int, int], list[DeadLetter]]) -> None:
    """Nothing but the bad records is set aside, and none of them twice."""
    assert sum(map(len, letters.values())) == len(BAD)


def test_the_good_signals_between_them_are_all_handled(bench: Bench) -> None:
    """Every good signal, in the same polls and partitions as the bad ones, is handled once and in order."""
    system = bench.system
    system.await_answers([f"t{n}" for n in range(1, bench.good + 1)])
    told = [
        one.data["number"] for one in system.signals("alerts") if one.type == "alert.tally" and one.subject == "good"
    ]
    assert told == list(range(1, bench.good + 1))


def test_the_worker_never_stopped(bench: Bench) -> None:
    """The worker that got all this is still the one that was started, answers, and drains in order."""
    assert bench.worker.ask("status")["pid"] == bench.worker.pid
    assert not [line for line in bench.worker.logged() if line.get("level") in ("error", "critical")]
    assert bench.worker.drain() == 0
