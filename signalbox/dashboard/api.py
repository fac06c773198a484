"""The routes of the node's HTTP server, all read-only.

They show what a `View` says and decide nothing. Every answer but `/metrics` is JSON; an error is
`{"error": MESSAGE, "hint": ADVICE_OR_NULL}`. `server.py` listens; `signalbox.supervision.view` is the view of a node.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signalbox.errors import ConfigError, NotFound, SignalboxError, Unreachable, UsageError
from signalbox.registry.query import EVERY_AGENT, Query
from signalbox.telemetry.logs import get_logger
from signalbox.telemetry.metrics import HTTP_REQUESTS

_AGENTS_DEFAULT = 100
_AGENTS_MOST = 10_000
_STATUS_OF = ((NotFound, 404), (UsageError, 400), (ConfigError, 400), (Unreachable, 503))
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

log = get_logger(__name__)


class View(Protocol):
    """What there is to show of a node."""

    def status(self) -> dict[str, Any]:
        """The node, its flows, sensors and agents; the shape is part of the outside contract."""
        ...

    def problems(self) -> list[str]:
        """Why the node is not healthy, one sentence each; empty when it is."""
        ...

    def ready(self) -> bool:
        """Whether the node does its work: it has started, and is not stopping."""
        ...

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics, and their content type."""
        ...

    def scaling(self) -> dict[str, Any]:
        """Flows, pools, whether the autoscaler is obeyed, and the latest changes of the number of workers."""
        ...

    async def agents(self, *, where: Query, prefix: str, limit: int) -> dict[str, Any]:
        """Under `agents`, at most `limit` of those that are meant and whose id begins with `prefix`, by id.

        Beside them, what the answer rests on: workers that were `silent` or had to `cut` theirs short, and how old the
        view of the `registry` is.
        """
        ...

    async def agent(self, agent_id: str) -> dict[str, Any]:
        """One agent with its state. Raises `NotFound` or `Unreachable`."""
        ...


def build_api(view: View, *, hosts: Sequence[str]) -> ASGIApp:
    """The application. `hosts` are the names by which a client may call it; `*` allows any."""
    routes = [
        ("/health", lambda request: _health(view)),
        ("/livez", lambda request: _json({"status": "ok"})),
        ("/readyz", lambda request: _ready(view)),
        ("/metrics", lambda request: _metrics(view, request)),
        ("/api/v1/status", lambda request: _json(view.status())),
        ("/api/v1/scaling", lambda request: _json(view.scaling())),
    ]
    slow_routes = [
        ("/api/v1/agents", lambda request: _agents(view, request)),
        ("/api/v1/agents/{agent_id:path}", lambda request: _agent(view, request)),
    ]
    application = Starlette(
        routes=[
            *(Route(path, _endpoint(path, _at_once(answer))) for path, answer in routes),
            *(Route(path, _endpoint(path, answer)) for path, answer in slow_routes),
        ],
        exception_handlers={HTTPException: _refused, SignalboxError: _failed, Exception: _broken},
    )
    return _Guard(application, tuple(hosts))


_Answer = Callable[[Request], Awaitable[Response]]


def _endpoint(path: str, answer: _Answer) -> _Answer:
    async def endpoint(request: Request) -> Response:
        request.scope["signalbox.route"] = path
        return await answer(request)

    return endpoint


def _at_once(answer: Callable[[Request], Response]) -> _Answer:
    async def answered(request: Request) -> Response:
        return answer(request)

    return answered


def _health(view: View) -> Response:
    reasons = view.problems()
    return _json({"status": "failing" if reasons else "ok", "reasons": reasons}, 503 if reasons else 200)


def _ready(view: View) -> Response:
    ready = view.ready()
    return _json({"ready": ready}, 200 if ready else 503)


def _metrics(view: View, request: Request) -> Response:
    body, content_type = view.metrics(request.headers.get("accept", ""))
    return Response(body, headers={**_HEADERS, "content-type": content_type})


async def _agents(view: View, request: Request) -> Response:
    text = request.query_params.get("limit", str(_AGENTS_DEFAULT))
    if not text.isdecimal() or not 1 <= int(text) <= _AGENTS_MOST:
        msg = f"limit has to be a number from 1 to {_AGENTS_MOST}, not {text!r}"
        raise UsageError(msg)
    where = request.query_params.get("where")
    query = EVERY_AGENT if where is None else Query.parse(where)
    return _json(await view.agents(where=query, prefix=request.query_params.get("prefix", ""), limit=int(text)))


async def _agent(view: View, request: Request) -> Response:
    return _json(await view.agent(request.path_params["agent_id"]))


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content, enc_hook=str), status, headers=_HEADERS, media_type="application/json")


def _error(status: int, message: str, hint: str | None = None) -> Response:
    return _json({"error": message, "hint": hint}, status)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)


async def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SignalboxError)
    status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)
    return _error(status, str(error), error.hint)


async def _broken(request: Request, error: Exception) -> Response:
    log.error("a request failed", path=request.url.path, exc_info=error)
    return _error(500, "the request failed inside the node", "its log says why")


class _Guard:
    """Counts requests, and refuses those meant for another host name.

    A page in a browser can make a foreign name point to the loopback address and so reach this server; what it cannot
    do is to send our name in the `Host` header.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                HTTP_REQUESTS.labels(route=scope.get("signalbox.route", "other"), code=message["status"]).inc()
            await send(message)

        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        if "*" in self._hosts or _host_name(host) in self._hosts:
            await self._app(scope, receive, counted)
        else:
            answer = _error(421, f"this server is not {host!r}", "call it by its address, or set http.host")
            await answer(scope, receive, counted)


def _host_name(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
