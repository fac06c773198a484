"""`process_large_dataset` gives what the rows as a whole would give, in chunks of any size, and always lets go."""

import asyncio
import json
import logging
import math
import statistics
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.actions import ActionContext, ActionError, processing
from signalbox.actions import process_large_dataset as module
from signalbox.actions.expressions import Expression
from signalbox.actions.process_large_dataset import POOL, DatasetReport, process_large_dataset
from signalbox.actions.services import Services
from signalbox.app import App
from signalbox.clock import VirtualClock
from signalbox.config import Settings
from signalbox.resources import PoolUsage
from signalbox.testing import Harness
from tests.support.loops import in_loop

FEW = settings(max_examples=40)  # each is a whole run, with threads
SIZES = st.integers(1, 12)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)
CITIES = st.sampled_from(["Lyon", "Oslo", 1, True, None, "1"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"city": CITIES}, optional={"n": NUMBERS | st.sampled_from([None, "many", True, [], 1e151]), "m": NUMBERS}
    )
    | st.sampled_from([5, None, "row", []]),
    max_size=25,
)


def context_of(**values: Any) -> ActionContext:
    """A context with services of its own, on a clock that stands still."""

    async def no_call(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    return ActionContext(
        idempotency_key="k1",
        agent_id="a1",
        attempt=1,
        deadline=None,
        correlation_id=None,
        log=logging.LoggerAdapter(logging.getLogger(__name__)),
        services=Services.of(Settings.model_validate(values), VirtualClock()),
        call=no_call,
    )


def usage(context: ActionContext) -> PoolUsage:
    return context.services.resources.usage()[POOL]


async def running(context: ActionContext, **params: Any) -> DatasetReport:
    report = await process_large_dataset.run(process_large_dataset.validated(params), context)
    return DatasetReport.model_validate(process_large_dataset.json_values(report))


def run(context: ActionContext | None = None, **params: Any) -> DatasetReport:
    return asyncio.run(running(context or context_of(), **params))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e150


def same(found: Any, expected: Any) -> bool:
    """Whether two results are equal, but for the rounding of sums."""
    if isinstance(found, float) or isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def objects(rows: list[Any]) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row, dict)]


def test_a_run_tells_what_it_did():
    """Rows in and out, chunks, and which rows were left out and why."""
    report = run(
        dataset=[{"n": 1}, 7, {"n": "x"}, {}, {"n": 3}],
        chunk_size=2,
        processing_type="normalise",
        fields=["n"],
    )
    assert report == DatasetReport(
        processing_type="normalise",
        rows_in=5,
        rows_out=2,
        chunks=6,
        chunk_size=2,
        invalid_rows=3,
        invalid=[
            {"row": 2, "reason": "it is no JSON object"},
            {"row": 3, "reason": "n is a text that is no number"},
            {"row": 4, "reason": "n is missing or null, not a number"},
        ],
        rows=[{"n": 0.0}, {"n": 1.0}],
    )


@FEW
@given(ROWS, SIZES)
def test_aggregates_are_those_of_the_whole(rows, size):
    """Counts and measures per group are what they are over all rows at once, whatever the chunks."""
    report = run(
        dataset=rows,
        chunk_size=size,
        processing_type="aggregate",
        group_by=["city"],
        measures={"n": ["sum", "min", "max", "mean"]},
    )
    usable = [row for row in objects(rows) if row.get("n") is None or is_number(row["n"])]
    groups: dict[str, list[Any]] = {}
    for row in usable:
        groups.setdefault(json.dumps(row["city"]), []).append(row)
    expected = []
    for members in groups.values():
        values = [row["n"] for row in members if row.get("n") is not None]
        told = dict.fromkeys(("sum", "min", "max", "mean"))
        if values:
            told = {"sum": math.fsum(values), "min": min(values), "max": max(values), "mean": statistics.fmean(values)}
        group = {"city": members[0]["city"]}
        expected.append({"group": group, "count": len(members), "measures": {"n": told}})
    assert same(report.rows, expected)
    assert (report.rows_in, report.invalid_rows) == (len(rows), len(rows) - len(usable))


