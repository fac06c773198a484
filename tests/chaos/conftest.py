"""A broker of these tests' own, nodes to strike, and what a failed run leaves behind for whoever has to explain it."""

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from signalbox.errors import ConfigError
from tests.support.chaos import MortalBroker, MortalNode

_SHORT_ROUNDS = 5
#: Far more than a round takes, but it bounds a run that hangs.
_ROUND_TIMEOUT_S, _TEST_TIMEOUT_S = 60, 300
_SUMMARY = "chaos"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--chaos-rounds", type=int, default=_SHORT_ROUNDS, help="faults per test (default: %(default)s)")
    group.addoption("--chaos-seed", type=int, default=None, help="repeat the choices of an earlier run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limit_s = _TEST_TIMEOUT_S + _ROUND_TIMEOUT_S * _rounds(config)
    for item in items:
        if item.get_closest_marker("chaos"):
            item.add_marker(pytest.mark.timeout(limit_s))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    nodes: list[MortalNode] = getattr(item, "funcargs", {}).get("nodes", [])
    if report.failed:
        report.sections.extend((f"last log lines of {node.directory.name}", node.tail()) for node in nodes)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _SUMMARY and report.when == "call":
                    terminalreporter.write_line(f"chaos: {value}")


def _rounds(config: pytest.Config) -> int:
    # A run of all tests reads this file after the command line.
    return int(config.getoption("chaos_rounds", _SHORT_ROUNDS))


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> int:
    """How many faults a test is to make."""
    return _rounds(pytestconfig)


@pytest.fixture
def rng(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> random.Random:
    """Chooses faults and waits. Its seed repeats the choices, though not the machine's own timing."""
    seed = pytestconfig.getoption("chaos_seed", None)
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    print(f"--chaos-seed {seed}")
    request.node.user_properties.append((_SUMMARY, f"{request.node.name}: --chaos-seed {seed}"))
    return random.Random(seed)


@pytest.fixture
def summarize(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a line under the results of the run."""

    def add(line: str) -> None:
        print(line)
        request.node.user_properties.append((_SUMMARY, line))

    return add


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalBroker]:
    """A local Apache Kafka that may be killed."""
    broker = MortalBroker(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
    except ConfigError as error:
        pytest.skip(f"no Apache Kafka: {error}")
    yield broker
    broker.kill()


@pytest.fixture
def nodes() -> Iterator[list[MortalNode]]:
    """Nodes to be ended after the test, with everything they started."""
    started: list[MortalNode] = []
    yield started
    for node in started:
        node.close()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_node(
    broker: MortalBroker, nodes: list[MortalNode], topic_prefix: str, tmp_path: Path
) -> Callable[..., MortalNode]:
    """Start a node on the broker, and wait until it is ready."""

    def make(**more: Any) -> MortalNode:
        broker.start()  # an earlier test may have failed while it was away
        node = MortalNode(tmp_path / f"node-{len(nodes)}", broker.bootstrap, topic_prefix, **more)
        nodes.append(node)
        node.up()
        node.ready()
        return node

    return make
