"""The mode `exactly_once`, with worker processes on Apache Kafka."""

import pytest

from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.worker import PATIENCE_S, task_ids, tasks

pytestmark = pytest.mark.kafka
EXACTLY_ONCE = {"delivery": "exactly_once"}


def test_kills(make_system: MakeSystem) -> None:
    """Every task has one answer that is shown to readers of what is committed, over kills."""
    system = make_system(flows={"epoch_ms": 200, **EXACTLY_ONCE})
    worker = system.start()
    for number in range(3):
        system.send(tasks(number * 500, 500))
        eventually(lambda number=number: system.answers().total() > number * 500 + 50, timeout_s=PATIENCE_S)
        worker.kill()
        worker = system.start()
    system.await_answers(task_ids(1500))
    worker.await_caught_up()
    assert worker.drain() == 0
