"""`signalbox signal`: puts signals on Kafka, and says of each only when the broker has it."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.files import lines_of
from signalbox.cli.session import SOURCE, Session
from signalbox.errors import SignalboxError, UsageError

if TYPE_CHECKING:
    from schemas.signal import Signal
    from signalbox.config import Settings
    from signalbox.ports import Publisher

app = group("Send signals.")

#: So many signals are queued before their delivery is awaited and their ids are printed, or as many as come in so long.
_BATCH = 1000
_BATCH_S = 0.5
#: Further faulty lines are only counted.
_FAULTS_SHOWN = 20


@app.command("send", cls=Command)
def send(
    ctx: typer.Context,
    type: Annotated[str | None, typer.Argument(metavar="TYPE", help="Such as room.temperature.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="S", help="The entity it is about; also the Kafka key.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="What it carries.")] = None,
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Default: a random one.")] = None,
    source: Annotated[str, typer.Option("--source", metavar="S", help="Who says it.")] = SOURCE,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="F.jsonl|-", help="Send every line of a file, or of stdin, in place of TYPE."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", min=0.001, help="At most so many signals per second.")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="TOPIC", help="Default: control for control.*, signals for all others."),
    ] = None,
) -> None:
    """Send a signal, or one per line of a file, and print their ids once the broker has acknowledged them.

    A line is a CloudEvents object; specversion, id, source and time are filled in if they are missing. A line that is
    no signal is reported with its number and the others are sent all the same; the exit code is then 1.
    """
    state = session(ctx)
    if (type is None) == (file is None):
        msg = "give either TYPE or --file"
        raise UsageError(msg, hint="such as: signalbox signal send room.temperature --data '{\"celsius\": 17}'")
    if file is None:
        signal = _signal({"type": type, "subject": subject, "data": parsed_json(data, "--data"), "id": id}, source)
        with state.publisher() as publisher:
            state.output().words(
                sent(publisher, [signal], _topic_of(state.connected(), topic), state.timeout_s()), "id"
            )
        return
    if subject is not None or data is not None or id is not None:
        msg = "--subject, --data and --id belong to TYPE; with --file they stand in the lines"
        raise UsageError(msg)
    with lines_of(file) as lines, state.publisher() as publisher:
        _send_lines(state, publisher, lines, source=source, topic=topic, rate=rate)


def sent(
    publisher: "Publisher", signals: "Iterable[Signal[Any]]", topic_of: "Callable[[Signal[Any]], str]", timeout_s: float
) -> Iterator[str]:
    """Publish signals, and yield the id of each when the broker has it.

    Raises:
        Unreachable: the broker refused some, or did not answer within `timeout_s`; their ids were not yielded.
    """
    waiting: list[str] = []
    flushed = time.monotonic()
    for signal in signals:
        publisher.publish(topic_of(signal), signal)
        waiting.append(signal.id)
        if len(waiting) >= _BATCH or time.monotonic() - flushed >= _BATCH_S:
            publisher.flush(timeout_s)
            flushed = time.monotonic()
            yield from waiting
            waiting.clear()
    publisher.flush(timeout_s)
    yield from waiting


def say(state: Session, topic: str, type: str, data: Any, *, subject: str) -> None:
    """Put one signal on a topic, named without its prefix, and print the signal's id once the broker has it."""
    from schemas.signal import new_signal

    name = state.connected().topic(topic)
    signal = new_signal(type, data, source=SOURCE, subject=subject)
    with state.publisher() as publisher:
        state.output().words(sent(publisher, [signal], lambda _signal: name, state.timeout_s()), "id")


def parsed_json(text: str | None, option: str) -> Any:
    """The JSON value an option was given, or None.

    Raises:
        UsageError: it is not JSON.
    """
    import msgspec

    try:
        return None if text is None else msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        msg = f"{option} is not JSON: {error}"
        raise UsageError(msg, hint="put it in single quotes, so that the shell leaves the double ones alone") from None


def _send_lines(
    state: Session, publisher: "Publisher", lines: Iterable[str], *, source: str, topic: str | None, rate: float | None
) -> None:
    faults = 0
    good = 0

    def signals() -> "Iterator[Signal[Any]]":
        nonlocal faults, good
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                signal = _signal(_object(line), source)
            except UsageError as error:
                faults += 1
                if faults <= _FAULTS_SHOWN:
                    typer.echo(f"line {number}: {error}", err=True)
                continue
            good += 1
            yield signal

    topic_of = _topic_of(state.connected(), topic)
    paced = signals() if rate is None else _paced(signals(), rate)
    state.output().words(sent(publisher, paced, topic_of, state.timeout_s()), "id")
    state.note(f"sent {good}, not sent {faults}")
    if faults:
        msg = f"{faults} lines are no signals and were not sent; the other {good} were"
        raise SignalboxError(msg, hint="a line is a JSON object with at least a type")


def _paced(signals: "Iterable[Signal[Any]]", rate: float) -> "Iterator[Signal[Any]]":
    """The same signals, each not before its time. A sender that fell behind catches up."""
    start = time.monotonic()
    for index, signal in enumerate(signals):
        time.sleep(max(0.0, start + index / rate - time.monotonic()))
        yield signal


def _object(line: str) -> dict[str, Any]:
    import msgspec

    try:
        value = msgspec.json.decode(line)
    except UnicodeEncodeError:  # a byte that is not UTF-8 was read as a lone surrogate, which has no UTF-8 form
        msg = "it holds bytes that are not UTF-8"
        raise UsageError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise UsageError(msg) from None
    if not isinstance(value, dict):
        msg = f"a signal is a JSON object, not {line.strip()[:40]!r}"
        raise UsageError(msg)
    return value


def _signal(attributes: dict[str, Any], source: str) -> "Signal[Any]":
    """A signal of these attributes, checked as a reader would, with the ones every signal has filled in."""
    import msgspec

    from schemas.signal import SPEC_VERSION, MalformedSignal, decode, new_signal

    fresh = new_signal("fresh", source=source)
    filled = {"specversion": SPEC_VERSION, "id": fresh.id, "source": source, "time": fresh.time}
    filled |= {name: value for name, value in attributes.items() if value is not None}
    try:
        return decode(msgspec.json.encode(filled))
    except (MalformedSignal, UnicodeEncodeError) as error:
        raise UsageError(str(error)) from None


def _topic_of(settings: "Settings", topic: str | None) -> "Callable[[Signal[Any]], str]":
    def topic_of(signal: "Signal[Any]") -> str:
        return settings.topic(topic or ("control" if signal.type.startswith("control.") else "signals"))

    return topic_of
