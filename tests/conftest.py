"""What all tests share: brokers, topic prefixes, a clean environment and the settings of hypothesis."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from connectors.brokers.apache import ApacheKafka
from connectors.brokers.embedded import EmbeddedBroker
from signalbox.errors import ConfigError, Unreachable
from tests.support.kafka import (
    BrokerUnderTest,
    KafkaProvider,
    LocalProvider,
    RemoteProvider,
    Unavailable,
    unique_prefix,
)

_PROVIDER = pytest.StashKey[KafkaProvider]()
_SOCKET = "signalbox_kafka_socket"
_SKIPPED = "no Apache Kafka: "

# A gate must give the same answer for the same tree; `HYPOTHESIS_PROFILE=explore` looks for new examples.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    worker_input = getattr(config, "workerinput", None)
    config.stash[_PROVIDER] = RemoteProvider(worker_input[_SOCKET]) if worker_input else LocalProvider()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    provider = node.config.stash[_PROVIDER]
    if not hasattr(provider, "address"):
        provider.address = provider.serve()
    node.workerinput[_SOCKET] = provider.address


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"kafka: {_description(config)}"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what is missing now, since a test's timeout does not allow for downloads."""
    wanted = any(item.get_closest_marker("kafka") for item in session.items)
    if wanted and not session.config.option.collectonly:
        try:
            session.config.stash[_PROVIDER].prepare()
        except Unavailable:
            return  # the fixture says so, test by test


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if _SKIPPED in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"kafka: {len(skipped)} tests were skipped; Apache Kafka: {_description(terminalreporter.config)}"
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    provider = config.stash.get(_PROVIDER, None)
    if isinstance(provider, LocalProvider):
        provider.close()


def _description(config: pytest.Config) -> str:
    provider = config.stash[_PROVIDER]
    return provider.description if isinstance(provider, LocalProvider) else "that of the controller"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no settings of the developer's shell."""
    for name in list(os.environ):
        if name.startswith("SIGNALBOX_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> BrokerUnderTest:
    """The Apache Kafka of this run, shared by all its tests. Mark them with `@pytest.mark.kafka`."""
    try:
        return BrokerUnderTest(pytestconfig.stash[_PROVIDER].bootstrap(), "kafka")
    except Unavailable as error:
        pytest.skip(f"{_SKIPPED}{error}")


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[ApacheKafka]:
    """A local Apache Kafka of the test's own, not started, to kill and restart. Needs Java and Maven."""
    broker = ApacheKafka(tmp_path)
    try:
        broker.prepare()
    except (ConfigError, Unreachable) as error:
        pytest.skip(f"{_SKIPPED}{error}")
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerUnderTest]:
    """An embedded broker, shared by all tests of this process."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("embedded"))
    try:
        yield BrokerUnderTest(broker.start(), "embedded")
    except ConfigError as error:
        pytest.skip(f"no embedded broker: {error}")
    finally:
        broker.stop()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_broker(request: pytest.FixtureRequest) -> BrokerUnderTest:
    """Runs the test on the embedded broker and on Apache Kafka."""
    broker: BrokerUnderTest = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test uses."""
    return unique_prefix()
