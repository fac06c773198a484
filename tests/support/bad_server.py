"""A real HTTP server on the loopback that misbehaves: by path, by script, or at a seeded share of its calls.

It logs each call before it answers, so that a test can count what was really done. As a process of its own:
`python -m tests.support.bad_server --port 0 --log FILE --fail 0.3 --seed 1` prints its port.
"""

import argparse
import asyncio
import contextlib
import functools
import gzip
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from tests.support.lines import whole_lines

LOOPBACK = "127.0.0.1"
#: Where `redirect_private` leads: no other machine hears of it, even if nobody stops the call.
NEIGHBOUR, DISCARD_PORT = "127.0.0.2", 9
#: What a dependency that fails now and then does, for `fail`.
PASSING = ("error_500", "busy_429", "busy_503", "hang", "drip", "reset", "half_closed", "truncated", "garbage")
#: Size of a body that nobody should read to its end.
HUGE_BYTES = 50_000_000
_DRIP_S = 0.2


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(bytes(HUGE_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that came."""

    method: str
    path: str
    key: str | None
    """Its `Idempotency-Key`."""
    at: float
    """Unix time in seconds."""
    does: str
    """What the server did about it."""
    headers: dict[str, str]
    body: str


class Exchange:
    """One request with the connection that it came on. Each public method is a way to answer; True keeps it open."""

    def __init__(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._call = call
        self._reader = reader
        self._writer = writer

    async def ok(self) -> bool:
        answer = json.dumps({name: value for name, value in asdict(self._call).items() if name not in ("at", "does")})
        return self._answer(200, answer.encode(), "Content-Type: application/json")

    async def text(self) -> bool:
        return self._answer(200, "grün".encode("latin-1"), "Content-Type: text/plain; charset=iso-8859-1")

    async def bytes(self) -> bool:
        return self._answer(200, b"\x00\xff", "Content-Type: application/octet-stream")

    async def not_json(self) -> bool:
        return self._answer(200, b"{", "Content-Type: application/json")

    async def cookie(self) -> bool:
        return self._answer(200, b"", "Set-Cookie: session=secret", "X-Long: " + "x" * 5000, "X-Twice: a", "X-Twice: b")

    async def compressed(self) -> bool:
        return self._answer(200, gzip.compress(b"small"), "Content-Encoding: gzip")

    async def not_found(self) -> bool:
        return self._answer(404, b"there\r\n is no\x00 such thing" + b"!" * 500)

    async def error_500(self) -> bool:
        return self._answer(500, b"oops")

    async def busy_429(self) -> bool:
        return self._answer(429, b"", "Retry-After: 1")

    async def busy_503(self) -> bool:
        return self._answer(503, b"", f"Retry-After: {formatdate(time.time() + 1, usegmt=True)}")

    async def hang(self) -> bool:
        await self._reader.read()
        return False

    async def drip(self) -> bool:
        """A body that comes byte by byte."""
        self._writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not self._writer.is_closing():
            self._writer.write(b".")
            await self._writer.drain()
            await asyncio.sleep(_DRIP_S)
        return False

    async def reset(self) -> bool:
        """RST instead of FIN."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        return False

    async def half_closed(self) -> bool:
        """FIN instead of an answer, while the other direction stays open."""
        self._writer.write_eof()
        await self._reader.read()
        return False

    async def truncated(self) -> bool:
        """Ends in the middle of the body."""
        self._writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        return False

    async def wrong_length(self) -> bool:
        """Promises more than it sends."""
        self._writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        return False

    async def redirect(self) -> bool:
        """To the path that follows in this one, with the status in front: `/redirect/307/ok`, or with a URL."""
        _, _, status, target = self._call.path.split("/", 3)
        target = target if "://" in target else f"/{target}"
        return self._answer(int(status), b"x" * 2000, f"Location: {target}")

    async def redirect_loop(self) -> bool:
        return self._answer(302, b"", f"Location: {self._call.path}")

    async def redirect_private(self) -> bool:
        return self._answer(302, b"", f"Location: http://{NEIGHBOUR}:{DISCARD_PORT}/secrets")

    async def gzip_bomb(self) -> bool:
        return self._answer(200, _bomb(), "Content-Encoding: gzip")

    async def gzip_tail(self) -> bool:
        """A little, compressed, and then bytes without end that belong to nothing."""
        return await self._endless(gzip.compress(b"small"), "Content-Encoding: gzip")

    async def bad_gzip(self) -> bool:
        return self._answer(200, b"not compressed", "Content-Encoding: gzip")

    async def huge(self) -> bool:
        return await self._endless(b"")

    async def huge_404(self) -> bool:
        return self._answer(404, b"n" * 3_000_000)

    async def garbage(self) -> bool:
        self._writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        return False

    async def endless_headers(self) -> bool:
        self._writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)
        return False

    async def switched(self) -> bool:
        """Speaks another protocol all of a sudden."""
        self._writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\nhello")
        return False

    def _answer(self, status: int, body: bytes, *headers: str) -> bool:
        lines = [f"HTTP/1.1 {status} .", f"Content-Length: {len(body)}", *headers]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        self._writer.write(b"" if self._call.method == "HEAD" else body)
        return True

    async def _endless(self, first: bytes, *headers: str) -> bool:
        self._writer.write("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + first)
        while not self._writer.is_closing():
            self._writer.write(bytes(65_536))
            await self._writer.drain()
        return False


class BadServer:
    """The server, in a thread of its own.

    What it does about a request: what the first part of the path names (`/hang`), else the next step of the script,
    else, at the share `fail` of the attempts, one of `PASSING`; else `ok`. The share is drawn from the seed, the key
    and the number of the attempt, so it does not depend on the order in which requests come.
    """

    def __init__(
        self,
        *,
        script: Sequence[str] = (),
        fail: float = 0.0,
        seed: int = 0,
        log: Path | None = None,
        port: int = 0,
        ssl: Any = None,
    ) -> None:
        self.calls: list[Call] = []
        self.connections = 0
        self._script = list(script)
        self._fail = fail
        self._seed = seed
        self._log = log
        self._ssl = ssl
        self._attempts: Counter[str] = Counter()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bad-server", daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._serve, LOOPBACK, port, ssl=ssl)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http{'s' if self._ssl else ''}://{LOOPBACK}:{self.port}"

    def close(self) -> None:
        """Break all connections and end."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "BadServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _end(self) -> None:
        # Rounds of the loop in which it accepts what has connected: a server that is closed while it does leaks that.
        for _ in range(3):
            await asyncio.sleep(0)
        self._server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._open:
                writer.transport.abort()
            await asyncio.wait(tasks, timeout=0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                stays_open = True
                while stays_open:
                    call = await self._read(reader)
                    self._note(call)
                    exchange = Exchange(call, reader, writer)
                    answer: Callable[[], Awaitable[bool]] = getattr(exchange, call.does)
                    stays_open = await answer()
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._open.discard(writer)

    async def _read(self, reader: asyncio.StreamReader) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        (method, path, _), *rest = (line.split(" ", 2) for line in head.split("\r\n\r\n")[0].split("\r\n"))
        headers = {name.rstrip(":").lower(): " ".join(value) for name, *value in rest}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        key = headers.get("idempotency-key")
        return Call(
            method=method,
            path=path,
            key=key,
            at=time.time(),
            does=self._choose(path, key),
            headers=headers,
            body=body.decode("utf-8", "replace"),
        )

    def _choose(self, path: str, key: str | None) -> str:
        named = path.strip("/").partition("/")[0].partition("?")[0]
        if named and not named.startswith("_") and hasattr(Exchange, named):
            return named
        if self._script:
            return self._script.pop(0)
        whose = key or f"call {len(self.calls)}"
        self._attempts[whose] += 1
        chance = random.Random(f"{self._seed} {whose} {self._attempts[whose]}")
        return chance.choice(PASSING) if chance.random() < self._fail else "ok"

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        if self._log is not None:
            told = {name: value for name, value in asdict(call).items() if name not in ("headers", "body")}
            with self._log.open("a") as log:
                log.write(json.dumps(told) + "\n")


def read_log(log: Path) -> list[dict[str, Any]]:
    """The calls that a server logged, oldest first."""
    return [json.loads(line) for line in whole_lines(log)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.bad_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--log", type=Path, help="a line of JSON for each call")
    parser.add_argument("--fail", type=float, default=0.0, help="share of the attempts that fail")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with BadServer(port=given.port, log=given.log, fail=given.fail, seed=given.seed) as server:
        print(server.port, flush=True)
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