@FEW
@given(ROWS, SIZES)
def test_a_filter_keeps_what_the_expression_says(rows, size):
    """Rows for which the expression is true come out, in order and as they are."""
    report = run(dataset=rows, chunk_size=size, processing_type="filter", expression="n > `0` || city == 'Oslo'")
    keeps, expected = Expression("n > `0` || city == 'Oslo'"), []
    for row in objects(rows):
        try:
            if keeps.holds(row):
                expected.append(row)
        except ActionError:
            continue
    assert report.rows == expected
    assert report.rows_out == len(expected)


@FEW
@given(ROWS, SIZES, st.sampled_from(["min_max", "z_score"]))
def test_a_scale_is_that_of_the_whole(rows, size, method):
    """Every value is placed among those of all rows, though rows are seen in chunks."""
    report = run(dataset=rows, chunk_size=size, processing_type="normalise", fields=["n"], method=method)
    usable = [row for row in objects(rows) if is_number(row.get("n"))]
    values = [float(row["n"]) for row in usable]
    if method == "min_max":
        origin, unit = min(values, default=0), max(values, default=0) - min(values, default=0)
    else:
        origin, unit = (statistics.fmean(values), statistics.pstdev(values)) if values else (0, 0)
    expected = [{**row, "n": (row["n"] - origin) / unit if unit else 0.0} for row in usable]
    if unit == 0 or unit > 1e-3:  # below, the two ways to compute a deviation differ by rounding alone
        assert same(report.rows, expected)


@FEW
@given(ROWS, SIZES, st.sampled_from([[], ["city"], ["city", "n"]]))
def test_the_first_of_each_key_stays(rows, size, keys):
    """Of rows with the same key the first comes out; 1, true and "1" are different, missing and null are not."""
    report = run(dataset=rows, chunk_size=size, processing_type="dedupe", keys=keys)
    seen: dict[str, Any] = {}
    for row in objects(rows):
        key = json.dumps([row.get(one) for one in keys] if keys else row, sort_keys=True)
        seen.setdefault(key, row)
    assert repr(report.rows) == repr(list(seen.values()))


def test_the_order_of_fields_makes_no_other_key():
    """Two rows with the same fields are the same, however they are written."""
    report = run(dataset=[{"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}], processing_type="dedupe")
    assert report.rows == [{"a": 1, "b": {"c": 2, "d": 3}}]


@FEW
@given(st.integers(0, 40), SIZES)
def test_every_row_is_worked_once(count, size):
    """There are as many chunks as it takes, and no row is lost or doubled between them."""
    rows = [{"n": number} for number in range(count)]
    report = run(dataset=rows, chunk_size=size, processing_type="filter", expression="`true`")
    assert (report.rows, report.chunks, report.chunk_size) == (rows, math.ceil(count / size), size)


def test_only_the_first_bad_rows_are_named():
    """Ten of them are told with their reasons; all are counted."""
    report = run(dataset=list(range(25)), chunk_size=4, processing_type="dedupe")
    assert (report.invalid_rows, [one.row for one in report.invalid]) == (25, list(range(1, 11)))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e151, True, "", "x", "nan", [1], {}, None])
def test_what_is_no_number_is_not_computed_with(value):
    """A row with anything but a finite number of use in a numeric field is left out, and told."""
    report = run(dataset=[{"n": value}, {"n": 1}], processing_type="normalise", fields=["n"])
    assert (report.rows, report.invalid_rows) == ([{"n": 0.0}], 1)
    assert report.invalid[0].reason.startswith("n is ")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ({"processing_type": "sort"}, "does not match any of the expected tags"),
        ({"processing_type": "filter"}, "Field required"),
        ({"processing_type": "dedupe", "fields": ["n"]}, "Extra inputs"),
        ({"processing_type": "dedupe", "chunk_size": 0}, "greater than or equal to 1"),
        ({"processing_type": "dedupe", "dataset": {"file": "a/b.jsonl"}, "output": "a//b.jsonl"}, "take the place"),
    ],
)
def test_parameters_of_another_kind_are_refused(kind, why):
    """Each kind of processing has its own parameters, and a mistake in them is told before anything is done."""
    with pytest.raises(ValueError, match=why):
        process_large_dataset.validated({"dataset": [], **kind})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.csv", "city,n\nLyon,1\nOslo,x\nLyon,3\n"),
        ("in.jsonl", '{"city": "Lyon", "n": 1}\n{"city": "Oslo", "n": "x"}\n{"city": "Lyon", "n": 3}\n'),
        ("in.json", '[{"city": "Lyon", "n": 1}, {"city": "Oslo", "n": "x"}, {"city": "Lyon", "n": 3}]'),
    ],
)
def test_a_file_is_worked_like_a_list(tmp_path, name, content):
    """The three formats give the same, and numbers in texts count as numbers."""
    (tmp_path / name).write_text(content)
    context = context_of(actions={"datasets": {"roots": [tmp_path]}})
    report = run(context, dataset={"file": name}, chunk_size=2, processing_type="normalise", fields=["n"])
    assert report.rows == [{"city": "Lyon", "n": 0.0}, {"city": "Lyon", "n": 1.0}]
    assert (report.rows_in, report.invalid_rows) == (3, 1)


