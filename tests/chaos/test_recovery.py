"""Files of saved state under fire: whichever is flipped, cut or deleted, nothing is lost, doubled or reordered."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.recovery.store import RecoveryStore
from schemas.signal import Signal, new_signal
from tests.support.chaos import MortalBroker
from tests.support.eventually import eventually
from tests.support.recovery import MISFORTUNES
from tests.support.worker import PATIENCE_S, System, Worker

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

_SUBJECTS = 200
_PER_ROUND = 3_000
#: Where damage matters most, it is made most often.
_WEIGHTS = {"engine": 6, "segments": 6, "copies": 2}
_DAMAGED = 8
"""The exit code of a worker that has met damaged state."""


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
        """Flip, cut or delete one file of all those in the recovery directory."""
        kinds: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self._store.directory.rglob("*")):
            kind = path.relative_to(self._store.directory).parts[0]
            if path.is_file() and path.stat().st_size and not kind.startswith("damaged-"):
                kinds[kind].append(path)
        kind = self._rng.choices(list(kinds), [_WEIGHTS.get(kind, 1) for kind in kinds])[0]
        path = self._rng.choice(kinds[kind])
        misfortune = self._rng.choice(MISFORTUNES)
        print(f"{misfortune.__name__} {path.relative_to(self._store.directory)}", flush=True)
        misfortune(path, self._rng)
        self.struck[kind] += 1

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
    try:
        return bool(worker.ask("status"))
    except AssertionError:
        return False


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
    for _ in range(rounds):
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
    used = Counter(line["used"].partition("-")[0] for line in worker.logged() if line["event"] == "went back to a copy")
    struck = " ".join(f"{kind}={number}" for kind, number in sorted(life.struck.items()))
    summarize(f"recovery: {rounds} damaged files ({struck}), went back {used.total()} times, {len(life.sent)} signals")
