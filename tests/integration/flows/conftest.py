"""Systems on the shared Apache Kafka, with worker processes that do not outlive their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka import BrokerUnderTest
from tests.support.worker import System

MakeSystem = Callable[..., System]


@pytest.fixture
def make_system(kafka: BrokerUnderTest, topic_prefix: str, tmp_path: Path) -> Iterator[MakeSystem]:
    """Makes a system of topics; its workers are killed at the end."""
    made: list[System] = []

    def make(*, data_dir: str = "data", prefix: str = topic_prefix, bootstrap: str = "", **options: Any) -> System:
        made.append(System(bootstrap or kafka.bootstrap, prefix, tmp_path / data_dir, **options))
        return made[-1]

    yield make
    for system in made:
        system.close()


@pytest.fixture
def system(make_system: MakeSystem) -> System:
    return make_system()
