"""When saved state is checked, copied and sealed by a supervisor."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from signalbox.clock import VirtualClock
from signalbox.errors import StateDamaged
from signalbox.ports import KeptCopy, Prepared
from signalbox.supervision.saved_state import COPY_AFTER_START_S, COPY_EVERY_S, SavedState
from tests.support.loops import in_loop


class _Keeper:
    """Takes down what it is asked for; copies once something is `saved`."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.saved = True
        self.failing: Exception | None = None

    def prepare(self) -> Prepared:
        self.calls.append("prepare")
        return Prepared()

    def seal(self) -> None:
        self.calls.append("seal")
        if self.failing:
            raise self.failing

    def keep_copy(self, generation: int) -> KeptCopy | None:
        self.calls.append(generation)
        if self.failing:
            raise self.failing
        return KeptCopy(name=f"{generation}-1") if self.saved else None


class _Scene:
    def __init__(self) -> None:
        self.keeper, self.clock = _Keeper(), VirtualClock()
        self.group = SimpleNamespace(generation=1, pids=[1])
        self.state = SavedState("agents", self.keeper, self.clock)  # type: ignore[arg-type]  # what it uses is there

    async def look(self, *, after_s: float = 0) -> list[object]:
        """Let time pass and look twice; returns what was done."""
        self.clock.advance(timedelta(seconds=after_s))
        await self.state.look(self.group)
        await self.state.look(self.group)
        done, self.keeper.calls = self.keeper.calls, []
        return done


@pytest.fixture
def scene() -> _Scene:
    return _Scene()


@in_loop
async def test_a_running_flow_is_copied_once_a_minute(scene: _Scene) -> None:
    """The first copy is made at once, the next after a minute; a new generation is copied sooner."""
    assert await scene.look() == [1]
    assert await scene.look(after_s=COPY_EVERY_S - 1) == []
    assert await scene.look(after_s=1) == [1]
    scene.group.generation = 2
    assert await scene.look() == []
    assert await scene.look(after_s=COPY_AFTER_START_S) == [2]


@in_loop
async def test_what_does_not_run_or_has_saved_nothing_is_not_copied(scene: _Scene) -> None:
    """Without processes nothing is done; a flow that has saved nothing yet is looked at until it has."""
    scene.group.pids = []
    assert await scene.look() == []
    scene.group.pids, scene.keeper.saved = [1], False
    assert await scene.look() == [1, 1]
    scene.keeper.saved = True
    assert await scene.look() == [1]


@pytest.mark.parametrize("failure", [StateDamaged("bad"), OSError("no room")])
@in_loop
async def test_a_copy_that_fails_ends_nothing(scene: _Scene, failure: Exception) -> None:
    """What cannot be copied is told and tried again a minute later; an end without a seal is an end."""
    scene.keeper.failing = failure
    assert await scene.look() == [1]
    assert await scene.look(after_s=COPY_EVERY_S) == [1]
    if isinstance(failure, OSError):
        await scene.state.seal()


@in_loop
async def test_a_start_checks_and_an_end_seals(scene: _Scene) -> None:
    """Both are the keeper's work, and its refusal is the start's."""
    await scene.state.check()
    await scene.state.seal()
    assert scene.keeper.calls == ["prepare", "seal"]
