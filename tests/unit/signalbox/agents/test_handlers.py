"""Handlers: what they may do to a state, and what becomes of one that fails. Timers and control are beside this."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, field_validator

from schemas.signal import Signal
from signalbox.agents import Agent, AgentState, Context, Directive, Emit, Reply, Schedule, data, on, seconds, state
from signalbox.agents.directives import Directive as AnyDirective
from signalbox.testing import Harness
from tests.unit.signalbox.agents.examples import Counter, harness_of


class _Silent(Exception):
    def __str__(self) -> str:
        msg = "no words"
        raise RuntimeError(msg)


def _raising(error: BaseException) -> Callable[[], AnyDirective]:
    def make() -> AnyDirective:
        raise error

    return make


def _fails_with(harness: Harness, message: str) -> None:
    (letter,) = harness.dead_letters
    assert letter["reason"] == "handler_failed"
    assert message in letter["message"]


def test_a_raising_handler_leaves_no_trace_but_its_error() -> None:
    """A handler that raises changes neither the state nor anything outside; the error is counted and reported."""
    harness = harness_of(Counter)
    harness.send("counter.add", {"amount": 2}, subject="a")
    before = harness.state("counter:a")
    failed = harness.send("counter.fail", {"after": "nothing"}, subject="a")
    assert harness.state("counter:a") == before
    assert not harness.emitted("counter.never")
    (error,) = harness.emitted("agent.error", topic="telemetry")
    assert error.data["signal_id"] == failed.id
    assert (error.data["handler"], error.data["error_count"]) == ("fail", 1)
    assert error.data["error"] == {"type": "RuntimeError", "message": "as asked", "retryable": False}
    (letter,) = harness.dead_letters
    assert (letter["reason"], letter["agent_id"], letter["signal_id"]) == ("handler_failed", "counter:a", failed.id)
    harness.send("counter.add", {"amount": 3}, subject="a")
    assert harness.state("counter:a").count == 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RecursionError("deep"), "RecursionError: deep"),
        (_Silent(), "_Silent: (it has no readable message)"),
        (type("", (Exception,), {})("nameless"), "Exception: nameless"),
        (type("Long" * 100, (Exception,), {})("x"), "LongLong"),
        (ValueError("\ud800"), "ValueError: ?"),
    ],
    ids=lambda value: type(value).__name__[:20] if isinstance(value, BaseException) else "",
)
def test_whatever_a_handler_raises_stays_inside(error: BaseException, message: str) -> None:
    """No exception of a handler, of whatever class and with whatever message, gets past its own signal."""

    class Thrower(Agent):
        @on("do")
        def do(self, state: Any, signal: Signal[Any]) -> None:
            raise error

    harness = harness_of(Thrower)
    harness.send("do", subject="a")
    _fails_with(harness, message)
    assert len(harness.emitted("agent.error", topic="telemetry")) == 1


class _Record(BaseModel):
    at: datetime


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Emit("out.put", object()), "object is unsupported"),
        (lambda: Emit("out.put", {"text": "\ud800"}), "surrogates"),
        (lambda: Emit("out.put", {"nested": _Record(at=datetime.now(UTC))}), "_Record is unsupported"),
        (lambda: Emit("out.put", "x" * 900_001), "limits.output_bytes"),
        (lambda: Emit("out.put", "x" * 500_000, subject="y" * 300_000), "limits.output_bytes"),
        (lambda: Emit("out put"), "no topic"),
        (lambda: Emit(""), "no topic"),
        (lambda: Emit("out put", topic="signals"), "cannot send"),
        (lambda: Emit("out.put", topic="nowhere"), "cannot send"),
        (lambda: Emit("out.put", subject=5), "int"),  # type: ignore[arg-type]
        (lambda: Emit("out.put", subject="a\nb"), "control characters"),
        (lambda: Reply("out.put", {1, 2, object}), "unsupported"),
        (lambda: Schedule("out.put", seconds(1), object()), "unsupported"),
        (lambda: Schedule("out.put", seconds(1), 2**64), "int"),
        (lambda: Schedule("out.put", seconds(1), timer="\ud800"), "surrogates"),
        (lambda: Schedule("out.put", seconds(1), timer=5), "str"),  # type: ignore[arg-type]
        (lambda: Schedule("out put", seconds(1)), "not a signal type"),
        (lambda: Schedule("out.put", timedelta.max), "date value out of range"),
        (lambda: Schedule("out.put", 5), "timedelta"),  # type: ignore[arg-type]
        (lambda: "out.put", "not a directive"),
        (lambda: 7, "int"),
        (lambda: [Emit("out.put"), None], "NoneType, which is not a directive"),
    ],
)
def test_one_bad_directive_undoes_the_whole_call(make: Callable[[], Any], message: str) -> None:
    """If anything that a handler asks for cannot be sent or kept, nothing of it happens and the state is as before."""

    class Asking(Agent):
        class State(AgentState):
            asked: int = 0

        @on("do")
        def do(self, state: State, signal: Signal[Any]) -> Any:
            state.asked += 1
            made = make()
            return [Emit("good.one"), Schedule("good.later", seconds(1)), made] if isinstance(made, Directive) else made

    harness = harness_of(Asking)
    harness.send("do", subject="a")
    _fails_with(harness, message)
    assert harness.state("asking:a").asked == 0
    harness.advance(seconds(10))
    assert harness.emitted() == []


class Loose(Agent):
    class State(AgentState):
        number: int = 0
        ratio: float = 0.0
        text: str = ""
        many: list[int] = []  # noqa: RUF012
        named: dict[str, int] = {}  # noqa: RUF012

    @on("put")
    def put(self, state: State, signal: Signal[dict[str, Any]]) -> Iterator[Directive]:
        for name, value in (signal.data or {}).items():
            setattr(state, name, _VALUES.get(value, value) if isinstance(value, str) else value)
        yield Emit("put.done")


_VALUES: dict[str, Any] = {
    "huge": 2**64,
    "surrogate": "\ud800",
    "object": object(),
    "numbers": {1: 2},
    "texts": ["a"],
    "none": None,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "huge"),
        ("number", "none"),
        ("number", 1.5),
        ("text", "surrogate"),
        ("text", 5),
        ("many", "texts"),
        ("many", "object"),
        ("named", "numbers"),
    ],
)
def test_a_state_that_could_not_be_restored_fails_its_handler(field: str, value: Any) -> None:
    """A state that cannot be saved, or not be read again, is refused when it is made: no snapshot ever meets it."""
    harness = harness_of(Loose)
    harness.send("put", {"number": 1}, subject="a")
    harness.send("put", {field: value}, subject="a")
    assert [letter["reason"] for letter in harness.dead_letters] == ["handler_failed"]
    assert len(harness.emitted("put.done")) == 1
    harness.restart()
    assert harness.state("loose:a").number == 1


def test_a_state_reads_the_same_before_and_after_a_restart() -> None:
    """A handler gets its state as a restart would give it, so what it decides does not depend on restarts."""

    class Exact(Agent):
        class State(AgentState):
            ratio: float = 0.0
            seen: list[str] = []  # noqa: RUF012

        @on("set")
        def set(self, state: State, signal: Signal[Any]) -> None:
            state.ratio = 3

        @on("get")
        def get(self, state: State, signal: Signal[Any]) -> Directive:
            return Emit("got", repr(state.ratio))

    harness = harness_of(Exact)
    harness.send("set", subject="a")
    harness.send("get", subject="a")
    harness.restart()
    harness.send("get", subject="a")
    assert [signal.data for signal in harness.emitted("got")] == ["3.0", "3.0"]


def test_a_flat_state_of_the_wrong_types_is_told_of_when_it_is_saved(caplog: pytest.LogCaptureFixture) -> None:
    """A state of plain fields that could not be read after a restart is counted and logged at the next snapshot."""

    class Flat(Agent):
        class State(AgentState):
            number: int = 0

        @on("set")
        def set(self, state: State, signal: Signal[Any]) -> None:
            state.number = "three"  # type: ignore[assignment]

    harness = harness_of(Flat)
    harness.send("set", subject="a")
    harness.restart()
    assert harness.stats.failed["flat", "state"] == 1
    assert "flat:a" in caplog.text


def test_a_state_shares_nothing_with_signals_and_other_agents() -> None:
    """What a handler puts into its state is its own: changing the same object elsewhere later does not reach it."""
    kept: list[list[int]] = []

    class Keeper(Agent):
        class State(AgentState):
            values: list[int] = []  # noqa: RUF012

        @on("keep")
        def keep(self, state: State, signal: Signal[list[int]]) -> None:
            state.values = signal.data or []
            kept.append(state.values)

    harness = harness_of(Keeper)
    harness.send("keep", [1], subject="a")
    kept[0].append(2)
    harness.send("touch", subject="a")
    assert harness.state("keeper:a").values == [1]
    harness.send("keep", [5], subject="b")
    assert harness.state("keeper:b").values == [5]


def test_handlers_run_in_the_promised_order_and_see_each_others_changes() -> None:
    """More specific first, then higher priority, then as written; each sees the state that the one before left."""

    class Ordered(Agent):
        class State(AgentState):
            calls: list[str] = []  # noqa: RUF012

        @on("**")
        def any_type(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("any")

        @on("order.*")
        def zebra_written_first(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("written first")

        @on("order.*")
        def ant_written_second(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("written second")

        @on("order.*", priority=5)
        def preferred(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("priority")

        @on("order.made")
        def exact(self, state: State, signal: Signal[Any]) -> Directive:
            state.calls.append("exact")
            return Emit("seen", list(state.calls))

    harness = harness_of(Ordered)
    harness.send("order.made", subject="a")
    expected = ["exact", "priority", "written first", "written second", "any"]
    assert harness.state("ordered:a").calls[:5] == expected


def test_one_failing_handler_does_not_stop_the_next() -> None:
    """Handlers of one signal succeed and fail each by itself."""

    class Half(Agent):
        class State(AgentState):
            calls: list[str] = []  # noqa: RUF012

        @on("do", priority=2)
        def first(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("first")

        @on("do", priority=1)
        def second(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("second")
            raise ValueError

        @on("do")
        def third(self, state: State, signal: Signal[Any]) -> None:
            state.calls.append("third")

    harness = harness_of(Half)
    harness.send("do", subject="a")
    assert harness.state("half:a").calls == ["first", "third"]
    assert len(harness.dead_letters) == 1


def test_a_handler_with_two_matching_patterns_runs_once() -> None:
    """A handler runs once per signal, however many of its patterns match."""

    class Twice(Agent):
        class State(AgentState):
            calls: int = 0

        @on("a.*")
        @on("a.b")
        def both(self, state: State, signal: Signal[Any]) -> None:
            state.calls += 1

    harness = harness_of(Twice)
    harness.send("a.b", subject="s")
    assert harness.state("twice:s").calls == 1


def test_conditions_choose_by_data_and_state() -> None:
    """A handler runs only when its condition on data and state holds at that moment."""

    class Picky(Agent):
        class State(AgentState):
            taken: int = 0

        @on("offer", when=(data("price") < 10) & (state("taken") < 2))
        def take(self, state: State, signal: Signal[dict[str, int]]) -> None:
            state.taken += 1

    harness = harness_of(Picky)
    for price in (5, 20, 6, 7, 8):
        harness.send("offer", {"price": price}, subject="a")
    assert harness.state("picky:a").taken == 2


def test_a_condition_without_an_answer_is_no_match_and_counted() -> None:
    """A condition that cannot be answered counts as an error of its class, and the handler does not run."""
    harness = harness_of(Counter)
    harness.send("counter.fail", {"before": 1}, subject="a")
    harness.send("counter.fail", {"after": 7}, subject="a")
    harness.send("counter.fail", None, subject="a")
    assert harness.stats.condition_errors["counter"] == 3
    assert harness.dead_letters == []
    assert harness.state("counter:a").count == 0


@pytest.mark.parametrize("payload", [None, {}, {"amount": "many"}, [1], "text", {"amount": 2**100 * 1.5}])
def test_a_payload_that_does_not_fit_becomes_a_dead_letter(payload: Any) -> None:
    """Data that the handler's model refuses is set aside as `invalid_payload`; neither handler nor counter sees it."""
    harness = harness_of(Counter)
    harness.send("counter.add", payload, subject="a")
    (letter,) = harness.dead_letters
    assert letter["reason"] == "invalid_payload"
    assert letter["agent_id"] == "counter:a"
    assert harness.state("counter:a").count == 0
    assert not harness.emitted("agent.error", topic="telemetry")


