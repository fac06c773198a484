"""Questions to a node's HTTP interface, with its answers played by a stand-in for the connection."""

import io
import urllib.error
from datetime import UTC, datetime
from email.message import Message
from typing import Any

import pytest

from signalbox.cli.node_client import NodeClient, quoted
from signalbox.errors import NotFound, SignalboxError, Unreachable, UsageError
from signalbox.supervision.discovery import NodeRecord

RECORD = NodeRecord(
    pid=1,
    http="http://127.0.0.1:8080",
    bootstrap="127.0.0.1:9092",
    node="n",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    version="1",
)


def client(answer: bytes | Exception, asked: list[str] | None = None) -> NodeClient:
    made = NodeClient(RECORD, timeout_s=1.0)

    def open(url: str, timeout: float) -> Any:
        if asked is not None:
            asked.append(url)
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    made._open = open
    return made


def refusal(code: int, body: bytes) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://n/x", code, "No", Message(), io.BytesIO(body))


def test_answer_is_the_json_of_the_node() -> None:
    """The path and the query reach the node, and its JSON comes back."""
    asked: list[str] = []
    assert client(b'{"a": 1}', asked).get("/api/v1/agents", prefix="a b", limit=2) == {"a": 1}
    assert asked == ["http://127.0.0.1:8080/api/v1/agents?prefix=a+b&limit=2"]


@pytest.mark.parametrize(
    ("code", "kind"), [(400, UsageError), (404, NotFound), (503, Unreachable), (500, SignalboxError)]
)
def test_refusal_becomes_the_error_of_its_kind(code: int, kind: type[SignalboxError]) -> None:
    """The node's own message and hint are what the user gets, under the right exit code."""
    with pytest.raises(kind, match="no agent 'x'") as refused:
        client(refusal(code, b'{"error": "no agent \'x\'", "hint": "look"}')).get("/x")
    assert (type(refused.value), refused.value.hint) == (kind, "look")


def test_reasons_of_a_failing_node_are_told() -> None:
    """A node that is not healthy says why."""
    with pytest.raises(Unreachable, match="agents-0 is down; lag"):
        client(refusal(503, b'{"status": "failing", "reasons": ["agents-0 is down", "lag"]}')).get("/health")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"other": 1}'])
def test_refusal_of_another_server_is_told_by_its_status(body: bytes) -> None:
    """An error page that is not ours still becomes a sentence."""
    with pytest.raises(NotFound, match="404"):
        client(refusal(404, body)).get("/x")


def test_silent_node_is_unreachable() -> None:
    """A refused connection or a timeout is told as a node that does not answer."""
    for error in (urllib.error.URLError(ConnectionRefusedError(111, "refused")), TimeoutError("timed out")):
        with pytest.raises(Unreachable, match="does not answer"):
            client(error).get("/x")


def test_answer_that_is_not_json_is_an_error() -> None:
    """Another program on the port is recognised by its answers."""
    with pytest.raises(SignalboxError, match="not JSON"):
        client(b"hello").get("/x")


def test_ids_are_quoted_into_one_segment() -> None:
    """An id may hold any character without becoming another path."""
    assert quoted("monitor:a/b?c d") == "monitor%3Aa%2Fb%3Fc%20d"


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is for the internet, not for a node."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    opener = NodeClient(RECORD, timeout_s=1.0)._open.__self__  # type: ignore[attr-defined]
    assert not any(getattr(handler, "proxies", None) for handler in opener.handlers)
