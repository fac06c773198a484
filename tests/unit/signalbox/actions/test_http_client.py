"""What the client decides without a connection: headers, redirects, and how an answer is read."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from signalbox.actions import ActionError
from signalbox.actions.egress import checked_url
from signalbox.actions.http_client import HttpClient, HttpResponse, _Request
from signalbox.config import HttpClientSettings

FROM = "https://api.example/orders?key=secret"


def posted(url: str = FROM, **given: Any) -> _Request:
    headers = {"accept": "*/*", "authorization": "secret", "x-api-key": "secret", "content-type": "text/plain"}
    return _Request(**{"method": "POST", "url": checked_url(url), "headers": headers, "content": b"body"} | given)


def answered(body: bytes, content_type: str = "") -> HttpResponse:
    return HttpResponse(status=200, headers={"content-type": content_type} if content_type else {}, body=body)


def failure(method: str, url: str, **given: Any) -> ActionError:
    async def scenario() -> None:
        client = HttpClient(HttpClientSettings())
        try:
            await client.request(method, url, **given)
        finally:
            await client.close()

    with pytest.raises(ActionError) as caught:
        asyncio.run(scenario())
    return caught.value


@pytest.mark.parametrize("status", [307, 308])
def test_a_request_is_redirected_as_it_is(status: int) -> None:
    """307 and 308 keep method, body and, within the origin, all headers."""
    request = posted()
    there = request.redirected(status, "/elsewhere?x=1")
    assert str(there.url) == "https://api.example/elsewhere?x=1"
    assert (there.method, there.content, there.headers) == ("POST", b"body", request.headers)


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "POST", "GET"),
        (302, "POST", "GET"),
    ],
)
def test_an_answer_that_is_elsewhere_is_fetched(status: int, method: str, becomes: str) -> None:
    """After 303, and after 301 and 302 to a POST, the answer is fetched without a body."""
    there = posted(method=method).redirected(status, "/done")
    assert (there.method, there.content, "content-type" in there.headers) == (becomes, None, False)


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/",
        "//evil.example/",
        "https://api.example:8443/",
        "https://api.example.evil.example/",
        "https://sub.api.example/",
    ],
)
def test_another_origin_gets_no_keys(location: str) -> None:
    """A redirect to another host or port carries none of the headers that may hold a secret, whatever their name."""
    there = posted().redirected(307, location)
    assert there.headers == {"accept": "*/*", "content-type": "text/plain"}


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://api.example/", "without encryption"),
        ("file:///etc/passwd", "http://"),
        ("https://user:pw@api.example/", "a user"),
        ("https://[::1/", "malformed"),
    ],
)
def test_a_redirect_leads_nowhere_else(location: str, reason: str) -> None:
    """Where a first request may not go, a redirect may not lead; nor from https to http."""
    with pytest.raises(ActionError, match=reason) as caught:
        posted().redirected(307, location)
    assert caught.value.type == "redirect_refused"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Upgrade", "Expect"])
def test_framing_is_the_clients_own(name: str) -> None:
    """A header by which a caller could speak for another host or cut the message differently is refused."""
    error = failure("GET", "http://127.0.0.1/", headers={name: "1"})
    assert (error.type, error.retryable) == ("invalid_request", False)


@pytest.mark.parametrize(
    ("url", "type"),
    [
        ("ftp://api.example", "invalid_url"),
        ("http://127.0.0.1:1/", "egress_refused"),
        ("http://[::1]/", "egress_refused"),
    ],
)
def test_what_may_not_be_called_is_an_error_of_its_kind(url: str, type: str) -> None:
    """Without any settings, neither another protocol nor this machine can be called, and trying again is of no use."""
    error = failure("GET", url)
    assert (error.type, error.retryable) == (type, False)


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("grün".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grün"),
        ("grün".encode(), "text/plain", "grün"),
        ("grün".encode(), "", "grün"),
        ("grün".encode(), 'text/plain; charset="utf-8"', "grün"),
        (b"a\xff", "text/plain", "a�"),
        (b"abc", "text/plain; charset=no-such-thing", "abc"),
        (b"abc", ";;;=", "abc"),
    ],
)
def test_text_is_read_as_the_answer_says(body: bytes, content_type: str, text: str) -> None:
    """The named character set counts, else UTF-8, and nothing that a server says makes reading fail."""
    assert answered(body, content_type).text == text


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/json-ish", False),
        ("", False),
    ],
)
def test_json_is_known_by_its_type(content_type: str, is_json: bool) -> None:
    """The media type decides, in any case and with any parameters."""
    assert answered(b"{}", content_type).is_json is is_json


@pytest.mark.parametrize("body", [b"{", b"NaN", b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    """Broken, empty or bottomless JSON is one kind of error."""
    with pytest.raises(ValueError, match="no JSON"):
        answered(body).json()


def test_the_library_is_loaded_when_somebody_calls() -> None:
    """A worker whose actions call nobody does not spend the time that importing httpx2 takes."""
    code = (
        "import sys, signalbox.app; sys.exit(any(name.startswith('http') and name[-1] == '2' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
