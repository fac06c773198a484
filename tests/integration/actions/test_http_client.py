"""The client against a real server that misbehaves, on the loopback."""

import asyncio
import contextlib
import logging
import shutil
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from signalbox.actions import ActionError, egress
from signalbox.actions.egress import Guard
from signalbox.actions.http_client import HttpClient, HttpResponse
from signalbox.config import HttpClientSettings
from tests.support.bad_server import LOOPBACK, BadServer
from tests.support.eventually import eventually

T = TypeVar("T")


@pytest.fixture
def server() -> Iterator[BadServer]:
    with BadServer() as running:
        yield running


def using(scenario: Callable[[HttpClient], Awaitable[T]], *, guard: Guard | None = None, **settings: Any) -> T:
    """Run a scenario with a client that may call this machine."""

    async def run() -> T:
        client = HttpClient(HttpClientSettings(**{"allow_private": True, **settings}), guard=guard)
        try:
            return await scenario(client)
        finally:
            await client.close()

    return asyncio.run(run())


def get(
    url: str, *, guard: Guard | None = None, method: str = "GET", settings: Any = None, **given: Any
) -> HttpResponse:
    return using(lambda client: client.request(method, url, **given), guard=guard, **settings or {})


def test_a_request_arrives_as_it_was_sent(server: BadServer) -> None:
    """Method, path, query, headers and body arrive; the headers besides are those that the client is known by."""
    answer = get(
        f"{server.url}/ok/ä?q=1#fragment", method="POST", headers={"X-Key": "k"}, content="grün".encode()
    ).json()
    assert (answer["method"], answer["path"], answer["body"]) == ("POST", "/ok/%C3%A4?q=1", "grün")
    told = answer["headers"]
    assert told.pop("user-agent").startswith("signalbox/")
    assert told == {
        "host": f"{LOOPBACK}:{server.port}",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "x-key": "k",
        "content-length": "5",
    }


def test_an_answer_is_read_whatever_its_status(server: BadServer) -> None:
    """Status, headers and body come back for successes and failures alike, decompressed."""
    assert get(f"{server.url}/compressed").body == b"small"
    missing = get(f"{server.url}/not_found")
    assert (missing.status, missing.body[:5]) == (404, b"there")
    assert get(f"{server.url}/busy_429").headers["retry-after"] == "1"
    assert get(f"{server.url}/cookie").headers["x-twice"] == "a, b"
    assert get(f"{server.url}/ok", method="HEAD").body == b""


@pytest.mark.parametrize(
    "path",
    [
        "reset",
        "half_closed",
        "truncated",
        "wrong_length",
        "garbage",
        "bad_gzip",
        "endless_headers",
        "switched",
    ],
)
def test_a_broken_exchange_is_a_connection_error(server: BadServer, path: str) -> None:
    """Whatever way a connection breaks, or what comes is no HTTP, it is an error that a retry policy tries again."""
    with pytest.raises(ConnectionError, match="GET http"):
        get(f"{server.url}/{path}")


@pytest.mark.parametrize("path", ["hang", "drip"])
def test_the_timeout_is_for_all_of_it(server: BadServer, path: str) -> None:
    """An answer that does not come, and one that keeps coming, end at the same time, and free the connection."""

    async def twice(client: HttpClient) -> float:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"took longer than 0\.3 s"):
                await client.request("GET", f"{server.url}/{path}", timeout_s=0.3)
        return time.monotonic() - began

    assert 0.6 <= using(twice, connections=1) < 2


def test_a_timeout_counts_over_redirects(server: BadServer) -> None:
    """Being sent around does not give more time."""
    with pytest.raises(TimeoutError):
        get(f"{server.url}/redirect/302/redirect/302/hang", timeout_s=0.3)


def test_nobody_listening_is_a_connection_error() -> None:
    """A port that nobody listens on may be listened on later."""
    with BadServer() as gone:
        url = gone.url
    with pytest.raises(ConnectionError, match="no connection"):
        get(url)


@pytest.mark.parametrize("path", ["huge", "gzip_bomb", "gzip_tail"])
def test_an_answer_that_is_too_long_is_not_read(server: BadServer, path: str) -> None:
    """Neither an endless body, nor a small one that becomes large, nor what follows it, is kept in memory."""
    with pytest.raises(ActionError, match="1000000 bytes") as caught:
        get(f"{server.url}/{path}")
    assert (caught.value.type, caught.value.retryable) == ("response_too_large", False)


