import time
from datetime import UTC, datetime
from typing import Any

from connectors.kafka.rests import Rests


def rest_s(rests: Rests, *, since_s: float) -> float:
    """How long a partition sleeps whose epoch began so long ago."""
    awake = rests.next_awake(time.monotonic() - since_s)
    return 0.0 if awake is None else (awake - datetime.now(UTC)).total_seconds()


def test_where_there_is_plenty_nobody_rests() -> None:
    """After a poll that brought much, partitions are asked again at once; after another, a moment later."""
    rests = Rests(epoch_s=1)
    rests.polled(1000)
    assert rest_s(rests, since_s=0) == 0
    rests.polled(3)
    assert 0 < rest_s(rests, since_s=0) < 0.002


def test_a_worker_alone_does_not_rest_while_it_saves() -> None:
    """However long it took: what it waits for is done by the thread that would sleep."""
    rests = Rests(epoch_s=1)
    rests.saved(5.0)
    assert rest_s(rests, since_s=1) < 0.005


def test_the_rest_while_an_epoch_is_saved_is_as_long_as_that_takes(monkeypatch: Any) -> None:
    """Longer at once when it took longer, up to a tenth of a second, and slowly less when it took no longer."""
    monkeypatch.setattr("connectors.kafka.rests.processors", lambda: 2)
    rests = Rests(epoch_s=1, workers=2)
    rests.saved(0.04)
    assert 0.03 < rest_s(rests, since_s=1) <= 0.04
    rests.saved(5.0)
    assert 0.09 < rest_s(rests, since_s=1) <= 0.1
    for _ in range(50):
        rests.saved(0.1 * 0.9**50)
    assert rest_s(rests, since_s=1) < 0.005


def test_where_processors_are_short_rests_are_longer_than_saving_takes(monkeypatch: Any) -> None:
    """More workers than processors do not find out how short a rest would do, and rest longer if it was not enough."""
    monkeypatch.setattr("connectors.kafka.rests.processors", lambda: 2)
    assert rest_s(Rests(epoch_s=1, workers=2), since_s=1) < 0.005
    rests = Rests(epoch_s=1, workers=3)
    for _ in range(50):
        rests.saved(0.01)
    assert 0.14 < rest_s(rests, since_s=1) <= 0.15
    rests.saved(5.0)
    assert 0.29 < rest_s(rests, since_s=1) <= 0.3


def test_the_rest_for_an_epoch_comes_only_when_one_is_due() -> None:
    """In the middle of an epoch nothing but the last poll counts."""
    rests = Rests(epoch_s=1, workers=2)
    rests.saved(0.1)
    rests.polled(1000)
    assert rest_s(rests, since_s=0.5) == 0