def test_rows_can_go_to_a_file(tmp_path):
    """With `output` the rows are in the file, as lines of JSON, and not in the result."""
    context = context_of(actions={"datasets": {"roots": [tmp_path]}, "result_bytes": 100})
    rows = [{"n": number} for number in range(1000)]
    report = run(context, dataset=rows, chunk_size=64, processing_type="dedupe", output="out.jsonl")
    assert (report.rows, report.output, report.rows_out) == (None, "out.jsonl", 1000)
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows


def test_too_many_rows_for_a_result_are_an_error():
    """Beyond `actions.result_bytes` the run ends, and the message says what to do."""
    context = context_of(actions={"result_bytes": 1000})
    with pytest.raises(ActionError, match="give an output file") as error:
        run(context, dataset=[{"n": number} for number in range(200)], chunk_size=10, processing_type="dedupe")
    assert (error.value.type, usage(context).used) == ("result_too_large", 0)


@pytest.mark.parametrize(
    ("bound", "most", "params", "type"),
    [
        ("MAX_GROUPS", 20, {"processing_type": "aggregate", "group_by": ["n"]}, "too_many_groups"),
        ("MAX_GROUP_BYTES", 10 * 3 + 10 * 4, {"processing_type": "aggregate", "group_by": ["n"]}, "too_many_groups"),
        ("MAX_DISTINCT", 20, {"processing_type": "dedupe"}, "too_many_keys"),
    ],
)
def test_what_has_to_be_remembered_is_bounded(monkeypatch, bound, most, params, type):
    """More groups or distinct keys than fit into memory are an error, and not a process that is killed."""
    monkeypatch.setattr(processing, bound, most)
    rows = [{"n": number % 20} for number in range(100)]
    assert run(dataset=rows, **params).rows_out == 20
    with pytest.raises(ActionError) as error:
        run(dataset=[*rows, {"n": 21}], **params)
    assert error.value.type == type


@pytest.fixture
def short_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.001)


@pytest.mark.usefixtures("short_pause")
@in_loop
async def test_short_of_tokens_it_gives_up_in_the_end():
    """While others have all tokens the chunks halve from 8 to nothing; the error may pass, and nothing waits on."""
    context = context_of()
    others = context.services.resources.try_acquire(POOL, 4, holder="others")
    with pytest.raises(ActionError, match="heavy_computation") as error:
        await running(context, dataset=[{}], chunk_size=8, processing_type="dedupe")
    assert (error.value.type, error.value.retryable) == ("insufficient_resources", True)
    assert usage(context) == PoolUsage(total=4, used=4, waiting=0)
    context.services.resources.release(others)


@pytest.mark.usefixtures("short_pause")
def test_short_of_tokens_it_goes_on_with_smaller_chunks():
    """When a token comes back before the chunks are at their end, the run goes on with those it has."""
    context, beats = context_of(), 0
    resources = context.services.resources
    others = resources.try_acquire(POOL, 4, holder="others")

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:  # the first comes before the first attempt, then one after each refusal
            resources.release(others)

    object.__setattr__(context, "heartbeat", beat)
    report = run(context, dataset=[{"n": number} for number in range(50)], chunk_size=40, processing_type="dedupe")
    assert (report.chunk_size, report.chunks, report.rows_out) == (10, 5, 50)
    assert usage(context).used == 0