def test_the_limit_is_exact(server: BadServer) -> None:
    """An answer of just so many bytes is read."""
    length = len(get(f"{server.url}/not_json").body)
    assert get(f"{server.url}/not_json", settings={"response_bytes": length}).body == b"{"
    size = int(get(f"{server.url}/ok").headers["content-length"])
    assert len(get(f"{server.url}/ok", settings={"response_bytes": size}).body) == size
    with pytest.raises(ActionError):
        get(f"{server.url}/ok", settings={"response_bytes": size - 1})


def test_a_failure_that_is_too_long_is_cut(server: BadServer) -> None:
    """That it is a 404 counts for more than its text."""
    missing = get(f"{server.url}/huge_404", settings={"response_bytes": 1000})
    assert (missing.status, missing.body) == (404, b"n" * 1000)


def test_redirects_are_followed_so_many_times(server: BadServer) -> None:
    """As many as allowed are followed, however long their bodies; one more, or a loop, is an error."""
    twice = f"{server.url}/redirect/302/redirect/307/ok"
    assert get(twice, settings={"max_redirects": 2, "response_bytes": 1000}).json()["path"] == "/ok"
    for path in (twice, f"{server.url}/redirect_loop"):
        with pytest.raises(ActionError, match="more than 1 times") as caught:
            get(path, settings={"max_redirects": 1})
        assert caught.value.type == "too_many_redirects"
    with pytest.raises(ActionError, match="more than 0 times"):
        get(twice, settings={"max_redirects": 0})


def test_a_redirect_to_another_origin_leaves_the_keys_behind(server: BadServer) -> None:
    """The other server gets the request, and none of the headers that may be secret."""
    with BadServer() as other:
        headers = {"Authorization": "secret", "X-Api-Key": "secret", "Idempotency-Key": "k"}
        get(f"{server.url}/redirect/307/{other.url}/ok", method="POST", headers=headers, content=b"body")
    [call] = other.calls
    assert (call.method, call.body, call.key) == ("POST", "body", "k")
    assert "secret" not in str(call)
    assert "secret" in str(server.calls)


