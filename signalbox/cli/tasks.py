"""`signalbox task`: submits tasks and waits for their answers."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalbox.cli.base import Command, group, session
from signalbox.cli.session import SOURCE, Session
from signalbox.cli.signals import parsed_json, sent
from signalbox.errors import DeadlineExceeded, SignalboxError, UsageError

if TYPE_CHECKING:
    from schemas.signal import Signal

app = group("Submit tasks.")

DEFAULT_WAIT_S = 60.0
_ANSWERS = {"task.completed": "completed", "task.failed": "failed", "task.rejected": "rejected"}
_COLUMNS = {"task_id": 32, "status": 9, "agent_id": 16, "duration_ms": 11, "result": 0, "error": 0}


@app.command("submit", cls=Command)
def submit(
    ctx: typer.Context,
    action: Annotated[str, typer.Option("--action", metavar="NAME", help="The action to run, such as echo.")],
    params: Annotated[
        str, typer.Option("--params", metavar="JSON", help="Its parameters; with --count, {i} in it is 0, 1, 2, ...")
    ] = "{}",
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="Submit so many tasks; default 1.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers and print them.")] = False,
) -> None:
    """Submit tasks and print their ids; with --wait, print their answers as they come.

    With --wait the exit code is 0 if every task was completed, 1 if one failed or was rejected, and 124 if answers
    were missing after --timeout seconds (60 unless given).
    """
    state = session(ctx)
    settings = state.connected()
    tasks = [_task(action, params, number) for number in range(count)] if count else [_task(action, params, None)]
    # Reading begins before the first task is sent, so no answer can be missed.
    answers = _Answers(state, {task.key for task in tasks}, settings.topic("results")) if wait else None
    with state.publisher() as publisher:
        signal_ids = list(sent(publisher, tasks, lambda _task: settings.topic("signals"), state.timeout_s()))
    if answers is None:
        state.output().words([task.key for task in tasks], "task_id")
        return
    state.note(f"submitted {len(signal_ids)}")
    state.output().stream(answers.rows(), _COLUMNS)
    answers.judge()


class _Answers:
    """Waits for the answer to each of a set of tasks."""

    def __init__(self, state: Session, task_ids: set[str], topic: str) -> None:
        self._state = state
        self._total = len(task_ids)
        self._waiting = task_ids
        self._bad = 0
        self._timeout_s = state.timeout_s(DEFAULT_WAIT_S)
        self._records = state.reader().read([topic], start="now", follow=True, timeout_s=self._timeout_s)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each answer once, until there is one for every task or time is up."""
        with _progress(self._state, self._total) as advance:
            for record in self._records:
                row = _answer(record.value, record.headers)
                if row is None or row["task_id"] not in self._waiting:
                    continue
                self._waiting.discard(row["task_id"])
                self._bad += row["status"] != "completed"
                advance()
                yield row
                if not self._waiting:
                    return

    def judge(self) -> None:
        """Raise what the exit code should say: missing answers before bad ones."""
        answered = self._total - len(self._waiting)
        self._state.note(f"completed {answered - self._bad}, failed {self._bad}, without answer {len(self._waiting)}")
        if self._waiting:
            msg = f"{len(self._waiting)} of {self._total} tasks have no answer after {self._timeout_s:g} s"
            raise DeadlineExceeded(msg, hint="is a node running? `signalbox status` and `signalbox lag` tell")
        if self._bad:
            msg = f"{self._bad} of {self._total} tasks were not completed"
            raise SignalboxError(msg)


def _task(action: str, params: str, number: int | None) -> "Signal[Any]":
    """One task; `number` stands in for `{i}` in the parameters.

    Raises:
        UsageError: the parameters are not a JSON object.
    """
    from schemas.signal import new_signal

    values = parsed_json(params if number is None else params.replace("{i}", str(number)), "--params")
    if not isinstance(values, dict):
        msg = f"--params is a JSON object, not {params!r}"
        raise UsageError(msg, hint="such as --params '{\"value\": 1}'")
    task_id = uuid.uuid4().hex
    data = {"task_id": task_id, "action": action, "params": values}
    return new_signal("task.submitted", data, source=SOURCE, subject=task_id)


def _answer(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any] | None:
    """A record of the results topic as a row, or None if it answers no task."""
    from schemas.signal import MalformedSignal, decode

    try:
        signal = decode(value, headers)
    except MalformedSignal:
        return None
    status = _ANSWERS.get(signal.type)
    if status is None or not isinstance(signal.data, dict):
        return None
    data = signal.data
    error = data.get("error") or (
        {"type": data["reason"], "message": data.get("message")} if "reason" in data else None
    )
    row = {
        "task_id": data.get("task_id"),
        "status": status,
        "agent_id": data.get("agent_id"),
        "duration_ms": data.get("duration_ms"),
        "attempts": data.get("attempts"),
        "result": data.get("result"),
        "error": error,
    }
    return row if isinstance(row["task_id"], str) else None


@contextlib.contextmanager
def _progress(state: Session, total: int) -> "Iterator[Any]":
    """Yields a function to call for every answer; draws a bar on stderr if that is a terminal."""
    if not state.progress():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Rows go to stdout meanwhile; a bar that captured them would move them to stderr.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task("answers", total=total)
        yield lambda: bar.advance(task)
