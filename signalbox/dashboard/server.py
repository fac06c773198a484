"""Listens for HTTP in the supervisor's own event loop and leaves its signals alone. What is served: `api.py`."""

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from signalbox.config import HttpSettings
from signalbox.errors import ConfigError, Conflict

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
#: An open stream must not hold up the end of the node.
_GRACE_S = 2


class HttpServer:
    """A server for one application. It serves from `start` to `stop`."""

    def __init__(self, settings: HttpSettings, app: ASGIApp) -> None:
        self._settings = settings
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            ws="none",
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self.url = ""
        """`http://HOST:PORT` with the real port; a server on every address names the loopback one."""

    async def start(self) -> str:
        """Bind, serve, and return the URL.

        Raises:
            Conflict: the port is in use.
            ConfigError: there is no such address on this machine, or the port may not be used.
        """
        listener = _bind(self._settings.host, self._settings.port)
        host, port = listener.getsockname()[:2]
        if ipaddress.ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        return self.url

    async def stop(self) -> None:
        """Finish the requests under way and close; does nothing if it does not serve."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The supervisor handles signals."""
        yield


def allowed_hosts(settings: HttpSettings) -> tuple[str, ...]:
    """The host names a client may use: those of the loopback, or any for a server that was opened to the network."""
    host = settings.host.strip("[]").lower()
    if host in _LOOPBACK_NAMES or host.startswith("127."):
        return (*_LOOPBACK_NAMES, host)
    return ("*",)


def _bind(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        msg = f"cannot serve HTTP on {where}: {error.strerror}"
        raise ConfigError(msg, hint="set http.host to an address of this machine") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            msg = f"cannot serve HTTP on {where}: the port is in use"
            hint = "stop what listens there, or choose another with --http HOST:PORT (port 0 takes a free one)"
            raise Conflict(msg, hint=hint) from error
        msg = f"cannot serve HTTP on {where}: {error.strerror}"
        raise ConfigError(msg, hint="set http.host and http.port to what this user may serve on") from error
    return listener
