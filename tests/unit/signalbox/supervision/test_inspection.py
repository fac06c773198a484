import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalbox.errors import Conflict, SignalboxError, Unreachable
from signalbox.supervision import inspection
from signalbox.supervision.inspection import InspectionServer


def _divide(params: dict[str, Any]) -> float:
    return 1 / params["by"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InspectionServer]:
    running = inspection.serve(
        inspection.socket_path(tmp_path, "agents-0"),
        {"echo": lambda params: params, "divide": _divide, "object": lambda _: object()},
    )
    yield running
    running.close()


def test_an_answer_comes_back_with_the_parameters_it_was_made_from(server: InspectionServer) -> None:
    """Parameters reach the handler and its result reaches the caller, as plain values."""
    assert inspection.ask(server.path, "echo", id="a", limit=3) == {"id": "a", "limit": 3}


def test_a_handler_that_raises_is_an_error_for_its_client_only(server: InspectionServer) -> None:
    """The client learns kind and message of the exception, and the server goes on."""
    with pytest.raises(SignalboxError, match="'divide': ZeroDivisionError: division by zero"):
        inspection.ask(server.path, "divide", by=0)
    assert inspection.ask(server.path, "divide", by=2) == 0.5


def test_an_answer_that_json_cannot_say_is_an_error(server: InspectionServer) -> None:
    """A handler's mistake in what it returns is told like an exception."""
    with pytest.raises(SignalboxError, match="TypeError"):
        inspection.ask(server.path, "object")


def test_an_unknown_operation_names_the_known_ones(server: InspectionServer) -> None:
    """A misspelt operation is answered with what there is."""
    with pytest.raises(SignalboxError, match="no operation 'ecoh'; there are: divide, echo, object"):
        inspection.ask(server.path, "ecoh")


def test_only_the_owner_may_connect(server: InspectionServer) -> None:
    """The socket's mode keeps other users out."""
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


def test_nobody_serving_is_unreachable(tmp_path: Path) -> None:
    """A missing socket raises Unreachable and says which."""
    with pytest.raises(Unreachable, match="agents-7 does not answer 'status'"):
        inspection.ask(tmp_path / "agents-7.sock", "status")


def test_a_server_that_stays_silent_is_unreachable_after_the_timeout(tmp_path: Path) -> None:
    """A frozen process holds its asker for no longer than the timeout."""
    path = tmp_path / "frozen.sock"
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(path))
        frozen.listen()
        with pytest.raises(Unreachable):
            inspection.ask(path, "status", timeout_s=0.05)


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    """What a killed process left behind does not keep its successor from serving."""
    path = inspection.socket_path(tmp_path, "agents-0")
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = inspection.serve(path, {"status": lambda _: "new"})
    assert inspection.ask(path, "status") == "new"
    server.close()
    assert not path.exists()


def test_closing_twice_does_nothing(tmp_path: Path) -> None:
    """A second close is harmless."""
    server = inspection.serve(tmp_path / "a.sock", {})
    server.close()
    server.close()


def test_a_silent_client_does_not_hold_up_others(server: InspectionServer) -> None:
    """Clients that connect and say nothing leave room for the next."""
    silent = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for one in silent:
        one.connect(str(server.path))
    assert inspection.ask(server.path, "echo", timeout_s=1.0) == {}
    for one in silent:
        one.close()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (struct.pack("!i", 65_537), b"at most 65536"),
        (struct.pack("!i", -1), b"a message of -1 bytes"),
        (struct.pack("!i", 4) + b"{{{{", b"bad request"),
        (struct.pack("!i", 10) + b'{"op":"x"]', b"bad request"),
        (struct.pack("!i", 8) + b'{"op":1}', b"bad request"),
    ],
    ids=["oversized", "negative", "not JSON", "broken JSON", "wrong type"],
)
def test_a_bad_request_is_answered_with_its_fault(server: InspectionServer, sent: bytes, told: bytes) -> None:
    """Rubbish costs no memory, and whoever sent it is told."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(server.path))
        client.sendall(sent)
        answer = client.recv(65_536)
    assert b'"error"' in answer
    assert told in answer


def test_handlers_run_one_at_a_time(tmp_path: Path) -> None:
    """Two clients at once never run two handlers at once."""
    inside, overlaps = threading.Semaphore(1), []

    def handler(_params: dict[str, Any]) -> None:
        overlaps.append(not inside.acquire(blocking=False))
        threading.Event().wait(0.01)
        inside.release()

    server = inspection.serve(tmp_path / "a.sock", {"status": handler})
    threads = [threading.Thread(target=inspection.ask, args=(server.path, "status")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.close()
    assert overlaps == [False] * 8


def test_a_long_data_directory_gets_a_short_path(tmp_path: Path) -> None:
    """The path of a socket stays below the kernel's limit, is the same for all who ask, and differs by directory."""
    deep = tmp_path / ("d" * 100)
    path = inspection.socket_path(deep, "agents-12")
    assert len(os.fsencode(path)) <= 100
    assert path == inspection.socket_path(deep / "x" / "..", "agents-12")
    assert path != inspection.socket_path(tmp_path / ("e" * 100), "agents-12")
    server = inspection.serve(path, {"status": lambda _: 1})
    assert inspection.ask(path, "status") == 1
    server.close()
    assert not path.parent.exists()


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can make us serve inside a folder that he controls."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(Conflict, match="belongs to another user"):
        inspection.serve(tmp_path / "a.sock", {})
