"""Commands about scaling, obeyed with real processes: stand-ins serve as workers, and memory as the broker."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.signal import Signal, decode, new_signal
from signalbox.clock import SystemClock
from signalbox.config import Settings, resolved_environment
from signalbox.ports import Record
from signalbox.supervision import inspection
from signalbox.supervision.commands import Command
from signalbox.supervision.generation import Launch, Place
from signalbox.supervision.group import GroupState, ProcessGroup
from signalbox.supervision.notices import Notices
from signalbox.supervision.outbox import Outbox
from signalbox.supervision.process import Program
from signalbox.supervision.scaler import Scaler
from signalbox.supervision.targets import Change, TargetsFile
from signalbox.supervision.view import has_settled
from tests.support.fakes import MemoryBroker, MemoryPublisher
from tests.support.lines import whole_lines

_CHILD = Path(__file__).parents[2] / "support" / "fake_process.py"
_ROOT = Path(__file__).parents[3]
_PATIENCE_S = 20.0


def _settings(data_dir: Path, **scaling: Any) -> Settings:
    return Settings.model_validate(
        {
            "node": {"name": "n1", "data_dir": str(data_dir)},
            "supervision": {"backoff_min_s": 0.05, "drain_timeout_s": 3.0},
            "scaling": scaling,
        }
    )


class _Rig:
    """One supervisor's worth of scaling for the flow `agents`; make it inside an event loop."""

    def __init__(self, data_dir: Path, *, workers: int = 1, **scaling: Any) -> None:
        self.settings = _settings(data_dir, **scaling)
        self.data_dir = data_dir
        self.broker = MemoryBroker(["scaling", "dead-letters"])
        self.outbox = Outbox(self.settings, make_publisher=lambda: MemoryPublisher(self.broker))
        self.targets = TargetsFile(data_dir / "control.json")
        self.scaler = Scaler(self.settings, self.targets, Notices(self.settings, self.outbox))
        environment = resolved_environment(self.settings, data_dir / "run" / "settings.json")
        flow = self.scaler.target("agents", workers)
        self.group = ProcessGroup(
            "agents",
            Launch(
                starter=Program((sys.executable, str(_CHILD)), {**environment, "PYTHONPATH": str(_ROOT)}),
                arguments=_arguments,
                socket=lambda index: inspection.socket_path(data_dir, f"agents-{index}"),
                is_running=lambda answer: answer["state"] == "running",
                has_settled=has_settled,
                stands_by=True,
            ),
            target=0 if flow.paused else flow.workers,
            settings=self.settings.supervision,
            clock=SystemClock(),
            on_exit=lambda _pid: None,
            generation=flow.generation,
            between=self._between,
        )
        self._offset = 0

    async def _between(self, generation: int) -> bool:
        await self.scaler.began("agents", generation)
        return True

    def command(self, type: str, **data: Any) -> None:
        """Obey a command as it comes from `control`."""
        said: Signal[Any] = new_signal(type, data, source="test", subject=data.get("target", "x"))
        record = Record(
            topic="control", partition=0, offset=self._offset, key=None, value=b"{}", timestamp=datetime.now(UTC)
        )
        self._offset += 1
        self.scaler.obey(Command(said, record))

    def scale(self, desired: int, **more: Any) -> None:
        self.command("control.scale", target="flow/agents", desired=desired, reason="a test", **more)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - it looks at processes
                await asyncio.sleep(0.02)

    async def running(self, workers: int) -> None:
        """Wait until so many workers are at work and nothing changes any more."""
        await self.until(
            lambda: (
                self.group.state is GroupState.RUNNING
                and len(self.group.pids) == workers
                and not self.scaler.changing("agents")
            )
        )

    def told(self, topic: str = "scaling") -> list[Signal[Any]]:
        """What was told on a topic; call `close` first to have everything."""
        return [decode(record.value, record.headers) for record in self.broker.records(topic)]

    def steps(self) -> list[str]:
        return [str(change["step"]) for change in self.scaler.changes]

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = whole_lines(self.data_dir / "events.jsonl")
        return [line for line in map(json.loads, lines) if line["event"] == event]


def _arguments(place: Place) -> list[str]:
    together = ("--addresses", ",".join(place.addresses)) if place.addresses else ()
    return ["agents", "--index", str(place.index), *together]


