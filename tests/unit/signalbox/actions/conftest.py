from collections.abc import Iterator

import pytest

from signalbox.actions import Action
from tests.support.action_bench import Bench, MakeBench


@pytest.fixture
def bench() -> Iterator[MakeBench]:
    """Makes executors with actions, and stops them."""
    made: list[Bench] = []

    def make(*actions: Action, **settings: object) -> Bench:
        made.append(Bench(*actions, **settings))
        return made[-1]

    yield make
    for one in made:
        if not one.journal.closed:
            one.executor.stop(0)
