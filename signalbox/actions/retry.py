"""When an action is tried again, and after how long."""

import random
from dataclasses import dataclass
from typing import Any


class ActionError(Exception):
    """An action's own refusal.

    Attributes:
        type: a short, stable word for the caller.
        retryable: whether the same call may succeed later.
        retry_after_s: how long the other side asked to wait before that.
        details: what else there is to tell, as JSON values.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "refused",
        retryable: bool = False,
        retry_after_s: float | None = None,
        details: Any = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with full jitter: a random wait up to `first_s * factor ** (attempt - 1)`, at most `max_s`.

    Full jitter spreads callers best (Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015). What the
    other side asked to wait is waited in any case, with the jitter on top.
    """

    max_attempts: int = 3
    first_s: float = 0.2
    factor: float = 2.0
    max_s: float = 30.0
    max_elapsed_s: float | None = None
    """Seconds since the first attempt after which no further one begins."""
    on: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)
    """Errors that may pass, besides an `ActionError` that says so of itself."""
    give_up_on: tuple[type[Exception], ...] = ()
    """Errors that do not, although `on` has a base class of theirs."""

    def allows(self, error: Exception, *, attempts: int, elapsed_s: float) -> bool:
        """Whether another attempt may follow after so many, the last of which raised `error`."""
        if attempts >= self.max_attempts or (self.max_elapsed_s is not None and elapsed_s >= self.max_elapsed_s):
            return False
        return self.is_passing(error)

    def is_passing(self, error: BaseException) -> bool:
        """Whether the same call may succeed later."""
        if isinstance(error, ActionError):
            return error.retryable
        return isinstance(error, self.on) and not isinstance(error, self.give_up_on)

    def wait_s(self, error: BaseException, *, attempts: int, chance: random.Random) -> float:
        """How long to wait before the next attempt, after so many."""
        longest = min(self.max_s, self.first_s * self.factor ** (attempts - 1))
        asked = getattr(error, "retry_after_s", None) or 0.0
        return asked + chance.uniform(0, longest)


NO_RETRY = Retry(max_attempts=1)
