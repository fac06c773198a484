"""`scale explain` and `scale simulate`."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from schemas.signal import new_signal
from signalbox.cli import main, scale_explain, scale_simulate
from signalbox.cli.base import Command, Root, group
from signalbox.scaling import records
from signalbox.scaling.model import Decision
from signalbox.scaling.rules import Occasion, judge
from tests.support.fakes import MemoryBroker
from tests.unit.signalbox.cli.conftest import Cli
from tests.unit.signalbox.scaling.load import Target


@pytest.fixture
def scale(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `signalbox scale ...` in an empty folder."""
    program = typer.Typer(name="signalbox", cls=Root, context_settings={"auto_envvar_prefix": "SIGNALBOX"})
    program.callback()(main.root)
    commands = group("Scaling.")
    commands.command("explain", cls=Command)(scale_explain.explain)
    commands.command("simulate", cls=Command)(scale_simulate.simulate)
    program.add_typer(commands, name="scale")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Any:
        return CliRunner().invoke(program, ["--bootstrap", "memory:1", "scale", *words])

    return run


def record(broker: MemoryBroker, decision: Decision, **changes: Any) -> None:
    """Put the decision on the topic as the autoscaler does; `changes` forge the record."""
    news = "held" if decision.verdict == "hold" else "made"
    data = {**records.to_payload(decision).model_dump(mode="json"), **changes}
    broker.add_signal("scaling", new_signal(f"scaling.decision.{news}", data, source="t", subject=decision.target))


@pytest.fixture
def decisions(broker: MemoryBroker) -> list[Decision]:
    """A hold and a scale-up, on the topic among other things."""
    target = Target()
    every = [target.tell_for(20, 70), target.until_scaled(700, lag=4000)]
    broker.add("scaling", b"junk")
    broker.add_signal("scaling", new_signal("scaling.rescale.started", {"decision_id": every[0].id}, source="t"))
    for decision in every:
        record(broker, decision)
    return every


def test_explain_fills_in_the_formula(scale, decisions):
    """A decision to scale is told with its reason, its terms, the sample it rests on, and that it can be made again."""
    result = scale("explain", decisions[1].id)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert decisions[1].message in text
    assert "scale: 1 -> 10" in text
    assert "rate / utilization + lag / catch_up_s" in text
    assert "700.0 / 0.75 + 4000.0 / 60.0" in text
    assert "sample.arrivals 700" in text
    assert "policy.catch_up_s 60" in text
    assert "the same" in text


def test_explain_as_json_has_it_all(scale, decisions):
    """`-o json` writes the record and whether it could be made again."""
    for decision in decisions:
        told = json.loads(scale("explain", decision.id, "-o", "json").stdout)
        assert (told["decision_id"], told["reason"]) == (decision.id, decision.reason)
        assert (told["replayed"], told["differences"]) == (True, {})
        assert told["inputs"] == decision.inputs


def test_explain_tells_a_record_that_was_forged(scale, decisions, broker):
    """A record that its inputs do not lead to: exit 1, and what differs."""
    forged = Target().tell_for(30, 71)
    record(broker, forged, desired=9, reason="lag")
    result = scale("explain", forged.id)
    assert result.exit_code == 1
    assert "desired, reason" in result.stdout
    assert "differs in desired, reason" in result.stderr


@pytest.mark.parametrize("changes", [{"inputs": {"policy": 3}}, {"desired": "many"}, {"target": "moon"}])
def test_explain_tells_a_record_that_is_damaged(scale, broker, changes):
    """A record that is not one of a decision: exit 1 with a message, and no traceback."""
    decision = Target().tell_for(20, 70)
    record(broker, decision, **changes)
    result = scale("explain", decision.id)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_explain_of_an_unknown_decision_is_not_found(scale, decisions):
    """No such decision: exit 5."""
    assert scale("explain", "nonsense").exit_code == 5


def test_a_sample_that_decided_nothing_can_be_explained(scale, broker):
    """A hold for want of metrics has no formula, and is told all the same."""
    decision = Target().tell(None)
    record(broker, decision)
    result = scale("explain", decision.id)
    assert result.exit_code == 0
    assert "no_metrics" in result.stdout
    assert "rate / utilization" not in result.stdout


def test_explain_tells_decisions_by_rule_too(scale, broker):
    """A decision that a rule made is shown with what it followed from, and made again by the rule."""
    occasion = Occasion(rule="high_load", cause="1", target="pool/task_agent", at=9.0, units=5, min=1, max=9, load=0.9)
    record(broker, judge(occasion))
    result = scale("explain", judge(occasion).id)
    assert result.exit_code == 0, result.output
    assert "scale: 5 -> 6" in result.stdout
    assert "occasion.load" in result.stdout
    assert "the same" in result.stdout


def test_simulate_compares_policies(scale):
    """One row for each policy, with charts; a single trace has no sums."""
    result = scale("simulate", "--trace", "step")
    rows = result.stdout.splitlines()
    assert rows[0].split()[:5] == ["TRACE", "POLICY", "VIOLATION_S", "UNIT_S", "COST"]
    assert [row.split()[1] for row in rows[1:]] == ["ours", "hpa", "hpa_tuned", "flink"]
    assert "█" in rows[1]


def test_simulate_reads_a_file_and_settings(scale, tmp_path):
    """A trace from a file runs with the settings of the target that is named."""
    file = tmp_path / "mine.csv"
    file.write_text("at,arrivals\n0,50\n60,500\n600,50\n")
    words = ("simulate", "--trace", str(file), "--policy", "ours", "-o", "json")
    [usual] = json.loads(scale(*words).stdout)
    assert (usual["trace"], usual["policy"]) == ("mine", "ours")
    assert max(point["units"] for point in usual["timeline"]) == 8
    [bounded] = json.loads(scale(*words, "--target", "flow/agents", "--set", "scaling.flows.agents.max=3").stdout)
    assert max(point["units"] for point in bounded["timeline"]) == 3
    assert bounded["changes"][0]["reason"] == "lag"


def test_simulate_runs_all_that_ship(scale):
    """Without --trace every shipped trace is run, with a line of sums at the end."""
    rows = scale("simulate", "--policy", "ours").stdout.splitlines()
    assert len(rows) == 1 + 8 + 1
    assert rows[-1].startswith("(all)")


@pytest.mark.parametrize(
    "words",
    [("--trace", "stairs"), ("--policy", "theirs"), ("--target", "agents"), ("--trace", "step", "--trace", "x")],
)
def test_simulate_refuses_what_it_does_not_know(scale, words):
    """Unknown traces, policies and targets are errors of usage, with what there is."""
    result = scale("simulate", *words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
