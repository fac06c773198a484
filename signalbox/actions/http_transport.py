"""One HTTP exchange over pooled connections that the guard makes: the part of the client that knows httpx2.

It is used below `httpx2.AsyncClient`, which would keep one caller's cookies for the next and look into the environment
for proxies. Import it late: it takes 200 ms.
"""

import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping

import httpcore2
import httpx2

from signalbox.actions.egress import Guard, origin
from signalbox.actions.retry import ActionError

#: An address that does not answer for so long is passed over for the name's next one.
_CONNECT_S = 2.0
#: A connection that nobody uses is closed after so long, before most servers do it from their side.
_KEEPALIVE_S = 5.0


class _TooLong(Exception):
    """More bytes came than are wanted."""


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that the guard has checked. TLS, above it, still asks for the name."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        *others, last = await self._guard.addresses(host, port)
        for address in others:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._tcp.connect_tcp(address, port, _CONNECT_S, local_address, socket_options)
        return await self._tcp.connect_tcp(last, port, timeout, local_address, socket_options)


class _Body(httpx2.AsyncByteStream):
    """The bytes of an answer as they come off the wire, up to a limit."""

    def __init__(self, stream: AsyncIterable[bytes], limit_bytes: int) -> None:
        self._stream = stream
        self._left = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._left -= len(piece)
            if self._left < 0:
                yield piece[: self._left]
                raise _TooLong
            yield piece

    async def aclose(self) -> None:
        if (close := getattr(self._stream, "aclose", None)) is not None:
            await close()


class Transport:
    """A pool of connections, for any number of exchanges at once within one event loop."""

    def __init__(self, guard: Guard, *, connections: int, response_bytes: int) -> None:
        self._response_bytes = response_bytes
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=connections,
            keepalive_expiry=_KEEPALIVE_S,
            network_backend=_Backend(guard),
        )

    async def exchange(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], content: bytes | None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request, and give the answer's status, its headers with lower-case names, and its decoded body.

        The body of anything but a success is cut at the limit, as only its beginning is looked at.

        Raises:
            ActionError: `response_too_large`, `invalid_request` or `tls_refused`, or what the guard raises.
            ConnectionError: the connection was not made or broke, or what came is no valid answer.
        """
        where = f"{method} {origin(url)}"
        try:
            request = httpx2.Request(method, url, headers=dict(headers), content=content)
        except ValueError:
            msg = f"{where}: a header has characters other than ASCII"
            raise ActionError(msg, type="invalid_request") from None
        with _as_our_errors(where):
            answer = await self._pool.handle_async_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                )
            )
            assert isinstance(answer.stream, AsyncIterable)
            stream = _Body(answer.stream, self._response_bytes)
            response = httpx2.Response(answer.status, headers=answer.headers, stream=stream)
            async with contextlib.aclosing(response):
                body, complete = await self._read(response)
        if not complete and response.status_code < 300:
            msg = f"{where}: the answer has more than the {self._response_bytes} bytes of actions.http.response_bytes"
            raise ActionError(msg, type="response_too_large")
        return response.status_code, {name.lower(): value for name, value in response.headers.items()}, body

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _read(self, response: httpx2.Response) -> tuple[bytes, bool]:
        """As much of the decoded body as may be kept, and whether that is all of it."""
        body = bytearray()
        with contextlib.suppress(_TooLong):
            # Decompressed piece by piece, so that a small answer cannot become a large one before anybody looks.
            async with contextlib.aclosing(response.aiter_bytes()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > self._response_bytes:
                        raise _TooLong
            return bytes(body), True
        return bytes(body[: self._response_bytes]), False


@contextlib.contextmanager
def _as_our_errors(where: str) -> Iterator[None]:
    """Turn the library's errors into those that a retry policy knows; their texts, which may quote the answer, stay."""
    try:
        yield
    except httpcore2.ConnectError as error:
        cause = error.args[0] if error.args else None  # the library cuts the chain of its own errors
        if isinstance(cause, ssl.SSLCertVerificationError):
            msg = f"{where}: the certificate is not valid for this host: {cause.verify_message}"
            raise ActionError(msg, type="tls_refused") from None
        msg = f"{where}: no connection was made"
        raise ConnectionError(msg) from error
    except httpcore2.NetworkError as error:
        msg = f"{where}: the connection broke"
        raise ConnectionError(msg) from error
    except httpcore2.LocalProtocolError:
        msg = f"{where}: the method or a header is not allowed by HTTP"
        raise ActionError(msg, type="invalid_request") from None
    except (httpcore2.ProtocolError, httpx2.DecodingError) as error:
        msg = f"{where}: the answer is cut short or not valid"
        raise ConnectionError(msg) from error
