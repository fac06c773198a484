"""Settings that every Kafka client of ours starts from, and what its errors mean to a user.

Nothing here connects. The clients themselves are `publisher`, `reader`, `admin`, and the `source` and `sink` of flows.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, Conflict, NotFound, SignalboxError, Unreachable

#: How long one question to the broker may take. A healthy one answers in milliseconds; an election takes seconds.
CALL_TIMEOUT_S = 10.0
#: The largest record we write: a dead letter with its original bytes in base64. Topics may allow less.
MAX_RECORD_BYTES = 4_194_304
#: Requests that a producer of a flow has under way to one broker. A broker handles those of a connection one after the
#: other, so a second one only waits there, half empty, where it would fill up while it waits here.
IN_FLIGHT = 1

#: A message of a client that comes again is logged once in so long.
_LOG_AGAIN_S = 30.0
_KINDS_OF_MESSAGES = 1_000
_NUMBERS = re.compile(r"\d+")

_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
}
_UNKNOWN = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
_AWAY = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
}
_MISCONFIGURED = {
    KafkaError._INVALID_ARG,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_EXCEPTION,
}


def client_config(settings: KafkaSettings, **own: object) -> dict[str, Any]:
    """Settings of one librdkafka client.

    `own` (what the caller relies on, such as `enable.idempotence`) wins over the user's `kafka.client`, which wins over
    the defaults here. What the client logs goes to the logger `connectors.kafka.client` when the client is polled.

    Raises:
        ConfigError: `kafka.client` sets what another setting is for.
    """
    if "bootstrap.servers" in settings.client:
        msg = "kafka.client sets bootstrap.servers"
        raise ConfigError(msg, hint="set kafka.bootstrap instead")
    return {
        "client.id": "signalbox",
        # A broker that restarts is back within seconds; the library's defaults would keep away from it for ten.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.connection.setup.timeout.ms": 5_000,
        "log_level": 4,
        "logger": _client_log(),
        **settings.client,
        "bootstrap.servers": settings.bootstrap,
        **own,
    }


def producer_config(settings: KafkaSettings, **own: object) -> dict[str, Any]:
    """Settings of a producer that neither loses, doubles nor reorders, and places keys as Java clients do."""
    return client_config(
        settings,
        **{
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "message.max.bytes": MAX_RECORD_BYTES,
            "linger.ms": settings.linger_ms,
            **own,
        },
    )


def is_passing(error: KafkaError) -> bool:
    """Whether the error is one of a broker that is away or not settled yet, so that trying again can help."""
    return error.code() in _AWAY


class _OncePerWhile(logging.Filter):
    """Lets a message pass that differs from the recent ones in more than numbers; says how often others came again.

    A client whose broker is away tells of each attempt to reach it, several times a second and for each broker.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        key = _NUMBERS.sub("", text)
        at, repeats = self._passed.get(key, (float("-inf"), 0))
        now = time.monotonic()
        if now - at < _LOG_AGAIN_S:
            self._passed[key] = (at, repeats + 1)
            return False
        if len(self._passed) > _KINDS_OF_MESSAGES:
            self._passed.clear()
        self._passed[key] = (now, 0)
        if repeats:
            record.msg, record.args = f"{text} (and {repeats} more like it)", None
        return True


def _client_log() -> logging.Logger:
    client_log = logging.getLogger(__name__)
    if not client_log.filters:
        client_log.addFilter(_OncePerWhile())
    return client_log


class LastError:
    """Why a client cannot connect: pass `note` as `error_cb`.

    A call that fails because no broker was reached says only that it took too long; the reason arrives here, when
    the client is polled.
    """

    def __init__(self) -> None:
        self._error: KafkaError | None = None

    def note(self, error: KafkaError) -> None:
        """Keep the error, but prefer "refused" over the "all brokers are down" that follows from it."""
        if self._error is None or self._error.code() not in _REFUSED:
            self._error = error

    def explain(self, error: KafkaError) -> KafkaError:
        """The noted error in place of one that says only that there was no answer."""
        return self._error if self._error and error.code() in _AWAY else error


@contextmanager
def translating(settings: KafkaSettings, doing: str, last_error: LastError | None = None) -> Iterator[None]:
    """Turn the Kafka library's exceptions into ours; `doing` completes "cannot ..."."""
    try:
        yield
    except KafkaException as error:
        cause = error.args[0]
        if not isinstance(cause, KafkaError):
            msg = f"cannot {doing}: {error}"
            raise SignalboxError(msg) from error
        raise translated(last_error.explain(cause) if last_error else cause, settings, doing) from error


def translated(error: KafkaError, settings: KafkaSettings, doing: str) -> SignalboxError:
    """One of our errors for one of the Kafka library's; `doing` completes "cannot ..."."""
    code, msg = error.code(), f"cannot {doing}: {error.str()}"
    if code in _REFUSED:
        msg = f"the broker at {settings.bootstrap} refused this client: {msg}"
        return Unreachable(
            msg, hint="check the sasl.*, ssl.* and security.protocol values of kafka.client, and its ACLs"
        )
    if code in _UNKNOWN:
        return NotFound(msg, hint="`signalbox topic list` shows the topics there are")
    if code in _AWAY:
        msg = f"no Kafka broker answers at {settings.bootstrap}: {msg}"
        hint = "is it running, is kafka.bootstrap (--bootstrap HOST:PORT) its address, and does it want TLS or SASL"
        return Unreachable(msg, hint=f"{hint} (kafka.client)?")
    if code in _MISCONFIGURED:
        return ConfigError(msg, hint="check kafka.client, kafka.partitions and kafka.replication")
    if code == KafkaError.TOPIC_ALREADY_EXISTS:
        return Conflict(msg)
    return SignalboxError(msg)