def test_a_dead_letter_never_shows_the_refused_values() -> None:
    """The message of an `invalid_payload` names the place and the rule, and not the value, which may be a secret."""
    harness = harness_of(Counter)
    harness.send("counter.add", {"amount": "my password"}, subject="a")
    assert "password" not in harness.dead_letters[0]["message"]
    assert harness.dead_letters[0]["message"].startswith("amount: ")


def test_a_payload_model_that_raises_otherwise_fails_the_handler() -> None:
    """A validator of the user's that raises what it should not is the handler's failure and nobody else's."""

    class Nasty(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def check(cls, value: str) -> str:
            raise KeyError(value)

    class Reader(Agent):
        @on("read")
        def read(self, state: Any, signal: Signal[Nasty]) -> None: ...

    harness = harness_of(Reader)
    harness.send("read", {"name": "x"}, subject="a")
    _fails_with(harness, "KeyError")


def test_the_context_tells_who_when_and_why() -> None:
    """A handler's context holds its agent's id and subject, the present, the node and the id of the signal."""

    class Curious(Agent):
        class State(AgentState):
            told: tuple[str, ...] = ()

        @on("ask")
        def ask(self, state: State, signal: Signal[Any], context: Context) -> None:
            state.told = (context.agent_id, context.subject, context.now.isoformat(), context.node, context.cause_id)

    harness = harness_of(Curious, node={"name": "here"})
    harness.advance(seconds(90.5))
    signal = harness.send("ask", subject="me")
    assert harness.state("curious:me").told == (
        "curious:me",
        "me",
        "2026-01-01T00:01:30.500000+00:00",
        "here",
        signal.id,
    )


def test_emissions_name_their_cause() -> None:
    """A derived signal keeps the conversation and the trace, names its cause, its agent and the present time."""
    harness = harness_of(Counter)
    cause = harness.send("counter.add", {"amount": 1}, subject="a", traceparent="00-1-2-03", correlationid="talk")
    harness.send("counter.add", {"amount": 1}, subject="a")
    first, second = harness.emitted("counter.added")
    assert (first.causationid, first.correlationid, first.traceparent) == (cause.id, "talk", "00-1-2-03")
    assert (first.source, first.subject, first.time) == ("agent/counter:a", "a", harness.clock.now())
    assert second.correlationid == second.causationid == "test-2"


def test_signals_of_one_batch_are_handled_in_order() -> None:
    """Deliveries of one agent run in the order of their offsets, also when the first of them makes the agent."""
    harness = harness_of(Counter)
    for amount in range(1, 6):
        harness.send("counter.add", {"amount": amount}, subject="a")
    assert [signal.data["count"] for signal in harness.emitted("counter.added")] == [1, 3, 6, 10, 15]
    assert msgspec.to_builtins(harness.state("counter:a"))["seen"] == [f"test-{n}" for n in range(1, 6)]


class Flat(Agent):
    """Its state is flat, which is checked when it is saved and not at every signal."""

    class State(AgentState):
        number: int = 0

    @on("flat.put")
    def put(self, state: State, signal: Signal[Any]) -> Directive:
        state.number = signal.data  # type: ignore[assignment]
        return Emit("flat.done", repr(state.number))

    @on("flat.fail")
    def fail(self, state: State, signal: Signal[Any]) -> None:
        state.number = -1
        raise ValueError


def test_a_flat_state_of_a_wrong_type_is_found_at_the_next_snapshot(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong type in a flat state is told with the first snapshot that holds it, and refused from then on."""
    harness = harness_of(Flat)
    harness.send("flat.put", "text", subject="a")
    harness.send("flat.fail", subject="a")
    harness.send("flat.put", 2**64, subject="a")
    assert [letter["reason"] for letter in harness.dead_letters] == ["handler_failed"] * 2
    for group in harness._groups.values():
        group.take_changes()
    assert "the state of flat:a will not be readable after a restart" in caplog.text
    assert harness.stats.failed["flat", "state"] == 1
    harness.send("flat.put", "more text", subject="b")
    _last_failed(harness, "Expected `int`, got `str`")
    harness.send("flat.put", 5, subject="a")
    assert harness.state("flat:a").number == 5
    assert harness.state("flat:b").number == 0


def _last_failed(harness: Harness, message: str) -> None:
    assert harness.dead_letters[-1]["reason"] == "handler_failed"
    assert message in harness.dead_letters[-1]["message"]
