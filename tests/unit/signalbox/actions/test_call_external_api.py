"""What `call_external_api` decides without a connection: parameters, hosts, waits and the fallback."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.payloads.base import ErrorInfo
from signalbox.actions.call_external_api import ApiCall, call_external_api, fall_back, host_of, retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ERROR = ErrorInfo(type="http_503", message="busy", retryable=True)


def call(**given: Any) -> ApiCall:
    return ApiCall.model_validate({"url": "https://api.example/orders", **given})


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://api.example/"},
        {"url": "http://user:pw@api.example/"},
        {"url": "https://api.example/" + "x" * 8000},
        {"method": "CONNECT"},
        {"method": "TRACE"},
        {"method": "get"},
        {"timeout_ms": 0},
        {"timeout_ms": 300_001},
        {"timeout_ms": "nan"},
        {"headers": {"x": 1}},
        {"retries": 3},
    ],
)
def test_parameters_are_checked_before_anything_is_called(given: dict[str, Any]) -> None:
    """A URL of another form, another method, no time or an unknown parameter is refused."""
    with pytest.raises(ValidationError):
        call(**given)


def test_the_parameters_have_defaults() -> None:
    """A URL is enough: GET, within five seconds, without a fallback."""
    params = call()
    assert (params.method, params.timeout_ms, params.body, params.headers) == ("GET", 5000, None, {})
    assert fall_back(params, ERROR) is None


@pytest.mark.parametrize("value", [None, {"rate": 1.0}, [], False])
def test_a_fallback_takes_the_place_of_the_answer(value: Any) -> None:
    """What is given as the fallback, even null, becomes the body, marked as such."""
    result = fall_back(call(fallback=value), ERROR)
    assert call_external_api.json_values(result) == {"fallback": True, "body": value}
    assert call_external_api.fallback is fall_back


def test_calls_of_a_host_share_what_it_can_take() -> None:
    """Spellings, paths and parameters do not matter, another port or host does; the breaker is the same for all."""
    first = host_of(call())
    assert first.name == "api.example:443"
    assert host_of(call(url="https://API.example.:443/other?x=1", method="POST")) == first
    assert host_of(call(url="http://api.example/")).name == "api.example:80"
    assert host_of(call(url="https://other.example/")).breaker is first.breaker


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        ("120", 60),
        ("9" * 400, 60),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=30), usegmt=True), 60),
        ("Fri, 02 Jan 2026 03:04:10 -0000", 5),
        ("Fri, 02 Jan 2026 04:04:10 +0100", 5),
        ("Friday, 02-Jan-26 03:04:10 GMT", 5),
        ("Fri, 99 Jan 2026 03:04:10 GMT", None),
    ],
)
def test_a_host_may_ask_to_wait(value: str | None, expected: float | None) -> None:
    """Seconds and dates are understood, a date in the past is now, a minute is the most, and nonsense is nothing."""
    assert retry_after_s(value, NOW) == expected


@given(st.text() | st.integers().map(str) | st.datetimes().map(format_datetime))
def test_no_wait_is_endless(value: str) -> None:
    """Whatever a host asks for, it is between nothing and a minute."""
    wait_s = retry_after_s(value, NOW)
    assert wait_s is None or 0 <= wait_s <= 60


def test_a_broken_host_is_noticed_and_a_stumbling_one_is_not() -> None:
    """Of the retries allowed, enough succeed at a host that fails three calls in ten: one task in a thousand fails."""
    assert 0.3**call_external_api.retry.max_attempts < 0.001
    breaker = host_of(call()).breaker
    assert breaker is not None
    assert breaker.failure_ratio >= 0.6
