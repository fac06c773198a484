"""`signalbox topic`: what lies on the broker, and signals as they come."""

import base64
import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, note_interrupts, session
from signalbox.cli.session import Session
from signalbox.errors import DeadlineExceeded, UsageError

if TYPE_CHECKING:
    from signalbox.ports import Record

app = group("Kafka topics.")

#: The columns of a table of signals, with their least widths.
_COLUMNS = {"time": 27, "type": 28, "subject": 20, "data": 0}


@app.command("list", cls=Command)
def list_topics(ctx: typer.Context) -> None:
    """List the topics of the broker. WRITTEN counts the records ever written, also those that have expired."""
    state = session(ctx)
    rows = [
        {"topic": topic.name, "partitions": topic.partitions, "written": sum(topic.end_offsets.values())}
        for topic in state.admin().topics()
    ]
    state.output().records(rows, ("topic", "partitions", "written"))


@app.command("tail", cls=Command)
def tail(
    ctx: typer.Context,
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC", help="Such as signals, alerts, results.")],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="start|now|TIMESTAMP",
            envvar="SIGNALBOX_TOPIC_TAIL_FROM",
            help="Where to begin; a time without zone is UTC.",
        ),
    ] = "now",
    pattern: Annotated[
        str | None, typer.Option("--pattern", metavar="P", help="Only signals whose type matches.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="End after so many, exit 0.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more, or end with what there is.")
    ] = True,
) -> None:
    """Show signals as JSON lines, one CloudEvents object each, as they come.

    Ends when --count is reached (exit 0), when --timeout seconds have passed first (exit 124), or on Ctrl-C. A record
    that is no signal is shown as an object with `invalid` in it, unless --pattern is given.
    """
    state = session(ctx)
    output, timeout_s = state.output("jsonl"), state.options.timeout
    wanted, begin = _matcher(pattern), _start(start)
    interrupted = note_interrupts()
    records = state.reader().read(
        _full_names(state, topics), start=begin, follow=follow, timeout_s=timeout_s, stop=interrupted.is_set
    )
    shown = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal shown
        found = (row for row in (described(record) for record in records) if wanted(row))
        for row in itertools.islice(found, count):
            shown += 1
            yield _as_columns(row) if output.format == "table" else row

    output.stream(rows(), _COLUMNS)
    if interrupted.is_set():
        raise KeyboardInterrupt
    if follow and (count is None or shown < count):
        msg = f"time is up after {timeout_s} s, with {shown} signals shown" + (f" of {count}" if count else "")
        raise DeadlineExceeded(msg)


def _full_names(state: Session, names: Sequence[str]) -> list[str]:
    """The broker's names of topics, which may be given with or without the prefix."""
    settings = state.connected()
    prefix = settings.kafka.topic_prefix
    return [name if prefix and name.startswith(prefix) else settings.topic(name) for name in names]


def described(record: "Record") -> dict[str, Any]:
    """A record as its CloudEvents object; or, if it is none, what it is, with `invalid` saying why."""
    from schemas.signal import MalformedSignal, decode, to_dict

    try:
        return to_dict(decode(record.value, record.headers))
    except MalformedSignal as error:
        return {
            "invalid": {"reason": error.reason, "message": str(error)},
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            **_raw("key", record.key),
            **_raw("value", record.value),
        }


def _as_columns(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table; one that is no signal says why in place of a type."""
    if "invalid" not in row:
        return row
    return {"type": f"({row['invalid']['reason']})", "subject": row.get("key"), "data": row.get("value")}


def _raw(name: str, value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _matcher(pattern: str | None) -> Any:
    if pattern is None:
        return lambda _row: True
    from signalbox.routing import InvalidPattern, Pattern

    try:
        parsed = Pattern.parse(pattern)
    except InvalidPattern as error:
        raise UsageError(str(error), hint=error.hint) from None
    return lambda row: parsed.matches(row.get("type", ""))


def _start(text: str) -> str | datetime:
    if text in ("start", "now"):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"--from {text!r} is neither start, now nor a time"
        raise UsageError(msg, hint="write a time as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
