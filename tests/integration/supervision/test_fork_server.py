"""Processes forked from a real server: how they begin and end, and what a dead or frozen server costs."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from signalbox.supervision import fork_server
from signalbox.supervision.fork_server import NAME, ForkServer, can_fork
from signalbox.supervision.process import StartFailed
from signalbox.supervision.standby import Standby

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")

_ROOT = Path(__file__).parents[3]
_SERVER = (sys.executable, "-m", "tests.support.forking")


def _run(test: Callable[[ForkServer], Awaitable[None]]) -> None:
    async def run() -> None:
        environment = {"GREETING": "hello", "PYTHONPATH": str(_ROOT)}
        server = ForkServer(_SERVER, environment=environment, patience_s=20)
        try:
            async with asyncio.timeout(60):
                await test(server)
        finally:
            await server.close()

    asyncio.run(run())


def _server() -> psutil.Process:
    [found] = [child for child in psutil.Process().children() if child.name() == NAME]
    return found


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_forked_process_is_itself(tmp_path: Path) -> None:
    """It has the name it is given, a session of its own and the server's environment, and ends with its own code."""

    async def test(server: ForkServer) -> None:
        child = await server.start("teller-0", ["tell", str(tmp_path / "told")])
        assert await child.wait() == 0
        assert (tmp_path / "told").read_text() == "teller-0 True hello"

    _run(test)


@pytest.mark.parametrize(("word", "code"), [("raise", 1), ("leave", 7), ("end itself", -signal.SIGTERM)])
def test_every_end_is_told(word: str, code: int) -> None:
    """Whether it raises, exits or is killed: the code says so, and the server goes on."""

    async def test(server: ForkServer) -> None:
        sleeper = await server.start("s", ["sleep"])
        assert await (await server.start("x", [word])).wait() == code
        assert sleeper.exit_code is None
        assert await sleeper.kill() == -signal.SIGKILL

    _run(test)


def test_a_forked_process_stands_by() -> None:
    """It waits for the word on the descriptor it is given, and ends by itself when nobody will ever say it."""

    async def test(server: ForkServer) -> None:
        wanted, unwanted = Standby(), Standby()
        children = []
        for standby in (wanted, unwanted):
            children.append(await server.start("w", ["wait"], standby=standby.fd))
            standby.started()
            assert await standby.ready()
        wanted.start(clean=True)
        unwanted.close()
        assert [await child.wait() for child in children] == [5, 6]
        wanted.close()

    _run(test)


def test_a_signal_for_everybody_does_not_end_the_server() -> None:
    """SIGTERM to a whole group of processes ends the forked ones, which may drain; the server goes on for them."""

    async def test(server: ForkServer) -> None:
        child = await server.start("s", ["sleep"])
        _server().terminate()
        os.kill(child.pid, signal.SIGTERM)
        assert await child.wait() == -signal.SIGTERM
        assert await (await server.start("x", ["leave"])).wait() == 7

    _run(test)


def test_when_the_server_is_killed_so_is_all_it_forked() -> None:
    """None outlives it, each counts as killed, and the next start has a new server."""

    async def test(server: ForkServer) -> None:
        children = [await server.start("s", ["sleep"]) for _ in range(3)]
        _server().kill()
        assert [await child.wait() for child in children] == [-signal.SIGKILL] * 3
        assert all(_gone(child.pid) for child in children)
        assert await (await server.start("x", ["leave"])).wait() == 7

    _run(test)


def test_a_frozen_server_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start fails when patience is over, a kill ends all the same, and the next start has a new server."""
    monkeypatch.setattr(fork_server, "_FORK_S", 1.0)

    async def test(server: ForkServer) -> None:
        child = await server.start("s", ["sleep"])
        frozen = _server()
        frozen.suspend()
        assert await child.kill() == -signal.SIGKILL
        assert _gone(frozen.pid)
        await server.start("s", ["sleep"])
        _server().suspend()
        with pytest.raises(StartFailed, match="not forked"):
            await server.start("x", ["leave"])
        assert await (await server.start("x", ["leave"])).wait() == 7

    _run(test)


def test_closing_ends_everything() -> None:
    """Nothing is left of a server that is closed, and closing another time does nothing."""

    async def test(server: ForkServer) -> None:
        child = await server.start("s", ["sleep"])
        own = _server()
        await server.close()
        assert await child.wait() == -signal.SIGKILL
        assert _gone(own.pid)
        assert _gone(child.pid)
        await server.close()

    _run(test)
