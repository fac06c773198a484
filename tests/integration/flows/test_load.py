"""The load sensor against Apache Kafka and a real worker: that works, is gone, and is not wanted."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from schemas.payloads.load import LoadMetrics
from signalbox.sensors import LoadSensor, SampleContext
from tests.integration.flows.conftest import MakeSystem
from tests.support.eventually import eventually
from tests.support.worker import PATIENCE_S, System, task_ids, tasks

pytestmark = pytest.mark.kafka
Measure = Callable[[], LoadMetrics]


@pytest.fixture
def system(make_system: MakeSystem) -> System:
    return make_system(telemetry={"flush_s": 60})  # so that the worker itself adds nothing meanwhile


@pytest.fixture
def measure(system: System) -> Iterator[Measure]:
    """Looks at the agents flow."""
    context = SampleContext(
        sensor="load", node="n1", data_dir=system.settings.node.data_dir, node_settings=system.settings
    )
    sensor = LoadSensor(LoadSensor.Settings(), "n1")
    sensor.start(context)

    def look() -> LoadMetrics:
        found = {one.subject: one.data for one in sensor.sample(context) if one.type == "system.load.metrics"}
        return LoadMetrics.model_validate(found["flow/agents"])

    yield look
    sensor.stop(context)


def _want(system: System, workers: int) -> None:
    path = system.settings.node.data_dir / "run" / "scaling.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps({"flows": {"agents": {"target": workers}}, "pools": {}}))


def test_a_flow_is_measured_with_workers_and_without(system: System, measure: Measure) -> None:
    """Work shows as arrivals and as processed, a killed worker as unknown, and what waits for nobody as lag."""
    _want(system, 1)
    worker = system.start()
    worker.await_caught_up()
    began_s = time.monotonic()
    measure()
    system.send(tasks(0, 300))
    system.await_answers(task_ids(300))
    worker.await_caught_up()
    told = measure()
    elapsed_s = time.monotonic() - began_s
    assert (told.units, told.lag, told.changing, told.unknown) == (1, 0, False, None)
    for rate in (told.arrivals, told.processed):
        assert rate is not None
        assert rate * elapsed_s >= 300
    assert told.busy is not None
    assert 0 < told.busy <= 1
    assert told.memory is not None
    assert told.partitions == 4

    worker.kill()
    told = measure()
    assert (told.lag, told.processed, told.busy, told.changing) == (None, None, None, True)
    assert told.unknown == "agents-0 does not answer"

    worker = system.start()
    worker.await_caught_up()
    assert worker.drain() == 0
    _want(system, 0)
    assert eventually(lambda: measure().lag == 0, timeout_s=PATIENCE_S)
    began_s = time.monotonic()
    system.send(tasks(300, 100))
    told = measure()
    assert (told.units, told.lag, told.busy) == (0, 100, None)
    assert told.arrivals is not None
    assert told.arrivals >= 100 / (time.monotonic() - began_s + 2)
