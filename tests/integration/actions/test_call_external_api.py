"""`call_external_api` run by an executor against a real server that misbehaves."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from signalbox.actions.call_external_api import call_external_api
from tests.support.action_bench import Bench
from tests.support.bad_server import BadServer
from tests.support.eventually import eventually

ALLOWED = {"http": {"allow_private": True}}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(call_external_api, **ALLOWED)
    yield made
    made.executor.stop(0)


def outcomes(bench: Bench, ids: list[str]) -> list[dict[str, Any]]:
    """How instructions ended; all attempts and waits of a call may take some seconds."""
    eventually(lambda: bench.journal.outcomes().keys() >= set(ids), timeout_s=30)
    return [bench.journal.outcomes()[id] for id in ids]


def outcome(bench: Bench, url: str, **params: Any) -> dict[str, Any]:
    [ended] = outcomes(bench, [bench.start("call_external_api", params={"url": url, "timeout_ms": 5000, **params})])
    return ended


def result(bench: Bench, url: str, **params: Any) -> dict[str, Any]:
    ended = outcome(bench, url, **params)
    assert ended["type"] == "action.completed", ended
    return dict(ended["result"])


def test_an_answer_comes_back(bench: Bench) -> None:
    """Status, headers, JSON and the time are the result; the call carried the id of the instruction as its key."""
    with BadServer() as server:
        ended = outcome(bench, f"{server.url}/ok", method="POST", body={"n": [1, None]}, headers={"X-A": "b"})
        [call] = server.calls
    answer = ended["result"]
    assert (answer["status"], answer["encoding"], answer["fallback"], ended["attempts"]) == (200, "json", False, 1)
    assert answer["headers"]["content-type"] == "application/json"
    assert 0 < answer["elapsed_ms"] < 5000
    assert (call.key, call.body, call.headers["content-type"]) == (
        ended["instruction_id"],
        '{"n":[1,null]}',
        "application/json",
    )
    assert call.headers["x-a"] == "b"


@pytest.mark.parametrize(
    ("path", "body", "encoding"),
    [
        ("text", "grün", "text"),
        ("compressed", "small", "text"),
        ("not_json", "{", "text"),
        ("bytes", "AP8=", "base64"),
        ("cookie", "", "text"),
    ],
)
def test_a_body_says_how_it_is_to_be_read(bench: Bench, path: str, body: str, encoding: str) -> None:
    """Text is text, bytes are base64, and what says it is JSON and is not, is text."""
    with BadServer() as server:
        answer = result(bench, f"{server.url}/{path}")
    assert (answer["body"], answer["encoding"]) == (body, encoding)


def test_the_headers_of_an_answer_are_bounded(bench: Bench) -> None:
    """Long ones are cut, and cookies are nobody's business but the host's."""
    with BadServer() as server:
        headers = result(bench, f"{server.url}/cookie")["headers"]
    assert len(headers["x-long"]) == 1000
    assert "set-cookie" not in headers


def test_a_text_is_sent_as_it_is(bench: Bench) -> None:
    """A text body is no JSON text, and the caller's own type and key count."""
    given = {"Content-Type": "application/xml", "Idempotency-Key": "mine"}
    with BadServer() as server:
        result(bench, f"{server.url}/ok", method="PUT", body="<grün/>")
        result(bench, f"{server.url}/ok", method="PUT", body="<x/>", headers=given)
    first, second = server.calls
    assert (first.body, first.headers["content-type"]) == ("<grün/>", "text/plain; charset=utf-8")
    assert (second.headers["content-type"], second.key) == ("application/xml", "mine")


@pytest.mark.parametrize("failure", ["error_500", "hang", "drip", "reset", "half_closed", "truncated", "garbage"])
def test_what_passes_is_tried_again_under_the_same_key(bench: Bench, failure: str) -> None:
    """After a failure that passes the call is made again, a POST too, with the same key and body."""
    with BadServer(script=[failure, failure]) as server:
        ended = outcome(bench, f"{server.url}/", method="POST", body=[1], timeout_ms=500)
    assert (ended["type"], ended["attempts"]) == ("action.completed", 3)
    assert {(call.key, call.body) for call in server.calls} == {(ended["instruction_id"], "[1]")}


