"""Settings and errors of Kafka clients, without a broker."""

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from connectors.kafka import client
from connectors.kafka.client import LastError, client_config, producer_config, translated, translating
from signalbox.config import KafkaSettings
from signalbox.errors import ConfigError, Conflict, NotFound, SignalboxError, Unreachable

SETTINGS = KafkaSettings(bootstrap="broker.example:9092")


def test_own_settings_win_over_the_users_and_those_over_the_defaults() -> None:
    """A user may change defaults, and not what a client relies on."""
    settings = KafkaSettings(bootstrap="b:1", client={"client.id": "mine", "acks": "0", "sasl.password": "p"})
    config = client_config(settings, acks="all")
    assert (config["client.id"], config["acks"], config["sasl.password"]) == ("mine", "all", "p")
    assert config["bootstrap.servers"] == "b:1"


def test_the_bootstrap_has_one_place() -> None:
    """A second address in `kafka.client` is refused instead of silently losing."""
    with pytest.raises(ConfigError, match=r"bootstrap\.servers") as caught:
        client_config(KafkaSettings(client={"bootstrap.servers": "other:9092"}))
    assert "kafka.bootstrap" in (caught.value.hint or "")


def test_a_producer_is_idempotent_whatever_the_user_says() -> None:
    """The promises of delivery cannot be turned off through `kafka.client`; compression and the like can be set."""
    client = {"enable.idempotence": False, "acks": "1", "compression.type": "lz4"}
    config = producer_config(KafkaSettings(client=client))
    assert (config["enable.idempotence"], config["acks"], config["compression.type"]) == (True, "all", "lz4")
    assert config["partitioner"] == "murmur2_random"


def test_the_clients_log_goes_to_the_logging_module() -> None:
    """Nothing is written to stderr by the library itself."""
    assert isinstance(client_config(SETTINGS)["logger"], logging.Logger)


def test_a_client_that_repeats_itself_is_heard_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a broker is away, a message that differs in numbers only is logged once per while, then with its count."""
    log = logging.getLogger("test.client")
    log.addFilter(client._OncePerWhile())
    now = 100.0
    monkeypatch.setattr(client.time, "monotonic", lambda: now)
    for attempt in range(40):
        log.warning("Connect to 127.0.0.1:%d failed (after %dms)", 9092, attempt)
    log.warning("Authentication failed")
    now += 31
    log.warning("Connect to 127.0.0.1:%d failed (after %dms)", 9092, 7)
    assert [record.getMessage() for record in caplog.records] == [
        "Connect to 127.0.0.1:9092 failed (after 0ms)",
        "Authentication failed",
        "Connect to 127.0.0.1:9092 failed (after 7ms) (and 39 more like it)",
    ]


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (KafkaError._ALL_BROKERS_DOWN, Unreachable, "--bootstrap"),
        (KafkaError._TIMED_OUT, Unreachable, "--bootstrap"),
        (KafkaError._RESOLVE, Unreachable, "--bootstrap"),
        (KafkaError._AUTHENTICATION, Unreachable, "sasl.*"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Unreachable, "ACLs"),
        (KafkaError._SSL, Unreachable, "ssl.*"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, NotFound, "topic list"),
        (KafkaError._UNKNOWN_TOPIC, NotFound, "topic list"),
        (KafkaError.INVALID_REPLICATION_FACTOR, ConfigError, "kafka.replication"),
        (KafkaError._INVALID_ARG, ConfigError, "kafka.client"),
        (KafkaError.TOPIC_ALREADY_EXISTS, Conflict, ""),
        (KafkaError.MSG_SIZE_TOO_LARGE, SignalboxError, ""),
    ],
)
def test_each_error_gets_its_exit_code_and_a_hint(code: int, kind: type[SignalboxError], hint: str) -> None:
    """The library's codes become the errors that scripts know, with what was tried and what to check."""
    error = translated(KafkaError(code, "because"), SETTINGS, "do this")
    assert type(error) is kind
    assert "cannot do this: because" in str(error)
    assert hint in (error.hint or "")
    if kind is Unreachable:
        assert SETTINGS.bootstrap in str(error)


def test_only_the_librarys_errors_are_translated() -> None:
    """Kafka's exceptions become ours with their cause; others pass."""
    with pytest.raises(Unreachable) as caught, translating(SETTINGS, "do this"):
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "gone"))
    assert isinstance(caught.value.__cause__, KafkaException)
    with pytest.raises(ZeroDivisionError), translating(SETTINGS, "do this"):
        raise ZeroDivisionError
    with pytest.raises(SignalboxError, match="odd"), translating(SETTINGS, "do this"):
        raise KafkaException("odd")


def test_the_reason_behind_a_silence_is_told() -> None:
    """A call that timed out because the broker refused the credentials says that, even when more noise follows."""
    last = LastError()
    last.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    last.note(KafkaError(KafkaError._AUTHENTICATION, "bad password"))
    last.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    with pytest.raises(Unreachable, match=r"refused this client.*bad password"), translating(SETTINGS, "ask", last):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "timed out"))


def test_an_answer_is_not_replaced_by_an_older_reason() -> None:
    """An error that the broker itself gave stays, whatever was noted before."""
    last = LastError()
    last.note(KafkaError(KafkaError._TRANSPORT, "was away for a moment"))
    with pytest.raises(NotFound), translating(SETTINGS, "ask", last):
        raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic"))