@pytest.mark.usefixtures("short_pause")
def test_short_of_memory_chunks_become_smaller(monkeypatch):
    """In the middle of a run too little memory halves the chunks, and the rows that come out stay the same."""
    context = context_of()
    readings = iter([0.5, 0.5, 1.5, 1.5, 0.5])

    class Scarce:
        used_bytes = limit_bytes = 1

        @property
        def ratio(self) -> float:
            return next(readings, 0.5)

    monkeypatch.setattr(context.services.resources, "memory", Scarce())
    rows = [{"n": number} for number in range(100)]
    report = run(context, dataset=rows, chunk_size=16, processing_type="dedupe")
    assert (report.rows, report.chunk_size) == (rows, 4)


def test_without_a_part_in_the_pool_it_does_not_try_for_long():
    """A process that has no token at all says so at once, and that trying again is of no use."""
    context = context_of()
    services = Services.of(context.services.settings, VirtualClock(), workers=8, index=7)
    beats: list[int] = []
    object.__setattr__(context, "services", services)
    object.__setattr__(context, "heartbeat", lambda: beats.append(1))
    with pytest.raises(ActionError, match="fewer workers") as error:
        run(context, dataset=[{}], processing_type="dedupe")
    assert (error.value.type, error.value.retryable) == ("insufficient_resources", False)
    assert len(beats) == 1


@pytest.mark.parametrize(
    "params",
    [
        {"processing_type": "filter", "expression": "a ||"},
        {"processing_type": "dedupe", "output": "out.jsonl"},
        {"processing_type": "dedupe", "dataset": {"file": "in.csv"}},
    ],
)
def test_a_run_that_fails_lets_go(params):
    """However a run ends, its token is back."""
    context = context_of()
    with pytest.raises(ActionError):
        run(context, **{"dataset": [{}], **params})
    assert usage(context).used == 0


@in_loop
async def test_a_run_can_be_cancelled_between_chunks(tmp_path):
    """A cancellation ends the run after the chunk at hand; token and unfinished output are gone."""
    context = context_of(actions={"datasets": {"roots": [tmp_path]}})
    beats, began = 0, asyncio.Event()

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 5:
            began.set()

    object.__setattr__(context, "heartbeat", beat)
    rows = [{"n": number} for number in range(20_000)]
    task = asyncio.create_task(
        running(context, dataset=rows, chunk_size=1, processing_type="dedupe", output="out.jsonl")
    )
    await began.wait()
    assert usage(context).used == 1
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert usage(context).used == 0
    assert list(tmp_path.iterdir()) == []
    assert beats < 20_000


def test_a_long_run_keeps_its_token():
    """A run that takes longer than the pool's `ttl_s` renews its token with each chunk, and others cannot have it."""
    context = context_of(resources={"pools": {POOL: {"tokens": 1, "ttl_s": 10}}})
    clock, used = context.services.clock, []

    def beat() -> None:
        clock.advance(timedelta(seconds=6))
        used.append(usage(context).used)

    object.__setattr__(context, "heartbeat", beat)
    run(context, dataset=[{}] * 5, chunk_size=1, processing_type="dedupe")
    assert used == [0, 1, 1, 1, 1, 1]
    assert usage(context).used == 0


def test_a_heartbeat_comes_with_each_chunk():
    """Who watches over the run hears from it before each chunk."""
    context, beats = context_of(), []
    object.__setattr__(context, "heartbeat", lambda: beats.append(1))
    run(context, dataset=[{}] * 10, chunk_size=2, processing_type="dedupe")
    assert len(beats) == 6


def test_a_task_can_ask_for_it():
    """The action ships: a task gets the report as its result."""
    harness = Harness(App())
    params = {"dataset": [{"n": 1}, {"n": 1}], "processing_type": "dedupe"}
    task = {"task_id": "t1", "action": "process_large_dataset", "params": params}
    harness.send("task.submitted", task, subject="t1")
    [answer] = harness.emitted("task.completed", topic="results")
    assert (answer.data["result"]["rows"], answer.data["result"]["rows_in"]) == ([{"n": 1}], 2)