@asynccontextmanager
async def _alive(rig: _Rig) -> AsyncIterator[_Rig]:
    group = asyncio.create_task(rig.group.run())
    keeper = asyncio.create_task(rig.scaler.keep(rig.group))
    try:
        yield rig
    finally:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
        rig.group.stop()
        await group
        await asyncio.to_thread(rig.outbox.close, 5)


def _run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_command_changes_the_number_of_workers_step_by_step(tmp_path: Path) -> None:
    """One worker becomes three: each step is told, and none of the next begins before the last is gone."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            rig.scale(3)
            await rig.running(3)
            assert rig.steps() == ["plan", "warm", "drain", "reap", "save", "start", "confirm", "done"]
        told = rig.told()
        assert [one.type.rpartition(".")[2] for one in told] == ["started", *["step"] * 6, "completed"]
        assert {one.data["rescale_id"] for one in told} == {told[0].data["rescale_id"]}
        assert (told[-1].data["before"], told[-1].data["workers"], told[-1].data["reason"]) == (1, 3, "a test")
        [drained] = [event["at"] for event in rig.events("drained")][:1]
        assert all(event["at"] > drained for event in rig.events("begin clean"))
        assert len(rig.events("begin clean")) == 3

    _run(test)


def test_the_newest_target_wins(tmp_path: Path) -> None:
    """A command that comes while workers are got ready takes their place, and the one before is told as superseded."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            rig.scale(4)
            await rig.until(lambda: "warm" in rig.steps())
            rig.scale(2)
            await rig.running(2)
            assert rig.group.generation == 2
            superseded = [change for change in rig.scaler.changes if change["step"] == "superseded"]
            assert [(change["desired"], change["error"]) for change in superseded] == [
                (4, "2 workers are wanted by now")
            ]

    _run(test)


def test_workers_that_do_not_come_up_are_rolled_back(tmp_path: Path) -> None:
    """A generation that crashes before it is confirmed makes way for the old number, and the reason is told."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            (tmp_path / "crash-agents-1").touch()
            rig.scale(2)
            await rig.until(lambda: bool(rig.scaler.changes) and rig.scaler.changes[-1]["type"].endswith("failed"))
            await rig.running(1)
            assert "exited with 1" in rig.scaler.changes[-1]["error"]
            assert rig.targets.now.flows["agents"].workers == 1

    _run(test)


def test_a_change_that_a_killed_supervisor_began_is_finished(tmp_path: Path) -> None:
    """What was begun is on disk before anything is done; the next supervisor starts the new number and says so."""

    async def test() -> None:
        first = _Rig(tmp_path)
        flow = first.targets.now.flows["agents"]
        flow.workers, flow.generation = 3, 7
        flow.change = Change(id="c1", before=1, desired=3, reason="before the end")
        first.targets.save()
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(3)
            assert rig.group.generation == 8
            assert [(change["step"], change["rescale_id"]) for change in rig.scaler.changes] == [("done", "c1")]

    _run(test)


def test_a_pause_that_a_killed_supervisor_began_is_finished(tmp_path: Path) -> None:
    """To have no workers is a number like any other: the next supervisor says it is done, and obeys what comes then."""

    async def test() -> None:
        first = _Rig(tmp_path)
        flow = first.targets.now.flows["agents"]
        flow.paused, flow.change = True, Change(id="c1", before=1, desired=0)
        first.targets.save()
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.until(lambda: rig.steps() == ["done"])
            rig.command("control.resume", flow="agents")
            await rig.running(1)

    _run(test)


def test_commands_count_from_the_first_start(tmp_path: Path) -> None:
    """A supervisor that was never commanded knows at its next start since when it has been listening."""

    async def test() -> None:
        rig = _Rig(tmp_path)
        rig.scaler.listens()
        first = TargetsFile(tmp_path / "control.json").now.since_s
        assert first is not None
        _Rig(tmp_path).scaler.listens()
        assert TargetsFile(tmp_path / "control.json").now.since_s == first

    _run(test)


def test_a_change_that_a_killed_supervisor_began_is_given_up_if_it_only_crashes(tmp_path: Path) -> None:
    """If the new number does not come up for the next supervisor either, it goes back to the old one."""

    async def test() -> None:
        (tmp_path / "crash-agents-2").touch()
        first = _Rig(tmp_path)
        flow = first.targets.now.flows["agents"]
        flow.workers, flow.change = 3, Change(id="c1", before=1, desired=3)
        first.targets.save()
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            assert rig.scaler.changes[0]["step"] == "rollback"

    _run(test)


def test_other_settings_at_the_next_start_win(tmp_path: Path) -> None:
    """A number that was commanded outlives the supervisor, until somebody changes what the settings say."""

    async def test() -> None:
        first = _Rig(tmp_path, workers=1)
        first.targets.now.flows["agents"].workers = 3
        first.targets.save()
        assert _Rig(tmp_path, workers=1).group.target == 3
        assert _Rig(tmp_path, workers=2).group.target == 2

    _run(test)


def test_a_command_for_another_number_is_set_aside_as_stale(tmp_path: Path) -> None:
    """A decision that was made for other numbers than there are becomes a dead letter, and nothing else happens."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            rig.scale(4, expected=2, decision_id="d1")
            await asyncio.sleep(0)
            assert rig.targets.now.flows["agents"].workers == 1
        [letter] = rig.told("dead-letters")
        assert (letter.data["reason"], letter.data["signal_type"]) == ("stale_command", "control.scale")

    _run(test)


