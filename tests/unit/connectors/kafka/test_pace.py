from connectors.kafka.pace import Pace


class Worker:
    """A worker with four partitions that always have records, and a clock."""

    def __init__(self) -> None:
        self.pace = Pace(3000)
        self.now = 1.0

    def go(self, cost_s: float, *, rounds: int) -> float:
        """Take so many rounds of records that cost so much each; returns the seconds that the last one took."""
        took_s = 0.0
        for _ in range(rounds):
            count = self.pace.records
            for part in range(4):
                self.now += 0.00001
                self.pace.asked(part, self.now)
                self.pace.handed(count // 4 + (count % 4 if part == 0 else 0), self.now)
            took_s = count * cost_s
            self.now += took_s
        return took_s


def test_the_first_rounds_are_short_however_slow_records_are() -> None:
    """Before anything is known of them, even records of half a millisecond are answered in a twentieth of a second."""
    assert Worker().go(0.0005, rounds=1) <= 0.05


def test_quick_records_go_in_the_largest_rounds() -> None:
    """Records that take microseconds are taken as many at once as is allowed."""
    worker = Worker()
    assert worker.go(0.000005, rounds=20) < 0.05
    assert worker.pace.records == 3000


def test_slow_records_go_in_short_rounds() -> None:
    """When each record takes two milliseconds, a round is down to a twentieth of a second after the first."""
    worker = Worker()
    worker.go(0.002, rounds=2)
    assert worker.go(0.002, rounds=1) <= 0.05


def test_a_round_has_some_records_however_slow_they_are() -> None:
    """A record that takes a second does not make rounds so small that other partitions starve."""
    worker = Worker()
    worker.go(1.0, rounds=5)
    assert worker.pace.records == 16


def test_rounds_grow_again_when_records_are_quick_again() -> None:
    """A slow stretch is forgotten within a few rounds."""
    worker = Worker()
    worker.go(0.002, rounds=5)
    worker.go(0.000005, rounds=20)
    assert worker.pace.records == 3000


def test_the_round_under_way_counts_as_busy() -> None:
    """A worker that is in the middle of a long round is busy, not idle."""
    pace = Pace(3000)
    pace.handed(100, 10.0)
    assert pace.busy_s(12.0) == 2.0
    pace.asked("signals-0", 13.0)
    assert pace.busy_s(20.0) == 3.0
