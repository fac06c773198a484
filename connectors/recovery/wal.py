"""Whether SQLite's write-ahead log is as the engine left it.

SQLite takes the first frame whose checksum is wrong for the end of the log and silently goes on from what is before,
which after a flipped byte or a truncation is an older state, or a mixture with what was already moved to the main file.
So the log is checked before SQLite sees it, against its own checksums and against the number of frames in the shared
index beside it. The formats are those of https://www.sqlite.org/fileformat2.html#the_write_ahead_log and
https://www.sqlite.org/walformat.html. Only the log of a store that nobody writes to can be checked.
"""

import struct
import sys
from array import array
from pathlib import Path

_HEADER_BYTES, _FRAME_HEADER_BYTES, _INDEX_HEADER_BYTES = 32, 24, 48
_MAGIC = 0x377F0682
"""With 1 added, checksums take words as big-endian."""


def log_damage(store: Path) -> str | None:
    """What is wrong with the log of the SQLite file `store`, or None. No log is a sound log of an ordered end.

    It reads the whole log, which SQLite keeps near 4 MB: 0.13 s for 1,000 frames.
    """
    log, index = _read(store, "-wal"), _read(store, "-shm")
    salts, written = _index_says(index)
    if not log:
        return f"it is missing, and had {written} frames" if written else None
    header = log[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES:
        return "its header is cut off"
    magic, _, page_bytes, _, _, _, first, second = struct.unpack(">8I", header)
    if magic & ~1 != _MAGIC or _checksum(header[:24], (0, 0), magic) != (first, second):
        return "its header is not as it was written"
    sound, damage = _sound_frames(log, magic, page_bytes, (first, second))
    if damage is None and salts == header[16:24] and written > sound:
        return f"it has {sound} of {written} frames"
    return damage


def _sound_frames(log: bytes, magic: int, page_bytes: int, checksum: tuple[int, int]) -> tuple[int, str | None]:
    """How many frames are as written, and what is wrong with the next one of this log, if there is one.

    Frames with other salts are left from before the log began anew.
    """
    salts, frame_bytes = log[16:24], _FRAME_HEADER_BYTES + page_bytes
    places = range(_HEADER_BYTES, len(log) - frame_bytes + 1, frame_bytes)
    ours = [log[at + 8 : at + 16] == salts for at in places]
    for number, at in enumerate(places):
        if not ours[number]:
            return number, f"frame {number + 1} is not as it was written" if any(ours[number:]) else None
        checksum = _checksum(log[at : at + 8], checksum, magic)
        checksum = _checksum(log[at + _FRAME_HEADER_BYTES : at + frame_bytes], checksum, magic)
        if struct.pack(">2I", *checksum) != log[at + 16 : at + _FRAME_HEADER_BYTES]:
            return number, f"frame {number + 1} is not as it was written"
    return len(ours), None


def _index_says(index: bytes) -> tuple[bytes, int]:
    """The salts of the log and its number of frames, as the shared index has them; 0 frames if it does not know."""
    header, again = index[:_INDEX_HEADER_BYTES], index[_INDEX_HEADER_BYTES : 2 * _INDEX_HEADER_BYTES]
    if len(again) < _INDEX_HEADER_BYTES or header != again or not header[12]:
        return b"", 0
    return header[32:40], int.from_bytes(header[16:20], sys.byteorder)


def _checksum(content: bytes, start: tuple[int, int], magic: int) -> tuple[int, int]:
    words = array("I", content)
    if (sys.byteorder == "big") != bool(magic & 1):
        words.byteswap()
    first, second = start
    pairs = iter(words)
    for one, other in zip(pairs, pairs, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def _read(store: Path, suffix: str) -> bytes:
    try:
        return store.with_name(store.name + suffix).read_bytes()
    except FileNotFoundError:
        return b""
