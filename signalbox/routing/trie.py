"""Patterns compiled to a trie, so that the cost of a look-up follows the type and not the number of patterns.

All branches that may still match are followed side by side, one segment of the type at a time. Built once and never
changed; `signalbox.routing.router` builds a new one when its routes change.
"""

from collections.abc import Iterable, Sequence

from signalbox.routing.pattern import ANY, ONE, Pattern

Frontier = set["Node"]
"""The nodes that the segments read so far lead to."""


class Node:
    """A place in the trie: the segments on the way to it are the beginning of some pattern."""

    __slots__ = ("any", "literals", "one", "ranks", "repeats")

    def __init__(self, *, repeats: bool = False) -> None:
        self.literals: dict[str, Node] = {}
        self.one: Node | None = None
        self.any: Node | None = None
        self.repeats = repeats
        """Whether it was reached by `**`, and so stays in the frontier whatever segment comes."""
        self.ranks: list[int] = []
        """The patterns that end here, by their positions in what the trie was built from."""


class Trie:
    """The patterns, numbered by their position in `patterns`."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._root = Node()
        for rank, pattern in enumerate(patterns):
            node = self._root
            for segment in pattern.segments:
                node = _child(node, segment)
            node.ranks.append(rank)

    def match(self, segments: Sequence[str]) -> list[int]:
        """The numbers of the patterns that match a type's segments, ascending, each once."""
        frontier = self.start()
        for segment in segments:
            frontier = advance(frontier, segment)
        return sorted(rank for node in frontier for rank in node.ranks)

    def start(self) -> Frontier:
        """The frontier before the first segment."""
        frontier: Frontier = set()
        _enter(frontier, self._root)
        return frontier


def advance(frontier: Frontier, segment: str) -> Frontier:
    """The frontier after one more segment."""
    following: Frontier = set()
    for node in frontier:
        if node.repeats:
            following.add(node)
        if (literal := node.literals.get(segment)) is not None:
            _enter(following, literal)
        if node.one is not None:
            _enter(following, node.one)
    return following


def _enter(frontier: Frontier, node: Node) -> None:
    frontier.add(node)
    if node.any is not None:  # `**` may stand for no segment at all
        frontier.add(node.any)


def _child(node: Node, segment: str) -> Node:
    if segment == ANY:
        node.any = node.any or Node(repeats=True)
        return node.any
    if segment == ONE:
        node.one = node.one or Node()
        return node.one
    return node.literals.setdefault(segment, Node())
