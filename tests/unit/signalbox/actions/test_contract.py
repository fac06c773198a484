"""Actions: named functions with a typed parameter, and results as JSON values."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from signalbox.actions import Action, ActionError, action
from signalbox.actions.builtin import echo
from signalbox.errors import ConfigError


class Params(BaseModel):
    n: int
    more: list[int] = []


class Result(BaseModel):
    at: datetime


@action(effect=False)
def double(params: Params) -> int:
    """Double a number.

    And nothing else.
    """
    return params.n * 2


def test_a_function_becomes_an_action() -> None:
    """Name and description come from the function, the parameters' model from its annotation."""
    assert isinstance(double, Action)
    assert (double.name, double.description, double.params) == ("double", "Double a number.", Params)
    assert action("other")(double.run).name == "other"
    assert double({"n": "21"}) == 42


def test_parameters_are_validated_before_the_function_runs() -> None:
    """Parameters that do not fit raise, and the function is not called."""
    calls: list[Params] = []

    @action(effect=False)
    def note(params: Params) -> None:
        calls.append(params)

    with pytest.raises(ValidationError, match="n\n"):
        note({"n": "many"})
    assert calls == []
    note({"n": 1})
    assert calls == [Params(n=1)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result(at=datetime(2026, 1, 1, tzinfo=UTC)), {"at": "2026-01-01T00:00:00Z"}),
        ([Result(at=datetime(2026, 1, 1, tzinfo=UTC))], [{"at": "2026-01-01T00:00:00Z"}]),
        ({1: {"x"}}, {"1": ["x"]}),
        (None, None),
    ],
)
def test_results_are_json_values(result: Any, expected: Any) -> None:
    """Whatever a function returns is given as plain JSON values, models inside it included."""

    @action(effect=False)
    def give(params: Params) -> Any:
        return result

    assert give({"n": 1}) == expected


def test_a_refusal_has_a_word_and_says_whether_to_retry() -> None:
    """An `ActionError` carries a stable word and whether the same call may succeed later."""
    error = ActionError("not now", type="busy", retryable=True)
    assert (str(error), error.type, error.retryable) == ("not now", "busy", True)
    assert (ActionError("no").type, ActionError("no").retryable) == ("refused", False)


def _two(one: Params, other: Params) -> None: ...


def _untyped(params: Any) -> None: ...


def _none() -> None: ...


@pytest.mark.parametrize("function", [_two, _untyped, _none])
def test_a_function_of_another_form_is_refused(function: Any) -> None:
    """Without exactly one parameter that is a pydantic model there is no action, and the hint shows the form."""
    with pytest.raises(ConfigError, match=function.__name__) as caught:
        action()(function)
    assert "params: MyParams" in (caught.value.hint or "")


def test_echo_returns_what_it_got() -> None:
    """The shipped `echo` gives back its parameters, whatever they are."""
    assert echo({"value": [1, None], "other": {"a": 1}}) == {"value": [1, None], "other": {"a": 1}}
    assert echo({}) == {"value": None}
