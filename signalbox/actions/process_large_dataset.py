"""The action `process_large_dataset`: works through rows in chunks, with bounded memory and a place in a pool.

A run holds a token of the pool `heavy_computation`. Each chunk is worked in a thread, so that other actions go on, and
between chunks a run can be cancelled. When there is no token, or memory is short, the chunks become smaller, until
the run gives up and leaves it to its retry policy to come back. Which rows come out does not depend on the chunks.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import IO, Any, TypeVar

import msgspec
from pydantic import BaseModel, RootModel

from signalbox.actions.contract import ActionContext, action
from signalbox.actions.datasets import BadRow, OutputFile, open_dataset, rows_of
from signalbox.actions.processing import DatasetFile, Processing, Row
from signalbox.actions.retry import ActionError, Retry
from signalbox.resources import ResourceExhausted, Token

POOL = "heavy_computation"
PAUSE_S = 1.0
"""How long a run waits for a token, and for memory, before it asks again with smaller chunks."""
TOLD_ROWS = 10
"""So many rows that could not be used are told."""
_REASON = 200  # characters

T = TypeVar("T")


class DatasetParams(RootModel[Processing]):
    """A dataset, and what is to be done with it, told by `processing_type`."""


class InvalidRow(BaseModel):
    """A row that was left out."""

    row: int
    """Its number, from 1."""
    reason: str


class DatasetReport(BaseModel):
    """What was done."""

    processing_type: str
    rows_in: int
    rows_out: int
    chunks: int
    """Chunks worked, in all passes."""
    chunk_size: int
    """At the end: smaller than asked for if resources were short."""
    invalid_rows: int
    invalid: list[InvalidRow]
    """The first of them."""
    rows: list[Row] | None = None
    """What came out, unless it went to a file."""
    output: str | None = None


@action(retry=Retry(max_attempts=3, first_s=5.0), heartbeat_s=120.0)
async def process_large_dataset(params: DatasetParams, context: ActionContext) -> DatasetReport:
    """Aggregate, filter, normalise or dedupe the rows of a dataset, in chunks.

    Raises:
        ActionError: `insufficient_resources`, which may pass; `dataset_refused`, `dataset_not_found`,
            `invalid_dataset`, `invalid_expression`, `result_too_large`, `too_many_groups` or `too_many_keys`.
    """
    run = _Run(params.root, context)
    try:
        await run.complete()
    finally:
        run.close()
    return run.report()


class _Run:
    """One run. What is called in a thread is called by one at a time."""

    def __init__(self, params: Processing, context: ActionContext) -> None:
        self._params = params
        self._context = context
        self._resources = context.services.resources
        self._work = params.work()
        self._chunk_size = params.chunk_size
        self._token: Token | None = None
        self._file: IO[bytes] | None = None
        self._output: OutputFile | None = None
        self._rows: list[Row] = []
        self._rows_bytes = 0
        self._rows_in = self._rows_out = self._chunks = self._invalid_rows = 0
        self._invalid: list[InvalidRow] = []

    async def complete(self) -> None:
        """Work through all passes, and let the output take its name."""
        await self._in_turn()
        await _in_thread(self._open)
        for left in reversed(range(self._params.passes)):
            handle = self._prepare if left else self._take
            rows = self._source()
            while await _in_thread(self._work_chunk, rows, handle):
                await self._in_turn()
        await _in_thread(self._finish)

    def close(self) -> None:
        """Give back everything; a second time does nothing."""
        if self._token is not None:
            self._resources.release(self._token)
        if self._file is not None:
            self._file.close()
        if self._output is not None:
            self._output.close()

    def report(self) -> DatasetReport:
        """What was done."""
        kept = self._params.output is None
        return DatasetReport(
            processing_type=self._params.processing_type,
            rows_in=self._rows_in,
            rows_out=self._rows_out,
            chunks=self._chunks,
            chunk_size=self._chunk_size,
            invalid_rows=self._invalid_rows,
            invalid=self._invalid,
            rows=self._rows if kept else None,
            output=self._params.output,
        )

    # In the event loop.

    async def _in_turn(self) -> None:
        """Come back when this run may work a chunk."""
        self._context.heartbeat()
        if self._token is None or not self._resources.renew(self._token):
            self._token = await self._afford(self._acquire)
        else:
            await self._afford(self._memory)

    async def _acquire(self) -> Token:
        holder = f"process_large_dataset {self._context.idempotency_key}"
        return await self._resources.acquire(POOL, holder=holder, wait_s=PAUSE_S)

    async def _memory(self) -> None:
        self._resources.require_memory()

    async def _afford(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the answer is not that resources are short; each time it is, chunks become half as large."""
        while True:
            try:
                return await ask()
            except ResourceExhausted as refusal:
                self._chunk_size //= 2
                if self._chunk_size < 1 or not refusal.retryable:
                    msg = f"{refusal}; {refusal.hint}"
                    raise ActionError(msg, type="insufficient_resources", retryable=refusal.retryable) from None
            self._context.heartbeat()
            await asyncio.sleep(PAUSE_S)

    # In a thread.

    def _open(self) -> None:
        settings, params = self._context.services.settings.actions.datasets, self._params
        if isinstance(params.dataset, DatasetFile):
            self._file = open_dataset(params.dataset.file, settings)
        if params.output is not None:
            self._output = OutputFile(params.output, settings, key=self._context.idempotency_key)

    def _source(self) -> Iterator[Any]:
        if isinstance(self._params.dataset, DatasetFile):
            assert self._file is not None
            return rows_of(self._file, self._params.dataset.file)
        return iter(self._params.dataset)

    def _work_chunk(self, rows: Iterator[Any], handle: Callable[[Any], None]) -> bool:
        """Whether there may be more."""
        worked = 0
        for row in itertools.islice(rows, self._chunk_size):
            worked += 1
            handle(row)
        self._chunks += worked > 0
        return worked == self._chunk_size

    def _prepare(self, row: Any) -> None:
        with contextlib.suppress(BadRow):  # `_take` tells of it
            self._work.prepare(_usable(row))

    def _take(self, row: Any) -> None:
        self._rows_in += 1
        try:
            came = self._work.take(_usable(row))
        except BadRow as error:
            self._invalid_rows += 1
            if len(self._invalid) < TOLD_ROWS:
                self._invalid.append(InvalidRow(row=self._rows_in, reason=str(error)[:_REASON]))
        else:
            if came is not None:
                self._deliver(came)

    def _finish(self) -> None:
        for row in self._work.rest():
            self._deliver(row)
        if self._output is not None:
            self._output.finish()

    def _deliver(self, row: Row) -> None:
        """Put a row that came out where it belongs."""
        self._rows_out += 1
        if self._output is not None:
            self._output.write(row)
            return
        self._rows.append(row)
        self._rows_bytes += len(msgspec.json.encode(row)) + 1  # and a comma
        limit = self._context.services.settings.actions.result_bytes
        if self._rows_bytes > limit:
            msg = f"more than {limit} bytes come out, which actions.result_bytes allows: give an output file"
            raise ActionError(msg, type="result_too_large")


def _usable(row: Any) -> Row:
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        msg = "it is no JSON object"
        raise BadRow(msg)
    return row


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    """Run in a thread. A cancellation waits until it has ended, for what it works on is let go of next."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # so that nobody is told that it was not looked at
        raise
