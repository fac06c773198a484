"""The part of the demo in which another service slows down and fails, and the calls to it end well all the same."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from signalbox.cli.demo_watch import wait_until, watching
from signalbox.cli.session import SOURCE
from signalbox.errors import SignalboxError

if TYPE_CHECKING:
    from schemas.signal import Signal
    from signalbox.config import KafkaSettings

Say = Callable[[str], None]

CALLS = 180
_PER_S = 30
#: One call in so many cannot wait for long, and says what to make do with.
_HASTY_EVERY = 6
_HASTE = timedelta(seconds=2)
_SLOW_FROM, _FAIL_FROM = CALLS // 4, CALLS // 3
_SLOW_S = 0.3
_TIMEOUT_S = 60.0


class Mood(Enum):
    """How the service is."""

    WELL = "well"
    SLOW = "slow"
    FAILING = "failing"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A caller that could not wait is gone, and whatever was under way with it ends.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Service:
    """A small HTTP service on the loopback, which does as it is told."""

    def __init__(self) -> None:
        self.mood = Mood.WELL
        self.calls = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.calls += 1
                if service.mood is Mood.SLOW:
                    time.sleep(_SLOW_S)
                failing = service.mood is Mood.FAILING
                body = b'{"error": "out of order"}' if failing else b'{"rate": 1.08}'
                self.send_response(HTTPStatus.INTERNAL_SERVER_ERROR if failing else HTTPStatus.OK)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Service"]:
        """Serve meanwhile."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@dataclass(slots=True)
class Outage:
    """What has been read back about the calls."""

    answers: dict[str, "Signal[Any]"] = field(default_factory=dict)
    duplicated: int = 0
    breaker: list[str] = field(default_factory=list)
    """The states of the circuit breaker, in order."""

    @property
    def retried(self) -> int:
        return sum(answer.data["attempts"] > 1 and not _is_fallback(answer) for answer in self.answers.values())

    @property
    def fallbacks(self) -> int:
        return sum(map(_is_fallback, self.answers.values()))


def show_outage(kafka: "KafkaSettings", say: Say) -> Outage:
    """Let a service fail in the middle of some calls, and tell what the system makes of it.

    Raises:
        SignalboxError: not all calls ended well, or the breaker did not do its work.
    """
    outage = Outage()
    with (
        Service().running() as service,
        watching(kafka, ("results", "telemetry"), start="now", note=partial(_note, outage, service.host, say)),
    ):
        say(f"a service at http://{service.host} is started; {CALLS} tasks call it, {_PER_S} a second")
        _send(kafka, service, say)
        wait_until(lambda: "open" in outage.breaker, _TIMEOUT_S, "the circuit breaker did not open")
        calls = service.calls
        service.mood = Mood.WELL
        say(f"the service is well again after {calls} calls, and is left alone until the breaker tries it")
        wait_until(lambda: len(outage.answers) >= CALLS, _TIMEOUT_S, "some calls were never answered")
        wait_until(lambda: outage.breaker[-1:] == ["closed"], _TIMEOUT_S, "the circuit breaker did not close")
        say(
            f"{len(outage.answers)} of {CALLS} calls ended well: {outage.retried} after retries, "
            f"{outage.fallbacks} hasty ones with their fallback; the service got {service.calls} calls"
        )
    failed = [answer.data for answer in outage.answers.values() if answer.type != "task.completed"]
    if failed or outage.duplicated:
        msg = f"{len(failed)} calls failed and {outage.duplicated} were answered twice; first: {failed[:1]}"
        raise SignalboxError(msg)
    return outage


def _send(kafka: "KafkaSettings", service: Service, say: Say) -> None:
    from schemas.signal import new_signal
    from signalbox import plugins

    publisher = plugins.publisher(kafka)
    began = time.monotonic()
    for number in range(CALLS):
        if number == _SLOW_FROM:
            service.mood = Mood.SLOW
            say("the service slows down")
        if number == _FAIL_FROM:
            service.mood = Mood.FAILING
            say("the service fails")
        task_id = f"call-{number}"
        params: dict[str, Any] = {"url": f"http://{service.host}/rates"}
        task = {"task_id": task_id, "action": "call_external_api", "params": params}
        if number % _HASTY_EVERY == 0:
            params["fallback"] = {"rate": 1.0}
            task["deadline"] = (datetime.now(UTC) + _HASTE).isoformat()
        publisher.publish("signals", new_signal("task.submitted", task, source=SOURCE, subject=task_id))
        time.sleep(max(0.0, began + number / _PER_S - time.monotonic()))
    publisher.flush(_TIMEOUT_S)
    publisher.close()


def _note(outage: Outage, host: str, say: Say, topic: str, signal: "Signal[Any]") -> None:
    if signal.type == "breaker.changed" and signal.subject == host:
        outage.breaker.append(signal.data["after"])
        what = {"open": "opens: no more calls", "half_open": "lets probes through", "closed": "closes: all is well"}
        say(f"the circuit breaker of {host} {what[signal.data['after']]}")
    elif signal.type.startswith("task.") and signal.data["task_id"].startswith("call-"):
        outage.duplicated += signal.data["task_id"] in outage.answers
        outage.answers[signal.data["task_id"]] = signal


def _is_fallback(answer: "Signal[Any]") -> bool:
    result = answer.data.get("result")
    return isinstance(result, dict) and result.get("fallback") is True
