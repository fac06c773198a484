"""What the scaling flow looks at among all that is said, and which agent it runs."""

from typing import Any

import confluent_kafka as kafka
import pytest

from connectors.kafka.source import CaughtUp, RecordBatch
from flows.scaling import LoadIntake, autoscaler_plan
from schemas.signal import encode, new_signal
from signalbox.agents.stats import Stats
from signalbox.config import Settings
from signalbox.errors import ConfigError


def record(value: bytes | None, headers: Any = None) -> kafka.Message:
    """A record as the Kafka client gives it."""
    made: Any = kafka.Message
    message: kafka.Message = made(
        topic="signals", partition=0, offset=7, value=value, headers=headers, timestamp=(1, 0)
    )
    return message


def said(type: str, **data: Any) -> bytes:
    return encode(new_signal(type, data, source="test", subject="x"))


def found(*messages: kafka.Message, topic: str = "signals") -> int:
    """How many deliveries come of the records."""
    settings = Settings()
    intake = LoadIntake(autoscaler_plan(settings), settings, Stats())
    parcels = intake.parcels([RecordBatch(topic, 0, list(messages))])  # type: ignore[arg-type]
    return sum(len(run[1]) for _, (_, parcel) in parcels if isinstance(parcel, tuple) for run in parcel[1])


@pytest.mark.parametrize("type", ["system.load.high", "agent.queue.overflow", "system.load.metrics"])
def test_words_of_load_reach_the_autoscaler(type: str) -> None:
    """Whatever is about load is found among other signals, and the others are not."""
    assert found(record(said("task.submitted", n=1)), record(said(type, load=0.9)), record(said("a.b"))) == 1


def test_a_type_in_a_header_is_found() -> None:
    """In binary mode the value says nothing of the type."""
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"system.load.high")]
    assert found(record(b'{"load": 0.9}', headers)) == 1
    assert found(record(b'{"load": 0.9}', [*headers[:3], ("ce_type", b"a.b")])) == 0


def test_a_type_that_is_spelled_with_escapes_is_found() -> None:
    """JSON can write any letter in another way."""
    assert found(record(said("system.load.high", load=0.9).replace(b"system", rb"\u0073ystem"))) == 1


def test_what_is_wrong_with_a_record_is_left_to_others() -> None:
    """Broken records, records without a value and unknown types make no dead letters here."""
    settings = Settings()
    intake = LoadIntake(autoscaler_plan(settings), settings, Stats())
    broken = [record(b'{"type": "system.load.high"'), record(None), record(said("system.load.unheard_of"))]
    assert intake.parcels([RecordBatch("signals", 0, broken)]) == []  # type: ignore[list-item]


def test_commands_for_other_agents_are_left_to_others() -> None:
    """The autoscaler can be paused, and nobody else is looked for here."""
    command = record(said("control.agent.pause", agent_id="autoscaler"))
    assert found(command, record(said("control.agent.pause", agent_id="task_agent_1")), topic="control") == 1


def test_words_of_inputs_pass() -> None:
    """What the engine's input says of itself goes to every group."""
    settings = Settings()
    assert len(LoadIntake(autoscaler_plan(settings), settings, Stats()).parcels([CaughtUp("signals-0")])) == 128


def test_policies_and_sizes_come_from_the_settings() -> None:
    """`scaling.flows`, `scaling.pools` and the sizes of pools are known to the skill, whose own settings win."""
    settings = Settings.model_validate(
        {
            "scaling": {"flows": {"agents": {"max": 3}}, "pools": {"task_agent": {"max": 40}}, "enabled": False},
            "agents": {
                "task_agent": {"size": 7},
                "autoscaler": {"skills": {"auto_scaling": {"scale_up_threshold": 0.6, "enabled": True}}},
            },
        }
    )
    [skill] = autoscaler_plan(settings).kinds[0].skills
    assert skill.settings.flows["agents"].max == 3
    assert skill.settings.pools["task_agent"].max == 40
    assert skill.settings.sizes["task_agent"] == 7
    assert (skill.settings.scale_up_threshold, skill.settings.enabled) == (0.6, True)


def test_a_flow_keeps_the_workers_that_it_is_set_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bounds of its own, a flow has never fewer workers than set, and no more than there are processors."""
    monkeypatch.setattr("signalbox.supervision.targets.processors", lambda: 4)

    def bounds(**given: Any) -> tuple[int, int]:
        settings = Settings.model_validate({"flows": {"agents": {"workers": 2}}, "scaling": {"flows": given}})
        [skill] = autoscaler_plan(settings).kinds[0].skills
        assert (skill.settings.flows["scaling"].min, skill.settings.flows["scaling"].max) == (1, 1)
        return skill.settings.flows["agents"].min, skill.settings.flows["agents"].max

    assert bounds() == (2, 4)
    assert bounds(agents={"max": 8}) == (2, 8)
    assert bounds(agents={"min": 1, "max": 1}) == (1, 1)
    assert bounds(agents={"max": 1}) == (1, 1)
    assert bounds(agents={"min": 6}) == (6, 6)


def test_an_unknown_setting_of_the_skill_is_an_error() -> None:
    """A misspelled setting is named."""
    settings = Settings.model_validate({"agents": {"autoscaler": {"skills": {"auto_scaling": {"max_agent": 3}}}}})
    with pytest.raises(ConfigError, match="max_agent"):
        autoscaler_plan(settings)
