"""Whole topics read to their present end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from signalbox.cli.session import Session

if TYPE_CHECKING:
    from schemas.signal import Signal


def read_signals(state: Session, topic: str) -> "Iterator[Signal[Any]]":
    """The signals on one of our topics, from its start to what is its end now; other records are passed over.

    Raises:
        Unreachable: no broker answers.
        NotFound: there is no such topic.
    """
    from schemas.signal import MalformedSignal, decode

    name = state.connected().topic(topic)
    for record in state.reader().read([name], start="start", follow=False, timeout_s=state.options.timeout):
        try:
            yield decode(record.value, record.headers)
        except MalformedSignal:
            continue
