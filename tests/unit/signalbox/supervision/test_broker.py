import asyncio
from datetime import timedelta
from typing import Any

import pytest

from signalbox.clock import VirtualClock
from signalbox.config import Settings
from signalbox.errors import SignalboxError, Unreachable
from signalbox.supervision import broker
from signalbox.supervision.broker import OuterBroker, OwnBroker


class _Admin:
    """A broker that refuses so many times; every try takes ten seconds of virtual time."""

    def __init__(self, clock: VirtualClock, refusals: int) -> None:
        self._clock = clock
        self.refusals = refusals
        self.tries = 0

    def cluster_id(self) -> str:
        self.tries += 1
        self._clock.advance(timedelta(seconds=10))
        if self.tries <= self.refusals:
            msg = "connection refused"
            raise Unreachable(msg)
        return "cluster-1"


class _Local:
    """A broker process that a test kills by setting `living`."""

    def __init__(self, failures: int = 0) -> None:
        self.living = False
        self.ports: list[int] = []
        self.failures = failures

    pid = None

    def start(self, *, port: int = 0, timeout_s: float = 60.0) -> str:
        self.ports.append(port)
        if port and self.failures:
            self.failures -= 1
            msg = "no memory"
            raise SignalboxError(msg)
        self.living = True
        return f"127.0.0.1:{port or 29092}"

    def alive(self) -> bool:
        return self.living

    def stop(self) -> None:
        self.living = False


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_LOOK_S", 0.001)
    monkeypatch.setattr(broker, "_CHECK_S", 0.001)
    monkeypatch.setattr(broker, "_RETRY_S", 0.001)


def _settings(**kafka: Any) -> Settings:
    return Settings.model_validate(
        {"kafka": {"bootstrap": "broker:9092", **kafka}, "supervision": {"start_timeout_s": 60, "backoff_min_s": 0.001}}
    )


def test_an_outer_broker_is_waited_for() -> None:
    """A broker that comes up a little later than the node is no error."""
    clock = VirtualClock()
    admin = _Admin(clock, refusals=3)
    assert asyncio.run(OuterBroker(admin, _settings(), clock).start()) == "broker:9092"  # type: ignore[arg-type]
    assert admin.tries == 4


def test_waiting_for_an_outer_broker_has_an_end() -> None:
    """After the start timeout the error has exit code 4, names the address and says what to do."""
    clock = VirtualClock()
    with pytest.raises(Unreachable, match="no Kafka broker answers at broker:9092") as refusal:
        asyncio.run(OuterBroker(_Admin(clock, refusals=1000), _settings(), clock).start())  # type: ignore[arg-type]
    assert refusal.value.exit_code == 4
    assert "--broker embedded" in str(refusal.value.hint)
    assert clock.monotonic() == 60


def test_an_outer_broker_that_goes_away_is_a_problem_until_it_is_back() -> None:
    """Health shows an outage of the broker while it lasts."""

    async def scenario() -> None:
        clock = VirtualClock()
        admin = _Admin(clock, refusals=0)
        outer = OuterBroker(admin, _settings(), clock)  # type: ignore[arg-type]
        await outer.start()
        outer.watch(lost=_nothing, back=_nothing)
        admin.refusals = 10**9
        await _until(lambda: outer.problem == "Kafka does not answer at broker:9092")
        admin.refusals = 0
        await _until(lambda: outer.problem is None)
        await outer.stop()

    asyncio.run(scenario())


def test_an_own_broker_that_dies_is_started_again_on_its_port() -> None:
    """Clients keep their address; the node is told before and after, and a start that fails is tried again."""

    async def scenario() -> None:
        told: list[str] = []
        local = _Local(failures=2)
        own = OwnBroker(local, _settings(broker="embedded"), VirtualClock())
        assert await own.start() == "127.0.0.1:29092"

        async def lost() -> None:
            told.append("lost")

        async def back() -> None:
            told.append("back")

        own.watch(lost=lost, back=back)
        local.living = False
        await _until(lambda: "back" in told and own.problem is None)
        assert told == ["lost", "back"]
        assert local.ports == [0, 29092, 29092, 29092]
        assert local.living
        await own.stop()
        assert not local.living

    asyncio.run(scenario())


async def _nothing() -> None:
    pass


async def _until(check: Any) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)