def test_a_redirect_to_an_inner_address_is_refused(server: BadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that may be called cannot send the client to one that may not, by address or by name."""
    kind_of = egress.kind_of
    monkeypatch.setattr(egress, "kind_of", lambda one: "public" if str(one) == LOOPBACK else kind_of(one))
    with BadServer() as inner:
        for target in (
            "redirect_private",
            f"redirect/307/http://[::1]:{inner.port}/",
            "redirect/302/http://127.1.1.1/",
        ):
            with pytest.raises(ActionError) as caught:
                get(f"{server.url}/{target}", settings={"allow_private": False})
            assert caught.value.type == "egress_refused"
    assert len(server.calls) == 3
    assert inner.connections == 0


class Resolver:
    """Gives other answers to the same question."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_the_connection_goes_to_the_address_that_was_checked(server: BadServer) -> None:
    """A name is resolved once per connection, so a second answer changes nothing; Host still has the name."""
    resolver = Resolver([LOOPBACK], ["169.254.169.254"])
    guard = Guard(allow_private=True, resolve=resolver)
    answer = get(f"http://api.example:{server.port}/ok", guard=guard)
    assert answer.json()["headers"]["host"] == f"api.example:{server.port}"
    assert resolver.asked == [("api.example", server.port)]


def test_connections_are_used_again_and_nothing_else_is(server: BadServer) -> None:
    """Calls one after the other share a connection and its check, and no cookie goes from one to the next."""

    async def thrice(client: HttpClient) -> None:
        for path in ("cookie", "ok", "ok"):
            await client.request("GET", f"http://api.example:{server.port}/{path}")

    resolver = Resolver([LOOPBACK])
    using(thrice, guard=Guard(allow_private=True, resolve=resolver))
    assert (server.connections, len(resolver.asked), len(server.calls)) == (1, 1, 3)
    assert not any("cookie" in call.headers for call in server.calls)


def test_an_address_that_does_not_answer_is_passed_over(server: BadServer) -> None:
    """Of several addresses of a name, the next one is tried."""
    guard = Guard(allow_private=True, resolve=Resolver(["::1", "127.0.0.3", LOOPBACK]))
    assert get(f"http://api.example:{server.port}/ok", guard=guard).status == 200


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_not_used(
    server: BadServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A proxy would connect for us, to addresses that nobody checked."""
    with BadServer() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        guard = Guard(allow_private=True, resolve=Resolver([LOOPBACK]))
        assert get(f"http://api.example:{server.port}/ok", guard=guard).status == 200
    assert proxy.connections == 0


def test_calls_wait_for_a_free_connection(server: BadServer) -> None:
    """No more connections are open than allowed, and all calls are made."""

    async def many(client: HttpClient) -> list[HttpResponse]:
        return await asyncio.gather(*(client.request("GET", f"{server.url}/ok") for _ in range(50)))

    assert [answer.status for answer in using(many, connections=3)] == [200] * 50
    assert server.connections <= 3


def test_a_cancelled_call_leaves_nothing_behind(server: BadServer) -> None:
    """When an action is cancelled its connection is closed, and its place is free."""

    async def scenario(client: HttpClient) -> int:
        call = asyncio.ensure_future(client.request("GET", f"{server.url}/hang"))
        await asyncio.to_thread(eventually, lambda: server.calls)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return (await client.request("GET", f"{server.url}/ok")).status

    assert using(scenario, connections=1) == 200


@pytest.mark.parametrize(
    "path", ["huge", "gzip_bomb", "gzip_tail", "bad_gzip", "huge_404", "redirect_loop", "truncated"]
)
def test_an_answer_that_is_given_up_frees_its_place(server: BadServer, path: str) -> None:
    """However a call ends, the next one gets the only connection at once."""

    async def scenario(client: HttpClient) -> int:
        with contextlib.suppress(ActionError, ConnectionError):
            await client.request("GET", f"{server.url}/{path}")
        return (await client.request("GET", f"{server.url}/ok", timeout_s=2)).status

    assert using(scenario, connections=1) == 200


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"X": "grün"}),
        ("GET", {"X": "a\r\nY: b"}),
        ("GET", {"X\r\nY": "b"}),
        ("GET", {"X Y": "b"}),
        ("GET / HTTP/1.1\r\nX:", {}),
    ],
)
def test_a_request_cannot_be_split(server: BadServer, method: str, headers: dict[str, str]) -> None:
    """Text that would end a header line or the request line, or has no bytes, is never sent."""
    with pytest.raises(ActionError) as caught:
        get(f"{server.url}/ok", method=method, headers=headers)
    assert caught.value.type == "invalid_request"
    assert server.calls == []


def test_logs_and_messages_hold_no_secrets(server: BadServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither headers nor bodies, nor the path and query of a URL, are in an error or in the log of signalbox."""
    with caplog.at_level(logging.DEBUG, logger="signalbox"):
        for path in ("reset", "garbage", "huge", "hang"):
            with pytest.raises((ActionError, OSError)) as caught:
                get(f"{server.url}/{path}/s3cret?key=s3cret", headers={"X": "s3cret"}, content=b"s3cret", timeout_s=0.2)
            assert "s3cret" not in str(caught.value)
    assert "s3cret" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("signalbox")
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for api.example, in one file."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl")
    file = tmp_path_factory.mktemp("tls") / "api.pem"
    key = file.with_suffix(".key")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=api.example", "-addext", "subjectAltName=DNS:api.example"]
    subprocess.run([*command, *names, "-keyout", key, "-out", file], check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[BadServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with BadServer(ssl=context) as running:
        yield running


def test_tls_is_for_the_name(tls_server: BadServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is that of the name, although the connection goes to an address; another name is refused."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def call(name: str) -> HttpResponse:
        return get(
            f"https://{name}:{tls_server.port}/ok", guard=Guard(allow_private=True, resolve=Resolver([LOOPBACK]))
        )

    assert call("api.example").status == 200
    with pytest.raises(ActionError, match="certificate") as caught:
        call("evil.example")
    assert (caught.value.type, caught.value.retryable) == ("tls_refused", False)


def test_a_certificate_of_nobody_is_refused(tls_server: BadServer) -> None:
    """A certificate that no known authority signed is an error that does not pass."""
    with pytest.raises(ActionError) as caught:
        get(f"https://api.example:{tls_server.port}/ok", guard=Guard(allow_private=True, resolve=Resolver([LOOPBACK])))
    assert caught.value.type == "tls_refused"
    assert tls_server.calls == []
