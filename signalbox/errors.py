"""Every error a user can meet, and the exit code the command line gives it.

* SignalboxError                    1
  + UsageError                      2   the command's words are off
  + ConfigError                     3   a setting, an app or a route is wrong
  + Unreachable                     4   a broker or a node does not answer
  + NotFound                        5   no such agent, topic, task, ...
  + ConditionNotMet                 6   a check or a wait ended in "no"
  + Conflict                        7   refused: somebody else holds it
  + StateDamaged                    8   saved state is missing or not as it was written
  + DeadlineExceeded              124   it took longer than allowed

A message says what is wrong, with which value; `hint` says what to do about it.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class SignalboxError(Exception):
    """Root of the tree; its own exit code is for failures at run time."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.hint))


class UsageError(SignalboxError):
    """A command was given words it cannot take."""

    exit_code = 2


class ConfigError(SignalboxError):
    """A setting, an app or a route is wrong; nothing was started."""

    exit_code = 3


class Unreachable(SignalboxError):
    """A broker, a node or another dependency does not answer."""

    exit_code = 4


class NotFound(SignalboxError):
    """The named thing does not exist."""

    exit_code = 5


class ConditionNotMet(SignalboxError):
    """A check ran and its answer is no."""

    exit_code = 6


class Conflict(SignalboxError):
    """Refused, because somebody else holds what was asked for."""

    exit_code = 7


class StateDamaged(SignalboxError):
    """Saved state is missing or not as it was written; nothing goes on from half of it."""

    exit_code = 8


class DeadlineExceeded(SignalboxError):
    """It took longer than the caller allowed."""

    exit_code = 124


def described(error: BaseException) -> tuple[str, str]:
    """Class name and message of any exception, even of one that fails to tell; the name has 1 to 256 characters."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - it is somebody else's class
        message = "(it has no readable message)"
    return error.__class__.__name__[:256] or "Exception", message


def first_problem(error: "ValidationError", whole: str) -> str:
    """The first thing that a validation found wrong, and where; `whole` names the place if it is all of it."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or whole
    return f"{place}: {first['msg']}"


def _rebuild(kind: type[SignalboxError], message: str, hint: str | None) -> SignalboxError:
    return kind(message, hint=hint)
