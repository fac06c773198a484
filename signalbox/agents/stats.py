"""Counters that the hot path bumps as plain numbers; whoever runs the groups turns them into metrics now and then."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counts since the start of the process, by name of the agent class unless said otherwise."""

    received: Counter[str] = field(default_factory=Counter)
    """By topic."""
    unmatched: Counter[str] = field(default_factory=Counter)
    """Signals that nobody handles, by type; those that agents derived together as `derived`."""
    processed: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By agent and kind of error: `handler`, `payload`, `state`."""
    condition_errors: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By reason."""
    snapshot_bytes: int = 0
    snapshot_s: float = 0.0
