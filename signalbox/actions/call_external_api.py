"""The action `call_external_api`: one HTTP request, with the retries, the breaker and the limits of its host.

Every attempt carries the same `Idempotency-Key`, so requests that are not idempotent by their method are tried again
as well: the other side can tell a repeat. One that ignores the key should be called by an action of your own, whose
retry policy knows that.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.payloads.base import ErrorInfo
from signalbox.actions.breaker import Breaker
from signalbox.actions.contract import ActionContext, action
from signalbox.actions.dependency import Dependency
from signalbox.actions.egress import authority, checked_url, origin
from signalbox.actions.http_client import HttpResponse
from signalbox.actions.retry import ActionError, Retry

#: It opens when a host is plainly down: three failed calls in ten are what retries are for.
_BREAKER = Breaker(window=40, min_calls=20, failure_ratio=0.7)
#: Most calls to one host at once, so that a slow one leaves connections for the others.
_CALLS_PER_HOST = 200
_RETRY = Retry(max_attempts=6, first_s=0.2, max_s=10.0, max_elapsed_s=300.0)
#: No host holds a task for longer than this by asking to wait.
_LONGEST_WAIT_S = 60.0
#: Statuses below 500 that may pass: a slow request, one that came too early, too many of them.
_PASSING = frozenset({408, 425, 429})
_EXCERPT_CHARACTERS = 200
_HEADERS = 64
_HEADER_CHARACTERS = 1_000


def _has_the_form_of_a_url(url: str) -> str:
    checked_url(url)
    return url


Url = Annotated[str, Field(max_length=8_000), AfterValidator(_has_the_form_of_a_url)]
Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class ApiCall(BaseModel):
    """A request, and what to make do with if it cannot be answered."""

    model_config = ConfigDict(extra="forbid")
    url: Url
    method: Method = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None
    """A text is sent as it is, other values as JSON, null not at all."""
    timeout_ms: float = Field(5_000, gt=0, le=300_000)
    """Longest that one attempt may take, with all redirects."""
    fallback: Any = None
    """If given, even as null, it takes the place of an answer that cannot be had."""


class ApiAnswer(BaseModel):
    """What the API answered, with a status below 400."""

    status: int
    headers: dict[str, str]
    """By lower-case name; the first 64, each cut to 1,000 characters, and without cookies."""
    body: Any
    encoding: Literal["json", "text", "base64"]
    """How the body is to be read: JSON values, a text, or a text that stands for bytes."""
    elapsed_ms: float
    """Of the attempt that succeeded."""
    fallback: Literal[False] = False


class Fallback(BaseModel):
    """What was given to make do with."""

    fallback: Literal[True] = True
    body: Any


def fall_back(params: ApiCall, error: ErrorInfo) -> Fallback | None:
    """The result of a call that was given up after errors that pass; None if there is nothing to make do with."""
    return Fallback(body=params.fallback) if "fallback" in params.model_fields_set else None


def host_of(params: ApiCall) -> Dependency:
    """All calls of one host and port share its breaker and its places."""
    return Dependency(authority(checked_url(params.url)), limit=_CALLS_PER_HOST, breaker=_BREAKER)


@action(uses=host_of, retry=_RETRY, fallback=fall_back)
async def call_external_api(params: ApiCall, context: ActionContext) -> ApiAnswer | Fallback:
    """Call an HTTP API, again if need be, and return its answer."""
    clock = context.services.clock
    began_s = clock.monotonic()
    content, content_type = _content(params.body)
    response = await context.services.http.request(
        params.method,
        params.url,
        headers={**content_type, "idempotency-key": context.idempotency_key, **_lower(params.headers)},
        content=content,
        timeout_s=params.timeout_ms / 1000,
    )
    elapsed_ms = (clock.monotonic() - began_s) * 1000
    if response.status >= 400:
        raise _failure(params, response, context.now())
    body, encoding = _body(response)
    return ApiAnswer(
        status=response.status, headers=_headers(response), body=body, encoding=encoding, elapsed_ms=elapsed_ms
    )


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` asks for, given as a number or a date; None if it does not make sense."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT_S)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at.replace(tzinfo=at.tzinfo or UTC)
    return min(max((at - now).total_seconds(), 0.0), _LONGEST_WAIT_S)


def _failure(params: ApiCall, response: HttpResponse, now: datetime) -> ActionError:
    where = f"{params.method} {origin(checked_url(params.url))}"
    type = f"http_{response.status}"
    if response.status in _PASSING or response.status >= 500:
        asked_s = retry_after_s(response.headers.get("retry-after"), now)
        return ActionError(f"{where} answered {response.status}", type=type, retryable=True, retry_after_s=asked_s)
    excerpt = " ".join(response.text[: 4 * _EXCERPT_CHARACTERS].split())
    readable = "".join(one for one in excerpt if one.isprintable())[:_EXCERPT_CHARACTERS]
    return ActionError(f"{where} answered {response.status}: {readable}".rstrip(": "), type=type)


def _content(body: Any) -> tuple[bytes | None, dict[str, str]]:
    """What to send for a body, and the header that says what it is unless the caller says so."""
    if body is None:
        return None, {}
    if isinstance(body, str):
        return body.encode("utf-8", "replace"), {"content-type": "text/plain; charset=utf-8"}
    return msgspec.json.encode(body), {"content-type": "application/json"}


def _body(response: HttpResponse) -> tuple[Any, Literal["json", "text", "base64"]]:
    """JSON as its values, whatever else is text as text, and bytes in base64."""
    if response.is_json:
        try:
            return response.json(), "json"
        except ValueError:
            return response.text, "text"
    if response.content_type.startswith("text/") or "charset=" in response.headers.get("content-type", ""):
        return response.text, "text"
    try:
        return response.body.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(response.body).decode(), "base64"


def _headers(response: HttpResponse) -> dict[str, str]:
    # A cookie is a secret between two, and results are read by many.
    told = [(name, value) for name, value in response.headers.items() if name != "set-cookie"]
    return {name: value[:_HEADER_CHARACTERS] for name, value in told[:_HEADERS]}


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
