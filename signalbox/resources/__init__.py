"""Resources: what the processes of a node share out among their actions, such as memory and places for heavy work."""

from signalbox.resources.manager import ResourceManager, ResourceReading, level_of
from signalbox.resources.memory import MemoryWatch
from signalbox.resources.pool import PoolUsage, ResourceExhausted, Token
from signalbox.resources.shares import share

__all__ = [
    "MemoryWatch",
    "PoolUsage",
    "ResourceExhausted",
    "ResourceManager",
    "ResourceReading",
    "Token",
    "level_of",
    "share",
]