@pytest.mark.parametrize("busy", ["busy_429", "busy_503"])
def test_a_host_that_asks_to_wait_is_left_alone_for_so_long(bench: Bench, busy: str) -> None:
    """`Retry-After` is heeded, as seconds and as a date."""
    with BadServer(script=[busy]) as server:
        ended = outcome(bench, f"{server.url}/")
        first, second = server.calls
    assert ended["type"] == "action.completed"
    # A date has no fractions of a second.
    assert second.at - first.at >= (1.0 if busy == "busy_429" else 0.0)


def test_a_4xx_is_a_definite_answer(bench: Bench) -> None:
    """It is not tried again, and the error has its status and the beginning of its text, in one readable line."""
    with BadServer() as server:
        ended = outcome(bench, f"{server.url}/not_found/s3cret?key=s3cret", fallback="unused")
    error = ended["error"]
    assert (ended["attempts"], error["type"], error["retryable"]) == (1, "http_404", False)
    assert error["message"].startswith(f"GET {server.url} answered 404: there is no such thing!!!")
    assert len(error["message"]) < 300
    assert "s3cret" not in error["message"]


@pytest.mark.parametrize("path", ["huge", "redirect_loop"])
def test_what_does_not_pass_is_not_tried_again(bench: Bench, path: str) -> None:
    """An answer that is too long, or that leads in a circle, will be so the next time."""
    with BadServer() as server:
        ended = outcome(bench, f"{server.url}/{path}")
    assert (ended["type"], ended["attempts"]) == ("action.failed", 1)


def test_this_machine_cannot_be_called_by_default() -> None:
    """Without `actions.http.allow_private`, a task cannot reach a server on the loopback."""
    made = Bench(call_external_api)
    try:
        with BadServer() as server:
            ended = outcome(made, f"{server.url}/ok")
        assert (ended["error"]["type"], ended["attempts"]) == ("egress_refused", 1)
        assert server.connections == 0
    finally:
        made.executor.stop(0)


@pytest.mark.parametrize("url", ["ftp://h/", "http://u:p@h/", ""])
def test_a_url_of_another_form_is_an_invalid_parameter(bench: Bench, url: str) -> None:
    """The error names the parameter."""
    error = outcome(bench, url)["error"]
    assert (error["type"], error["message"].startswith("url: ")) == ("invalid_params", True)


def test_a_fallback_ends_a_call_well_that_is_given_up(bench: Bench) -> None:
    """When all attempts failed, the task completes with the fallback; without one it fails, as retryable."""
    with BadServer() as server:
        url = f"{server.url}/error_500"
        first = bench.start("call_external_api", params={"url": url, "fallback": {"cached": 1}})
        second = bench.start("call_external_api", params={"url": url})
        ended, failed = outcomes(bench, [first, second])
    assert (ended["type"], ended["result"]) == ("action.completed", {"fallback": True, "body": {"cached": 1}})
    assert (failed["type"], failed["error"]["type"], failed["error"]["retryable"]) == (
        "action.failed",
        "http_500",
        True,
    )
    assert (ended["attempts"], failed["attempts"]) == (6, 6)


def test_a_host_that_is_down_is_left_alone_until_it_is_back(bench: Bench) -> None:
    """When every call fails the host gets none for seconds, and then all tasks complete, with few attempts each."""
    with BadServer(script=["error_500"] * 100) as server:
        ids = [bench.start("call_external_api", params={"url": f"{server.url}/"}) for _ in range(100)]
        ended = outcomes(bench, ids)
        times = sorted(call.at for call in server.calls)
    assert {one["type"] for one in ended} == {"action.completed"}
    assert max(one["attempts"] for one in ended) < 6
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) > 4
