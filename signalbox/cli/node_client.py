"""Asks the running node's HTTP interface. Never through a proxy: a node is on this machine or on its network."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from signalbox.errors import NotFound, SignalboxError, Unreachable, UsageError

if TYPE_CHECKING:
    from signalbox.supervision.discovery import NodeRecord

#: The largest answer that is read, so that a wrong server cannot fill the memory.
_ANSWER_BYTES = 64 * 1024 * 1024


class NodeClient:
    """Reads from the node that `record` describes."""

    def __init__(self, record: "NodeRecord", *, timeout_s: float) -> None:
        self.record = record
        self._timeout_s = timeout_s
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON answer to `GET path`.

        Raises:
            UsageError, NotFound, Unreachable: the node refused (400, 404, 503); the message is the node's own.
            Unreachable: it did not answer in time.
            SignalboxError: it answered with another error, or not in JSON.
        """
        url = f"{self.record.http}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        try:
            with self._open(url, timeout=self._timeout_s) as answer:
                return json.loads(answer.read(_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            raise _refusal(error, path) from None
        except OSError as error:
            msg = f"the node at {self.record.http} does not answer: {getattr(error, 'reason', error)}"
            raise Unreachable(msg, hint="`signalbox doctor` looks for the reason") from error
        except ValueError as error:
            msg = f"the node at {self.record.http} answered {path} with something that is not JSON"
            raise SignalboxError(msg, hint="is another program listening on its port?") from error


def quoted(word: str) -> str:
    """A word, such as an agent's id, as one segment of a path."""
    return urllib.parse.quote(word, safe="")


def _refusal(error: urllib.error.HTTPError, path: str) -> SignalboxError:
    message, hint = f"the node answered {path} with {error.code} {error.reason}", None
    try:
        with error:
            body = json.loads(error.read(_ANSWER_BYTES))
        message, hint = str(body.get("error") or "; ".join(body["reasons"])), body.get("hint")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass  # another server's answer; its status has to do
    kind = {400: UsageError, 404: NotFound, 503: Unreachable}.get(error.code, SignalboxError)
    return kind(message, hint=hint)
