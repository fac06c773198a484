"""The HTTP client that the actions of a worker process share, as `context.services.http`.

It calls public addresses unless the settings say otherwise (`signalbox.actions.egress`), bounds time, redirects and
answers, and keeps nothing of one call for the next besides connections: no cookies, no credentials. It does not retry:
that is the retry policy's part, and the errors are those that the policy knows.
"""

import asyncio
import codecs
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from signalbox import __version__
from signalbox.actions.egress import Guard, checked_url, origin
from signalbox.actions.retry import ActionError
from signalbox.config import HttpClientSettings

if TYPE_CHECKING:
    import httpx2

    from signalbox.actions.http_transport import Transport

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: What the client itself says about a connection and its framing: a caller who could say it, too, could say otherwise.
_OWN_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"}
    | {"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
#: What another origin may see of a request that is redirected to it. Keys have many names; what is no key has few.
_FOR_ANYBODY = frozenset({"accept", "accept-language", "content-type", "idempotency-key", "user-agent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; several of the same name are joined by commas."""
    body: bytes
    """Decompressed. Cut to `actions.http.response_bytes` if the status is 300 or more."""

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if the answer does not say."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        """Whether the body says of itself that it is JSON."""
        return self.content_type == "application/json" or self.content_type.endswith("+json")

    @property
    def text(self) -> str:
        """The body as text, in the character set that the answer names or else UTF-8; what does not fit becomes �."""
        return self.body.decode(self._charset(), "replace")

    def json(self) -> Any:
        """The body as JSON values.

        Raises:
            ValueError: it is no JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError):
            msg = "the body is no JSON, or is nested too deeply"
            raise ValueError(msg) from None

    def _charset(self) -> str:
        header = Message()
        header["content-type"] = self.headers.get("content-type", "")
        try:
            return codecs.lookup(header.get_content_charset("utf-8")).name
        except LookupError:
            return "utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    url: "httpx2.URL"
    headers: Mapping[str, str]
    content: bytes | None

    def redirected(self, status: int, location: str) -> "_Request":
        """What to send next, as browsers and RFC 9110 have it; but never from https back to http."""
        try:
            url = checked_url(location, base=self.url)
        except ValueError as error:
            msg = f"{self.method} {origin(self.url)} redirects, and {error}"
            raise ActionError(msg, type="redirect_refused") from None
        if (self.url.scheme, url.scheme) == ("https", "http"):
            msg = f"{self.method} {origin(self.url)} redirects to http, without encryption"
            raise ActionError(msg, type="redirect_refused")
        headers = self.headers
        if origin(url) != origin(self.url):
            headers = {name: value for name, value in headers.items() if name in _FOR_ANYBODY}
        if status == HTTPStatus.SEE_OTHER or (status in (301, 302) and self.method == "POST"):
            headers = {name: value for name, value in headers.items() if name != "content-type"}
            method = "HEAD" if self.method == "HEAD" else "GET"
            return _Request(method=method, url=url, headers=headers, content=None)
        return replace(self, url=url, headers=headers)


class HttpClient:
    """One per worker process, used in the event loop of its actions."""

    def __init__(self, settings: HttpClientSettings, *, guard: Guard | None = None) -> None:
        self._settings = settings
        self._guard = guard or Guard(allow_private=settings.allow_private)
        self._transport: Transport | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout_s: float = 5.0,
    ) -> HttpResponse:
        """Send a request, follow redirects, and read the answer, whatever its status, all within the timeout.

        Send `context.idempotency_key` along as a header if the other side can use one.

        Raises:
            ActionError: it may not or cannot be sent at all (`invalid_url`, `invalid_request`, `egress_refused`,
                `unknown_host`, `tls_refused`), or not answered (`too_many_redirects`, `redirect_refused`,
                `response_too_large`).
            ConnectionError: the connection was not made or broke, or what came is no valid answer.
            TimeoutError: it took too long.
        """
        try:
            target = checked_url(url)
        except ValueError as error:
            raise ActionError(str(error), type="invalid_url") from None
        request = _Request(method=method, url=target, headers=_checked_headers(headers or {}), content=content)
        transport = self._opened()
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await self._exchange(transport, request)
        except TimeoutError:
            if not limit.expired():
                raise
            msg = f"{method} {origin(target)} took longer than {timeout_s:g} s"
            raise TimeoutError(msg) from None

    async def close(self) -> None:
        """Close all connections."""
        self._guard.close()
        if self._transport is not None:
            await self._transport.close()

    async def _exchange(self, transport: "Transport", request: _Request) -> HttpResponse:
        for _ in range(self._settings.max_redirects + 1):
            status, headers, body = await transport.exchange(
                request.method, request.url, request.headers, request.content
            )
            location = headers.get("location")
            if status not in _REDIRECTS or location is None:
                return HttpResponse(status=status, headers=headers, body=body)
            request = request.redirected(status, location)
        msg = f"{request.method} {origin(request.url)}: redirected more than {self._settings.max_redirects} times"
        raise ActionError(msg, type="too_many_redirects")

    def _opened(self) -> "Transport":
        if self._transport is None:
            from signalbox.actions.http_transport import Transport  # noqa: PLC0415 - its import takes 200 ms

            self._transport = Transport(
                self._guard,
                connections=self._settings.connections,
                response_bytes=self._settings.response_bytes,
            )
        return self._transport


def _checked_headers(given: Mapping[str, str]) -> dict[str, str]:
    """The headers with lower-case names, on top of our own."""
    headers = {name.lower(): value for name, value in given.items()}
    if refused := sorted(_OWN_HEADERS & headers.keys()):
        msg = f"the header {refused[0]!r} is set by the client itself"
        raise ActionError(msg, type="invalid_request")
    ours = {"accept": "*/*", "user-agent": f"signalbox/{__version__}"}
    return {**ours, **headers, "accept-encoding": "gzip, deflate"}
