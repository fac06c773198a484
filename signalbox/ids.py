"""Identifiers that a replay makes again, and the hash that places agents.

Python's own `hash` is salted per process, so nothing durable may rest on it.
"""

import xxhash

#: Agents are placed in this many key groups for ever: it is part of the layout of saved state.
KEY_GROUPS = 128


def derived_id(cause_id: str, emitter: str, index: int) -> str:
    """The id of the `index`-th signal that `emitter` derives from the signal `cause_id`: 32 hex digits."""
    # A zero separates, since no attribute of a signal may hold one: other parts cannot run together to the same text.
    return xxhash.xxh3_128_hexdigest(f"{cause_id}\0{emitter}\0{index}".encode())


def key_group(agent_id: str) -> int:
    """The key group of an agent, 0 to 127."""
    return xxhash.xxh3_64_intdigest(agent_id.encode()) % KEY_GROUPS


def stable_hash(text: str) -> int:
    """A 64-bit hash that is the same in every process and on every machine."""
    return xxhash.xxh3_64_intdigest(text.encode())
