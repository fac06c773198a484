"""The misbehaving server keeps its own promises, so that tests which count its calls can be believed."""

import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.support.bad_server import LOOPBACK, PASSING, BadServer, read_log

_ROOT = Path(__file__).parents[3]


def chosen(keys: list[str], *, seed: int = 1, fail: float = 0.3) -> dict[str, list[str]]:
    """What a server would do about attempts under these keys."""
    done: dict[str, list[str]] = {}
    with BadServer(fail=fail, seed=seed) as server:
        for key in keys:
            done.setdefault(key, []).append(server._choose("/", key))
    return done


def test_failures_depend_on_seed_key_and_attempt_alone() -> None:
    """The order in which calls come does not matter; another seed draws other failures."""
    keys = [f"k{n % 100}" for n in range(300)]
    assert chosen(keys) == chosen(sorted(keys)) == chosen(keys[::-1])
    assert chosen(keys) != chosen(keys, seed=2)


def test_the_share_of_failures_is_as_asked() -> None:
    """About three in ten of many attempts fail, in all ways; none or all if asked so."""
    counts = Counter(does for made in chosen([f"k{n}" for n in range(2000)]).values() for does in made)
    assert 0.65 < counts.pop("ok") / 2000 < 0.75
    assert counts.keys() == set(PASSING)
    assert chosen(["a"], fail=0) == {"a": ["ok"]}
    assert "ok" not in chosen(["a"] * 100, fail=1)["a"]


def test_a_script_is_followed_once() -> None:
    """Steps are taken in order, a path that names a behaviour aside, and then all is well."""
    with BadServer(script=["error_500", "not_found"]) as server:
        statuses = [
            httpx2.get(f"{server.url}/{path}", trust_env=False).status_code for path in ("", "busy_429", "x", "y")
        ]
    assert statuses == [500, 429, 404, 200]
    assert [call.does for call in server.calls] == ["error_500", "busy_429", "not_found", "ok"]


def test_a_reset_and_a_half_closed_connection_are_what_they_say() -> None:
    """A reset is an RST; a half-closed connection ends without an answer, and can still be written to."""
    with BadServer() as server:
        for path, ends in (("reset", ConnectionResetError), ("half_closed", None)):
            with socket.create_connection((LOOPBACK, server.port), timeout=5) as connection:
                connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                if ends is not None:
                    with pytest.raises(ends):
                        connection.recv(1)
                else:
                    assert connection.recv(1) == b""
                    connection.sendall(b"more")


def test_as_a_process_it_logs_a_call_before_it_answers(tmp_path: Path) -> None:
    """It prints its port, has a line for a call as soon as that is answered, and ends at SIGTERM."""
    log = tmp_path / "calls"
    command = [sys.executable, "-m", "tests.support.bad_server", "--port", "0", "--log", log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as server:
        try:
            assert server.stdout is not None
            url = f"http://{LOOPBACK}:{int(server.stdout.readline())}/orders?x=1"
            httpx2.post(url, headers={"Idempotency-Key": "k"}, content=b"{}", trust_env=False)
            [call] = read_log(log)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
    assert call.pop("at") > 0
    assert call == {"method": "POST", "path": "/orders?x=1", "key": "k", "does": "ok"}
