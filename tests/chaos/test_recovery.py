"""Files of saved state under fire: whichever is flipped, cut or deleted, nothing is lost, doubled or reordered."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from connectors.recovery.store import RecoveryStore
from schemas.signal import Signal, new_signal
from signalbox.errors import SignalboxError
from signalbox.supervision import inspection
from tests.support.chaos import MortalBroker, MortalNode, NodeEnded
from tests.support.chaos_run import TaskRun, expected_state
from tests.support.eventually import eventually
from tests.support.recovery import damage, delete
from tests.support.worker import PATIENCE_S, System, Worker

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

_SUBJECTS = 200
_PER_ROUND = 3_000
_DAMAGED = 8
"""The exit code of a worker that has met damaged state."""


def _times(rounds: int) -> int:
    """How many files to damage: two in the short form, which runs with all other tests on a small machine."""
    return rounds if rounds >= 10 else 2


class _Life:
    """A worker that is fed, ended, robbed of its files and started again. This process is its supervisor."""

    def __init__(self, system: System, rng: random.Random) -> None:
        self.system = system
        self.sent: list[Signal[Any]] = []
        self.struck: Counter[str] = Counter()
        self._rng = rng
        self._store = RecoveryStore(system.settings.node.data_dir / "recovery" / "agents")
        self._generation = 0

    def start(self) -> Worker:
        """Start a worker; one that meets damage ends and is started again, as a supervisor would."""
        for _ in range(3):
            self._generation += 1
            worker = self.system.start()
            eventually(lambda worker=worker: not worker.alive() or _answers(worker), timeout_s=PATIENCE_S)
            if worker.alive():
                return worker
            assert worker.await_exit() == _DAMAGED, worker.tail()
        msg = f"a damaged directory was not mended:\n{worker.tail()}"
        raise AssertionError(msg)

    def live(self, worker: Worker) -> None:
        """Some work, a copy in the middle of it, some more work, and an end of any kind."""
        self._work(self._rng.random())
        copy = self._store.keep_copy(self._generation)
        assert copy is not None
        self._work(self._rng.random())
        if self._rng.random() < 0.3:
            assert worker.drain() == 0
        else:
            worker.kill()
        if self._rng.random() < 0.5:  # else the supervisor was killed along with it
            self._store.seal()

    def suffer(self) -> None:
        """Have one file of all those in the recovery directory damaged."""
        self.struck[damage(self._store.directory, self._rng)] += 1

    def check(self) -> None:
        """Every agent has numbered its signals in their order, each once, and has told each number once."""
        expected: dict[str | None, list[tuple[int, int, int]]] = defaultdict(list)
        for signal in self.sent:
            number, _, total = expected[signal.subject][-1] if expected[signal.subject] else (0, 0, 0)
            expected[signal.subject].append((number + 1, signal.data, total + signal.data))
        told: dict[str | None, list[tuple[int, int, int]]] = defaultdict(list)
        for signal in self.system.signals("alerts"):
            told[signal.subject].append((signal.data["number"], signal.data["value"], signal.data["total"]))
        assert sum(map(len, told.values())) >= len(self.sent)
        assert told == expected

    def _work(self, share: float) -> None:
        first = len(self.sent)
        new = [
            new_signal("tally.add", n, source="test", subject=f"s{n % _SUBJECTS}", id=f"add-{n}")
            for n in range(first, first + _PER_ROUND // 2)
        ]
        self.system.send(new)
        self.sent += new
        wanted = first + share * len(new)
        eventually(lambda: self.system.count("alerts") >= wanted, timeout_s=PATIENCE_S, every_s=0.01)


def _answers(worker: Worker) -> bool:
    """Whether it has read what was saved, and saved it again. A worker that has ended meanwhile does not answer."""
    try:
        status = inspection.ask(worker._socket, "status")
    except SignalboxError:
        return False
    return bool(status["epochs"])


@pytest.fixture
def system(broker: MortalBroker, topic_prefix: str, tmp_path: Path) -> Iterator[System]:
    """Topics, and an app whose agents number what they get."""
    broker.start()
    system = System(
        broker.bootstrap, topic_prefix, tmp_path, node={"app": "tests.support.tally:app"}, flows={"epoch_ms": 50}
    )
    yield system
    system.close()


def test_any_one_file_can_be_damaged(
    system: System, rng: random.Random, rounds: int, summarize: Callable[[str], None]
) -> None:
    """Through many ends of a worker, each with one damaged file, agents and answers are those of an undisturbed run."""
    life = _Life(system, rng)
    worker = life.start()
    for _ in range(_times(rounds)):
        life.live(worker)
        life.suffer()
        worker = life.start()
        if rng.random() < 0.3:  # a crash while the lost work is being repeated
            worker.kill()
            worker = life.start()
    eventually(lambda: life.check() is None, timeout_s=PATIENCE_S, every_s=0.2)
    worker.await_caught_up()
    last = {signal.subject: signal.data for signal in system.signals("alerts")}
    for subject in rng.sample(sorted(filter(None, last)), 20):
        state = worker.ask("agent", id=f"tally:{subject}")["state"]
        assert (state["count"], state["total"]) == (last[subject]["number"], last[subject]["total"])
    assert worker.drain() == 0
    life.check()
    went_back = sum(line["event"] == "went back to a copy" for line in worker.logged())
    summarize(_report("worker", life.struck, went_back, f"{len(life.sent)} signals"))


def test_a_node_mends_what_is_damaged_between_its_lives(
    make_node: Callable[..., MortalNode],
    broker: MortalBroker,
    rng: random.Random,
    rounds: int,
    closing: ExitStack,
    summarize: Callable[[str], None],
) -> None:
    """Copies, checks and the way back are the node's own work: every task is answered once, and counted once."""
    node = make_node(workers=2, settings={"telemetry.actions": "false"})
    run = TaskRun(node, broker, rng, closing, rate=300)
    struck: Counter[str] = Counter()
    run.load.start()
    for _ in range(_times(rounds)):
        run.answers_flow()
        run.load.run_for(rng.uniform(1, 3))
        if rng.random() < 0.5:
            node.drain()
        else:
            node.kill()
            eventually(lambda: not node.orphans(), timeout_s=PATIENCE_S)
        struck[damage(node.data_dir / "recovery" / "agents", rng)] += 1
        node.up()
    submitted = run.finish()
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)
    went_back = node.log.read_text().count("went back to a copy")
    summarize(_report("node", struck, went_back, f"{submitted} tasks"))


