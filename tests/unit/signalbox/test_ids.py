"""Identifiers: the same everywhere and for ever, since saved state and replays rest on them."""

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from signalbox.ids import KEY_GROUPS, derived_id, key_group, stable_hash

parts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12) | st.text("a|/:1", max_size=6)


def test_the_values_never_change() -> None:
    """These values are part of what is saved and written: with others, running systems would lose their agents."""
    assert key_group("task_agent_1") == 27
    assert stable_hash("order-1") == 0x5FC46503368E2876
    assert derived_id("cause", "emitter", 1) == "8bc81ac3fad9d086a948ee8d6d11eb5a"


def test_they_are_the_same_in_every_process() -> None:
    """Unlike Python's own `hash`, nothing here depends on the process."""
    code = "from signalbox.ids import *; print(key_group('a'), stable_hash('b'), derived_id('c', 'd', 1))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{key_group('a')} {stable_hash('b')} {derived_id('c', 'd', 1)}\n"}


@given(st.tuples(parts, parts, st.integers(0, 99)), st.tuples(parts, parts, st.integers(0, 99)))
def test_different_origins_have_different_ids(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    """Ids are equal exactly if cause, emitter and index are, also when the parts could be read into one another."""
    assert (derived_id(*one) == derived_id(*other)) == (one == other)


def test_parts_do_not_run_together() -> None:
    """A separator inside a part is not taken for the one between parts."""
    assert derived_id("a|b", "c", 1) != derived_id("a", "b|c", 1)
    assert derived_id("a", "b|1", 1) != derived_id("a", "b", 11)


@given(st.text())
def test_key_groups_are_in_range(agent_id: str) -> None:
    """Every agent id has a key group between 0 and `KEY_GROUPS` - 1."""
    if agent_id.isprintable():
        assert 0 <= key_group(agent_id) < KEY_GROUPS


def test_agents_spread_over_the_key_groups() -> None:
    """Many agents fill all key groups about equally, so that workers share the load."""
    tally = Counter(key_group(f"monitor_agent:host-{n}") for n in range(200 * KEY_GROUPS))
    assert len(tally) == KEY_GROUPS
    assert max(tally.values()) < 1.4 * 200
