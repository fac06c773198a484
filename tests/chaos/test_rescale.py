"""Rescales under load, and under fire: workers come and go, and no task is lost, doubled or out of order."""

import itertools
import json
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors.kafka.publisher import KafkaPublisher
from schemas.signal import new_signal
from signalbox.config import KafkaSettings
from signalbox.durable import write_at_once
from tests.support.chaos import PATIENCE_S, MortalNode
from tests.support.chaos_run import TaskRun, expected_state
from tests.support.eventually import eventually
from tests.support.struck_node import ORDER_FILE, STEPS, VICTIMS

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

_QUIET = {"telemetry.actions": "false", "supervision.drain_timeout_s": "2"}
_PAUSE_S = 3.0
#: To ask the node more often would take from the workers what is measured.
_LOOK_S = 0.1
#: In the short form, which runs with all other tests on a small machine.
_FEW, _FEW_RATE = 3, 1_000


class _Control:
    """Sends commands as any user would."""

    def __init__(self, node: MortalNode, stack: ExitStack) -> None:
        self._node = node
        self._publisher = KafkaPublisher(KafkaSettings(bootstrap=node.bootstrap))
        stack.callback(self._publisher.close)

    def scale(self, workers: int) -> None:
        """Want so many workers."""
        data = {"target": "flow/agents", "desired": workers, "reason": "a test"}
        signal = new_signal("control.scale", data, source="test", subject="flow/agents")
        self._publisher.publish(f"{self._node.prefix}control", signal)
        self._publisher.flush(PATIENCE_S)

    def settled(self) -> dict[str, Any]:
        """Wait until the workers are as many as are wanted, and at work."""

        def flow() -> dict[str, Any] | None:
            now: dict[str, Any] = self._node.get("/api/v1/scaling")
            agents = now["flows"]["agents"]
            at_rest = agents["state"] == "running" and agents["workers"] == agents["target"] and not agents["changing"]
            return now if at_rest else None

        found: dict[str, Any] = eventually(flow, timeout_s=PATIENCE_S, every_s=_LOOK_S)
        return found

    def reached(self, workers: int) -> dict[str, Any]:
        """Wait until there are so many workers, at work."""

        def flow() -> dict[str, Any] | None:
            now = self.settled()
            return now if now["flows"]["agents"]["workers"] == workers else None

        found: dict[str, Any] = eventually(flow, timeout_s=PATIENCE_S, every_s=_LOOK_S)
        return found


def _targets(rng: random.Random, count: int) -> Iterator[int]:
    """So many numbers of workers from 1 to 4, each other than the one before."""
    now = 1
    for _ in range(count):
        now = rng.choice([workers for workers in range(1, 5) if workers != now])
        yield now


def _gaps_s(times_ms: "array[int]", changes: list[dict[str, Any]]) -> list[float]:
    """For each change, the longest pause between two answers while it was under way, in seconds."""
    gaps = []
    for began_ms, ended_ms in (
        (_ms(change["at"]) - 1000 * change["duration_s"], _ms(change["at"])) for change in changes
    ):
        moments = times_ms[bisect_left(times_ms, int(began_ms) - 200) : bisect_left(times_ms, int(ended_ms) + 200)]
        gaps.append(max((later - one for one, later in itertools.pairwise(moments)), default=0) / 1000)
    return gaps


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.3f} s in the median, {ordered[int(len(ordered) * 0.99)]:.3f} s at the 99th"


def _ms(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp() * 1000


def test_rescales_under_load_lose_double_and_reorder_nothing(
    make_node: Callable[..., MortalNode],
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """At 5,000 tasks per second, rescales among 1 to 4 workers keep every answer, each key's order and all state."""
    count, rate = (2 * rounds, 5_000) if rounds >= 10 else (_FEW, _FEW_RATE)
    node = make_node(settings=_QUIET)
    run = TaskRun(node, None, rng, closing, rate=rate)
    control = _Control(node, closing)
    node.ready()
    run.load.start()
    run.answers_flow()
    changes: list[dict[str, Any]] = []
    for workers in _targets(rng, count):
        control.scale(workers)
        changes.append(control.reached(workers)["changes"][-1])
        assert changes[-1]["type"] == "scaling.rescale.completed"
        run.take_down()
        run.load.run_for(rng.uniform(0.2, 1.0))
    submitted = run.finish()
    gaps = _gaps_s(array("q", sorted(run.ledger.times_ms)), changes)
    summarize(
        f"rescales: {len(gaps)} at {rate:,}/s, {submitted} tasks, 0 lost, 0 doubled; "
        f"gap in the answers {_spread(gaps)}, "
        f"pause of the workers {_spread([change['pause_s'] for change in changes])}"
    )
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)
    assert run.read("dead-letters") == []


def _strikes(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """Step, victim and signal; all of them in turn, in a random order."""
    every = [*itertools.product(STEPS, VICTIMS, ("SIGKILL", "SIGSTOP"))]
    rng.shuffle(every)
    return list(itertools.islice(itertools.cycle(every), count))


def test_a_strike_at_any_step_of_a_rescale_loses_and_doubles_nothing(
    make_node: Callable[..., MortalNode],
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """Supervisor, fork server and workers are killed or frozen at each step; the rescale ends, one way or the other."""
    count = 2 * rounds if rounds >= 10 else _FEW
    order = tmp_path / "strike"
    node = make_node(settings=_QUIET, module="tests.support.struck_node", environment={ORDER_FILE: str(order)})
    run = TaskRun(node, None, rng, closing, rate=1_000)
    control = _Control(node, closing)
    node.ready()
    run.load.start()
    run.answers_flow()
    ended = {"completed": 0, "failed": 0}
    for number, (step, who, how) in enumerate(_strikes(rng, count)):
        before = control.settled()["flows"]["agents"]["workers"]
        workers = {1: 2, 2: 4 if number % 2 else 1, 4: 1}[before]
        struck = order.with_suffix(".struck")
        struck.unlink(missing_ok=True)
        write_at_once(order, json.dumps({"step": step, "who": who, "how": how}).encode())
        control.scale(workers)
        print(f"{before} -> {workers} workers, {how} of {who} at {step}", flush=True)
        eventually(struck.exists, timeout_s=PATIENCE_S)
        victims = json.loads(struck.read_text())
        run.load.run_for(_PAUSE_S if how == "SIGSTOP" else 0)
        with suppress(psutil.Error):
            for victim in victims if how == "SIGSTOP" else ():
                psutil.Process(victim).resume()
        if who == "supervisor" and how == "SIGKILL":
            node.ended()
            node.up()
            node.ready()
        after = control.settled()["flows"]["agents"]["workers"]
        assert after in (before, workers)
        ended["completed" if after == workers else "failed"] += 1
        run.answers_flow()
        run.ledger.check()
    submitted = run.finish()
    summarize(f"strikes at steps of rescales: {count}, {ended}, {submitted} tasks, 0 lost, 0 doubled")
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)
    assert run.read("dead-letters") == []
