"""The error tree: exit codes of the contract, hints, and messages of anybody's exceptions."""

import pickle

import pytest

from signalbox import errors
from signalbox.errors import SignalboxError, described

CODES = {
    "SignalboxError": 1, "UsageError": 2, "ConfigError": 3, "Unreachable": 4, "NotFound": 5, "ConditionNotMet": 6,
    "Conflict": 7, "StateDamaged": 8, "DeadlineExceeded": 124,
}  # fmt: skip


def test_exit_codes_are_those_of_the_contract() -> None:
    """Each error has the exit code that scripts rely on, and there is no other error class."""
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SignalboxError)]
    assert {one.__name__: one.exit_code for one in classes} == CODES


def test_hints_and_messages_survive_a_copy() -> None:
    """An error that crosses a process boundary keeps its class, message and hint."""
    error = pickle.loads(pickle.dumps(errors.Conflict("taken", hint="wait")))
    assert (type(error), str(error), error.hint) == (errors.Conflict, "taken", "wait")


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("x"), ("KeyError", "'x'")),
        (SystemExit(3), ("SystemExit", "3")),
        (_Mute(), ("_Mute", "(it has no readable message)")),
        (type("", (Exception,), {})("m"), ("Exception", "m")),
        (type("N" * 400, (Exception,), {})("m"), ("N" * 256, "m")),
    ],
)
def test_any_exception_can_be_described(error: BaseException, expected: tuple[str, str]) -> None:
    """Name and message of an exception can always be told, even if its class does its worst."""
    assert described(error) == expected
