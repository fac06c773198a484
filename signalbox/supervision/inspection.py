"""Asks a running process about itself over a Unix socket: one JSON request, one JSON answer, then the connection ends.

Messages are framed as `multiprocessing.connection` frames them (a 4-byte length, then the bytes) and are never pickled.
The socket belongs to the user who started the node (mode 0600); there is no other authentication. Answers are a view
at one moment: nothing is streamed. The one thing that changes what a process does is a worker's `resize`, which gives
pools other sizes. `node.py` asks, workers and the sensor process serve.
"""

import contextlib
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from signalbox.errors import Conflict, SignalboxError, Unreachable
from signalbox.ids import stable_hash

#: Kernels limit the path of a Unix socket: 108 bytes on Linux, 104 on macOS, the final zero included.
_PATH_BYTES = 100
#: Fixed, not `tempfile.gettempdir()`: every process must find the same place, and macOS's own is too long.
_SHORT_ROOT = Path("/tmp")  # noqa: S108  # the folder below it is private and its owner is checked
_REQUEST_BYTES = 65_536
_ANSWER_BYTES = 64 * 1024 * 1024
#: A client that connects and stays silent is dropped after this long.
_CLIENT_TIMEOUT_S = 2.0
#: So many clients are served at once; a further one waits for at most `_CLIENT_TIMEOUT_S`.
_CLIENTS = 16
_LOOK_S = 0.005
_LENGTH = struct.Struct("!i")

Handler = Callable[[dict[str, Any]], Any]


def socket_path(data_dir: Path, name: str) -> Path:
    """Where process `name` of this data directory serves: `<data_dir>/run/<name>.sock`.

    A path that is too long for a Unix socket is replaced by a short one whose name is derived from the data directory.
    """
    root = data_dir.resolve()
    path = root / "run" / f"{name}.sock"
    if len(os.fsencode(path)) <= _PATH_BYTES:
        return path
    return _SHORT_ROOT / f"signalbox-{stable_hash(str(root)):016x}" / f"{name}.sock"


def serve(path: Path, handlers: Mapping[str, Handler]) -> "InspectionServer":
    """Answer questions at `path` from a daemon thread until closed.

    A handler gets the parameters as a dict and returns anything that JSON can say. Handlers run one at a time, in
    threads of this server: they may only touch what is safe to touch there. One that raises gives its client an error
    and nothing else. A socket file that a killed process left behind is replaced.

    Raises:
        Conflict: the socket's folder belongs to another user.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        msg = f"the folder {path.parent} belongs to another user"
        raise Conflict(msg, hint="remove it, or choose another data directory with --data-dir")
    path.unlink(missing_ok=True)
    return InspectionServer(path, dict(handlers))


def ask(path: Path, op: str, *, timeout_s: float = 2.0, **params: Any) -> Any:
    """Ask the process that serves at `path`, and return its answer as plain values.

    Raises:
        Unreachable: nobody serves there, or no complete answer came within `timeout_s`.
        SignalboxError: the process answered that it could not do it; the message says why.
    """
    request = msgspec.json.encode({"op": op, "params": params})
    deadline = time.monotonic() + timeout_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            _send(connection, request)
            answer = msgspec.json.decode(_receive(connection, _ANSWER_BYTES, deadline))
    except (OSError, EOFError, ValueError) as error:
        msg = f"{path.stem} does not answer {op!r} at {path}: {error or type(error).__name__}"
        raise Unreachable(msg, hint="is the node running? `signalbox status` tells") from error
    if "error" in answer:
        msg = f"{path.stem} could not answer {op!r}: {answer['error']}"
        raise SignalboxError(msg)
    return answer["result"]


class InspectionServer:
    """A running server; made by `serve`."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self.path = path
        self._server = _Server(str(path), handlers)
        self._thread = threading.Thread(target=self._server.serve_forever, name="inspection", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket file; calling it again does nothing."""
        asked = threading.Thread(target=self._server.shutdown, name="inspection-end", daemon=True)
        asked.start()
        while asked.is_alive():  # the server looks up when somebody connects, and else twice a second
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(self.path))
            asked.join(_LOOK_S)
        self._server.server_close()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        if self.path.parent.parent == _SHORT_ROOT:
            with contextlib.suppress(OSError):  # another process of the node may still serve there
                self.path.parent.rmdir()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: str, handlers: dict[str, Handler]) -> None:
        self.handlers = handlers
        self.one_at_a_time = threading.Lock()
        self._places = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(path, _Exchange)

    def server_bind(self) -> None:
        super().server_bind()
        os.chmod(str(self.server_address), 0o600)  # before listen(), so nobody can connect earlier

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(timeout=_CLIENT_TIMEOUT_S):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or sent rubbish is its own problem."""


class _Exchange(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(_CLIENT_TIMEOUT_S)
        deadline = time.monotonic() + _CLIENT_TIMEOUT_S
        try:
            answer = self._answer(_receive(self.request, _REQUEST_BYTES, deadline))
        except ValueError as error:
            answer = msgspec.json.encode({"error": f"bad request: {error}"})
        _send(self.request, answer)

    def _answer(self, request: bytes) -> bytes:
        asked = msgspec.json.decode(request, type=_Request)
        handler = self.server.handlers.get(asked.op)
        if handler is None:
            known = ", ".join(sorted(self.server.handlers))
            return msgspec.json.encode({"error": f"there is no operation {asked.op!r}; there are: {known}"})
        try:
            with self.server.one_at_a_time:
                return msgspec.json.encode({"result": handler(asked.params)})
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is the client's answer
            return msgspec.json.encode({"error": f"{type(error).__name__}: {error}"})


class _Request(msgspec.Struct):
    op: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(message)) + message)


def _receive(connection: socket.socket, limit: int, deadline: float) -> bytes:
    (size,) = _LENGTH.unpack(_read_exactly(connection, _LENGTH.size, deadline))
    if not 0 <= size <= limit:
        msg = f"a message of {size} bytes; at most {limit} are taken"
        raise ValueError(msg)
    return _read_exactly(connection, size, deadline)


def _read_exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            msg = "no complete message in time"
            raise TimeoutError(msg)
        connection.settimeout(left)
        chunk = connection.recv(min(size - len(chunks), 1 << 20))
        if not chunk:
            msg = "the other side hung up"
            raise EOFError(msg)
        chunks += chunk
    return bytes(chunks)