def test_a_node_without_anything_sound_says_how_to_go_on(
    make_node: Callable[..., MortalNode], broker: MortalBroker, rng: random.Random, closing: ExitStack
) -> None:
    """It ends with 8 and changes nothing; what it advises leads to all state made again, and nothing answered twice."""
    node = make_node(settings={"telemetry.actions": "false"})
    run = TaskRun(node, broker, rng, closing, rate=200)
    run.load.start()
    run.answers_flow()
    recovery = node.data_dir / "recovery" / "agents"
    eventually(lambda: list(recovery.glob("copies/*/manifest.json")), timeout_s=PATIENCE_S)
    node.drain()
    for path in (recovery / "engine" / "part-0.sqlite3", *recovery.glob("copies/*/manifest.json")):
        delete(path, rng)
    node.up()
    with pytest.raises(NodeEnded, match="with 8"):
        node.ready()
    assert f"mv {recovery} {recovery}.lost" in node.tail()
    lost = recovery.with_name("agents.lost")
    lost.mkdir()
    for name in ("engine", "segments", "copies"):
        if (recovery / name).exists():
            (recovery / name).rename(lost / name)
    node.up()
    submitted = run.finish()
    assert run.state() == dict(run.ledger.per_agent) == expected_state(run.source, submitted)
    run.end(submitted)


def _report(name: str, struck: "Counter[str]", went_back: int, work: str) -> str:
    kinds = " ".join(f"{kind}={number}" for kind, number in sorted(struck.items()))
    return f"recovery, {name}: {struck.total()} damaged files ({kinds}), went back {went_back} times, {work}"
