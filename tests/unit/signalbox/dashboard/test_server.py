import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from signalbox.config import HttpSettings
from signalbox.dashboard.server import HttpServer, allowed_hosts
from signalbox.errors import ConfigError, Conflict


async def _hello(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


_APP = Starlette(routes=[Route("/", _hello)])


def _serving(settings: HttpSettings, meanwhile: Callable[[HttpServer], Awaitable[Any]]) -> Any:
    async def scenario() -> Any:
        server = HttpServer(settings, _APP)
        await server.start()
        try:
            return await meanwhile(server)
        finally:
            await server.stop()

    return asyncio.run(scenario())


async def _get(server: HttpServer) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(server.url)).text


def test_port_zero_takes_a_free_one_and_names_it() -> None:
    """The URL has the real port, and the server answers there."""
    assert _serving(HttpSettings(port=0), _get) == "hello"


def test_a_server_on_every_address_names_one_that_can_be_called() -> None:
    """0.0.0.0 is not an address to connect to everywhere, so the URL has the loopback."""

    async def url(server: HttpServer) -> str:
        assert await _get(server) == "hello"
        return server.url

    assert _serving(HttpSettings(host="0.0.0.0", port=0), url).startswith("http://127.0.0.1:")


def test_a_port_in_use_is_a_conflict_that_says_what_to_do() -> None:
    """Exit code 7, with the port and the option to change it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port}: the port is in use") as refusal:
            _serving(HttpSettings(port=port), _get)
    assert "--http HOST:PORT" in str(refusal.value.hint)


def test_an_address_that_is_not_ours_is_a_bad_setting() -> None:
    """A host this machine does not have ends with exit code 3."""
    with pytest.raises(ConfigError, match=r"cannot serve HTTP on 192\.0\.2\.1:0"):
        _serving(HttpSettings(host="192.0.2.1", port=0), _get)


def test_signals_stay_with_the_supervisor() -> None:
    """A running server leaves the handler of SIGTERM as it was."""
    before = signal.getsignal(signal.SIGTERM)

    async def handler(server: HttpServer) -> Any:
        await _get(server)
        return signal.getsignal(signal.SIGTERM)

    assert _serving(HttpSettings(port=0), handler) == before


def test_stopping_a_server_that_never_started_does_nothing() -> None:
    """The end of a start that failed is clean."""
    asyncio.run(HttpServer(HttpSettings(port=0), _APP).stop())


def test_allowed_hosts_follow_the_address() -> None:
    """On the loopback only its names are allowed; opened to the network, any."""
    assert allowed_hosts(HttpSettings(host="127.0.0.1")) == ("127.0.0.1", "localhost", "::1", "127.0.0.1")
    assert "::1" in allowed_hosts(HttpSettings(host="[::1]"))
    assert allowed_hosts(HttpSettings(host="0.0.0.0")) == ("*",)