def test_a_paused_autoscaler_is_not_obeyed_and_people_are(tmp_path: Path) -> None:
    """While it is paused its commands become dead letters, after a restart too; those of others are obeyed."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            rig.command("control.pause", flow="scaling")
            rig.scale(2, decision_id="d1")
            assert not _Rig(tmp_path).scaler.autoscaling
            rig.scale(3)
            await rig.running(3)
            rig.command("control.resume", flow="scaling")
            rig.scale(2, decision_id="d2")
            await rig.running(2)
        assert [letter.data["reason"] for letter in rig.told("dead-letters")] == ["autoscaler_paused"]
        assert [one.type for one in rig.told() if "rescale" not in one.type] == ["scaling.paused", "scaling.resumed"]

    _run(test)


def test_a_flow_is_paused_and_goes_on(tmp_path: Path) -> None:
    """A paused flow has no workers; resumed, it has as many as before."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path, workers=2)) as rig:
            await rig.running(2)
            rig.command("control.pause", flow="agents", reason="maintenance")
            await rig.until(lambda: rig.group.state is GroupState.PAUSED and not rig.scaler.changing("agents"))
            assert rig.group.pids == []
            rig.command("control.resume", flow="agents")
            await rig.running(2)

    _run(test)


def test_a_worker_that_is_killed_while_others_are_got_ready_does_not_stop_the_change(tmp_path: Path) -> None:
    """A crash of the present generation in the middle of a change leads to the new number all the same."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            rig.scale(2)
            await rig.until(lambda: "warm" in rig.steps())
            os.kill(rig.group.pids[0], signal.SIGKILL)
            await rig.running(2)
            assert rig.scaler.changes[-1]["type"] == "scaling.rescale.completed"

    _run(test)


def test_a_worker_that_hangs_in_its_drain_is_killed(tmp_path: Path) -> None:
    """A worker that does not end in time, frozen ones included, does not keep the change from its end."""

    async def test() -> None:
        async with _alive(_Rig(tmp_path)) as rig:
            await rig.running(1)
            [before] = rig.group.pids
            os.kill(before, signal.SIGSTOP)
            rig.scale(2)
            await rig.running(2)
            assert before not in rig.group.pids
            assert rig.events("begin clean") == []
            with pytest.raises(ProcessLookupError):
                os.kill(before, 0)

    _run(test)


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("control.scale", {"target": "flow/agents", "desired": 101, "reason": "too many"}),
        ("control.scale", {"target": "agents", "desired": 2, "reason": "no target"}),
        ("control.scale", {"target": "flow/nobody", "desired": 2, "reason": "no flow"}),
        ("control.scale", {"desired": 2}),
        ("control.pause", {}),
        ("control.agent.stop", {"agent_id": "x"}),
    ],
)
def test_what_is_not_valid_or_not_for_the_supervisor_is_left_alone(
    tmp_path: Path, type: str, data: dict[str, Any]
) -> None:
    """Such a command changes nothing here; the agents flow is who sets it aside."""

    async def test() -> None:
        rig = _Rig(tmp_path)
        before = rig.targets.now.flows["agents"].workers
        rig.command(type, **data)
        assert rig.targets.now.flows["agents"].workers == before
        assert rig.targets.now.read == {0: 1}
        await asyncio.to_thread(rig.outbox.close, 5)
        assert rig.told("dead-letters") == []

    _run(test)
