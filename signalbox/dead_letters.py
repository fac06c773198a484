"""Makes the record for a signal, or for bytes that are none, that could not be handled."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from schemas.dead_letter import DEAD_LETTER_TYPE, dead_letter_data
from schemas.signal import Signal, encode
from signalbox.ids import derived_id
from signalbox.ports import Outgoing

DEAD_LETTERS = "dead-letters"


class Where(NamedTuple):
    """Where a record was read from."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, origin: tuple[str, int], offset: int) -> "Where":
        """The place at this offset of a topic's partition; of what no broker delivered, nowhere."""
        return NOWHERE if offset < 0 else cls(*origin, offset)


#: Where signals that no broker delivered come from: timers and starts.
NOWHERE = Where("", -1, -1)


def dead_letter(
    reason: str,
    message: str,
    *,
    where: Where,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | str | None]] = (),
    limit_bytes: int,
    now: datetime,
    timestamp: datetime | None = None,
    signal: Signal[Any] | None = None,
    agent_id: str | None = None,
    source: str = "router",
) -> Outgoing:
    """The dead letter of one record. The same record, reason and agent give the same id.

    `source` says who sets it aside where that is no agent.
    """
    place = f"{where.topic}/{where.partition}/{where.offset}"
    data = dead_letter_data(
        reason=reason,
        message=message,
        topic=where.topic,
        partition=where.partition,
        offset=where.offset,
        key=key,
        value=value,
        headers=headers,
        limit_bytes=limit_bytes,
        timestamp=timestamp,
        signal_id=signal.id if signal else None,
        signal_type=signal.type if signal else None,
        agent_id=agent_id,
    )
    letter: Signal[Any] = Signal(
        id=derived_id(place, f"{agent_id}|{reason}", 0),
        source=f"agent/{agent_id}" if agent_id else source,
        type=DEAD_LETTER_TYPE,
        subject=signal.subject if signal else None,
        time=now,
        causationid=signal.id if signal else None,
        correlationid=signal.correlationid if signal else None,
        data=data,
    )
    return Outgoing(DEAD_LETTERS, signal.key if signal else place, letter.id, letter.type, encode(letter))
