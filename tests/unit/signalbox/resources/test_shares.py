"""A total of the node is split among its workers without loss."""

from hypothesis import given
from hypothesis import strategies as st

from signalbox.resources import share


@given(st.integers(0, 10**12), st.integers(1, 200))
def test_the_shares_are_the_total(total, workers):
    """The parts of all workers sum to the total, differ by at most one, and the larger ones come first."""
    parts = [share(total, workers=workers, index=index) for index in range(workers)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, reverse=True)
