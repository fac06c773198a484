"""`signalbox dlq`: what could not be handled, why, and another try for it.

A replay puts the original key, value and headers on the topic they came from. Nothing marks a dead letter as replayed,
so a second replay sends it a second time; the headers of a replay tell which dead letter it came from and how often
the record was replayed before, and reach the next dead letter if it fails again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.records import read_signals
from signalbox.cli.session import Session
from signalbox.errors import NotFound, SignalboxError

if TYPE_CHECKING:
    from schemas.dead_letter import DeadLetter

app = group("Dead letters: records that could not be handled.")

#: How often a record was replayed, as decimal digits; each replay counts one up.
REPLAY_HEADER = "signalbox_replay"
#: The id of the dead letter that a replay came from.
DEAD_LETTER_HEADER = "signalbox_dead_letter"

_COLUMNS = ("id", "time", "reason", "origin", "type", "bytes", "replays", "message")
_Reason = Annotated[str | None, typer.Option("--reason", metavar="R", help="Only those with this reason.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter as it was read."""

    id: str
    time: datetime | None
    record: "DeadLetter"

    @property
    def origin(self) -> str:
        origin = self.record.origin
        return f"{origin.topic}[{origin.partition}]@{origin.offset}"

    @property
    def replays(self) -> int:
        """How often the record had been replayed when it came here."""
        import base64

        values = [value for name, value in self.record.headers if name == REPLAY_HEADER and value]
        digits = base64.b64decode(values[-1]) if values else b"0"
        return int(digits) if digits.isdigit() else 0


@app.command("list", cls=Command)
def list_letters(
    ctx: typer.Context,
    reason: _Reason = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the latest so many.")] = None,
) -> None:
    """List dead letters, oldest first."""
    state = session(ctx)
    letters = [letter for letter in _letters(state) if reason in (None, letter.record.reason)]
    rows = [
        {
            "id": letter.id,
            "time": letter.time,
            "reason": letter.record.reason,
            "origin": letter.origin,
            "type": letter.record.signal_type,
            "bytes": letter.record.size_bytes,
            "replays": letter.replays,
            "message": letter.record.message,
        }
        for letter in (letters[-limit:] if limit else letters)
    ]
    state.output().records(rows, _COLUMNS)


@app.command("show", cls=Command)
def show(ctx: typer.Context, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one dead letter whole, with its value as text if it is text."""
    state = session(ctx)
    letter = _chosen(_letters(state), [id])[0]
    row = {"id": letter.id, "time": letter.time, **letter.record.model_dump(mode="json")}
    text = _text(letter.record.value_base64)
    if text is not None:
        row["value"] = text
    state.output().record(row)


@app.command("replay", cls=Command)
def replay(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Default: all of them.")] = None,
    reason: _Reason = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the oldest so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Put the original records back on the topics they came from, and print what was done with each.

    A dead letter that keeps only a part of its record cannot be replayed; it is reported, and the exit code is 1.
    """
    state = session(ctx)
    letters = _chosen(list(_letters(state)), ids or [])
    letters = [letter for letter in letters if reason in (None, letter.record.reason)][:limit]
    if not letters:
        state.note("there is nothing to replay")
    elif not dry_run:
        topics = Counter(letter.record.origin.topic for letter in letters)
        where = ", ".join(f"{count} to {topic}" for topic, count in topics.items())
        state.confirm(f"Replay {len(letters)} records ({where})?")
    rows = list(_replayed(state, letters, dry_run=dry_run))
    state.output().records(rows, ("id", "topic", "outcome", "why"))
    skipped = sum(row["outcome"] == "skipped" for row in rows)
    verb = "would be replayed" if dry_run else "replayed"
    state.note(f"{len(rows) - skipped} {verb}, {skipped} skipped")
    if skipped:
        msg = f"{skipped} of {len(rows)} records cannot be restored from their dead letters"
        raise SignalboxError(msg, hint="read them at their origin, which `signalbox dlq list` names")


def _replayed(state: Session, letters: Sequence[Letter], *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """One row per letter, once the broker has acknowledged all of them."""
    from schemas.dead_letter import NotWhole, original_bytes, original_headers, original_key

    rows: list[dict[str, Any]] = []
    with state.publisher() as publisher:
        for letter in letters:
            row = {"id": letter.id, "topic": letter.record.origin.topic, "outcome": "replayed", "why": None}
            rows.append(row)
            try:
                key, value = original_key(letter.record), original_bytes(letter.record)
                headers = _marked(original_headers(letter.record), letter)
            except NotWhole as error:
                row |= {"outcome": "skipped", "why": str(error)}
                continue
            if dry_run:
                row["outcome"] = "would be replayed"
            else:
                publisher.publish_raw(letter.record.origin.topic, key, value, headers)
        publisher.flush(state.timeout_s())
    yield from rows


def _marked(headers: Sequence[tuple[str, bytes | None]], letter: Letter) -> list[tuple[str, bytes | None]]:
    """The record's headers, with what tells that it is a replay."""
    kept = [(name, value) for name, value in headers if name not in (REPLAY_HEADER, DEAD_LETTER_HEADER)]
    replays = str(letter.replays + 1).encode()
    return [*kept, (REPLAY_HEADER, replays), (DEAD_LETTER_HEADER, letter.id.encode())]


def _letters(state: Session) -> list[Letter]:
    from pydantic import ValidationError

    from schemas.dead_letter import DEAD_LETTER_TYPE, DeadLetter

    letters = []
    for signal in read_signals(state, "dead-letters"):
        if signal.type != DEAD_LETTER_TYPE:
            continue
        try:
            record = DeadLetter.model_validate(signal.data)
        except ValidationError:
            state.note(f"{signal.id} on dead-letters is not a dead letter as this version reads them")
            continue
        letters.append(Letter(id=signal.id, time=signal.time, record=record))
    return sorted(letters, key=lambda letter: letter.time.timestamp() if letter.time else 0.0)


def _chosen(letters: Sequence[Letter], ids: Sequence[str]) -> list[Letter]:
    """The letters of these ids, or all if none are given.

    Raises:
        NotFound: an id is nobody's.
    """
    if not ids:
        return list(letters)
    by_id = {letter.id: letter for letter in letters}
    for id in ids:
        if id not in by_id:
            msg = f"there is no dead letter {id!r}"
            raise NotFound(msg, hint="`signalbox dlq list` lists them")
    return [by_id[id] for id in dict.fromkeys(ids)]


def _text(encoded: str | None) -> str | None:
    import base64

    try:
        return None if encoded is None else base64.b64decode(encoded).decode()
    except ValueError:
        return None
