"""An app with actions that leave a line for each call in a file, so that a test can count what was done."""

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel

from signalbox.actions import ActionContext, ActionError, Retry, action
from signalbox.app import App


class Call(BaseModel):
    """What to do at a call."""

    value: int
    log: Path
    takes_s: float = 0.0
    fails: int = 0
    """So many attempts fail first."""


def _note(call: Call, context: ActionContext) -> None:
    line = f"{call.value} {context.idempotency_key} {context.attempt} {time.time()}\n"
    file = os.open(call.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode())
    os.close(file)
    if context.attempt <= call.fails:
        msg = "not yet"
        raise ActionError(msg, type="not_yet", retryable=True)


@action(timeout_s=10, retry=Retry(max_attempts=4, first_s=0.01))
async def pay(call: Call, context: ActionContext) -> dict[str, int]:
    """Take the time, and leave a line."""
    _note(call, context)
    await asyncio.sleep(call.takes_s)
    return {"paid": call.value}


@action(timeout_s=10)
def pay_blocking(call: Call, context: ActionContext) -> dict[str, int]:
    """The same in a thread."""
    _note(call, context)
    time.sleep(call.takes_s)
    return {"paid": call.value}


@action()
async def die(call: Call, context: ActionContext) -> None:
    """Leave a line, and take the process with it."""
    _note(call, context)
    os._exit(9)


app = App(actions=[pay, pay_blocking, die])
without_effects = App(builtins=False)
