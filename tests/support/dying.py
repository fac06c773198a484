"""An app whose worker process ends at a chosen point of an action's life, once, when a file says so.

Only for workers of tests: importing this changes the sink and the journal of the process.
"""

import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from connectors.kafka import sink
from connectors.kafka.journal import KafkaJournal
from schemas.signal import Signal
from signalbox.actions import ActionContext, ActionError, action
from signalbox.actions.ledger import OUTCOMES, STEP_ENDED
from signalbox.app import App
from signalbox.config import EFFECTS_TOPIC

ORDER_FILE = "SIGNALBOX_TEST_DIE_AT"
"""The environment variable that names the file. It holds one of `Point`, and is gone once it was obeyed."""


class Point(StrEnum):
    """Where the process ends."""

    REQUEST_DECIDED = "request_decided"
    """The input was read and the agent has decided; the request is not on the topic."""
    REQUEST_WRITTEN = "request_written"
    EFFECT_BEGINS = "effect_begins"
    """The action runs, and has done nothing yet."""
    EFFECT_DONE = "effect_done"
    """The other side has answered."""
    OUTCOME_UNWRITTEN = "outcome_unwritten"
    OUTCOME_WRITTEN = "outcome_written"
    """The outcome is on the topic; nobody has read it."""
    ANSWER_UNWRITTEN = "answer_unwritten"
    """The agent has handled the outcome."""
    ANSWER_WRITTEN = "answer_written"
    """The answer is on its topic; no snapshot knows."""
    UNDO_UNWRITTEN = "undo_unwritten"
    """The first compensation has run, and is not journaled."""
    UNDO_WRITTEN = "undo_written"
    """It is journaled, and the second has not begun."""


def _die_at(point: Point) -> None:
    order = Path(os.environ[ORDER_FILE])
    if order.exists() and order.read_text() == point:
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class Payment(BaseModel):
    """What is paid for, and where."""

    item: str
    url: str


@action(timeout_s=20)
async def pay(payment: Payment, context: ActionContext) -> str:
    """Call the other side."""
    _die_at(Point.EFFECT_BEGINS)
    await context.services.http.request(
        "POST", f"{payment.url}/{payment.item}", headers={"Idempotency-Key": context.idempotency_key}, timeout_s=10
    )
    _die_at(Point.EFFECT_DONE)
    return payment.item


@action(timeout_s=20)
async def order(payment: Payment, context: ActionContext) -> str:
    """Pay for two things, find that the third is not to be had, and give both back in reverse order."""
    for part in ("first", "second"):
        await context.call("pay", {"item": f"{payment.item}/{part}", "url": payment.url}, key=part)
    for part in ("second", "first"):
        await context.call("pay", {"item": f"{payment.item}/undo-{part}", "url": payment.url}, key=f"undo:{part}")
    msg = "the third was not to be had"
    raise ActionError(msg, type="rolled_back")


def _patch_sink() -> None:
    write_batch = sink._Partition.write_batch

    def watched(part: Any, values: Any) -> None:
        moments = {
            EFFECTS_TOPIC: (Point.REQUEST_DECIDED, Point.REQUEST_WRITTEN),
            "results": (Point.ANSWER_UNWRITTEN, Point.ANSWER_WRITTEN),
        }.get(part.topic)
        if moments is None or values == [sink.PULSE]:
            write_batch(part, values)
            return
        _die_at(moments[0])
        write_batch(part, values)
        part._hub.flush()
        _die_at(moments[1])

    sink._Partition.write_batch = watched  # type: ignore[method-assign]


def _patch_journal() -> None:
    append = KafkaJournal.append

    def watched(
        journal: KafkaJournal,
        partition: int,
        record: Signal[Any],
        acknowledged: Callable[[BaseException | None], None],
    ) -> None:
        moments = None
        if record.type in OUTCOMES:
            moments = (Point.OUTCOME_UNWRITTEN, Point.OUTCOME_WRITTEN)
        elif record.type == STEP_ENDED and record.data.key == "undo:second":
            moments = (Point.UNDO_UNWRITTEN, Point.UNDO_WRITTEN)
        if moments is None:
            append(journal, partition, record, acknowledged)
            return
        _die_at(moments[0])
        append(journal, partition, record, lambda error: (_die_at(moments[1]), acknowledged(error)))  # type: ignore[func-returns-value]

    KafkaJournal.append = watched  # type: ignore[method-assign]


if ORDER_FILE in os.environ:
    _patch_sink()
    _patch_journal()

app = App(actions=[pay, order])
