"""Sets of nodes as integers: bit n stands for the node at position n.

Ten thousand nodes are 1.2 kB, and one operation on two such sets takes a tenth of a microsecond: so a candidate is
found by intersecting a few sets, not by looking at nodes. Positions are in the order in which equal nodes are taken,
so the lowest bit is the first node.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


def lowest(nodes: int) -> int:
    """Return the first position of a set that is not empty."""
    return (nodes & -nodes).bit_length() - 1


def widened(nodes: int, position: int) -> int:
    """Return the set after a node that is not in it has joined at the position, and later ones have moved up."""
    before = nodes & ((1 << position) - 1)
    return before | (nodes ^ before) << 1


def narrowed(nodes: int, position: int) -> int:
    """Return the set after the node at the position has gone, and later ones have moved down."""
    before = nodes & ((1 << position) - 1)
    return before | nodes >> (position + 1) << position


def positions(nodes: int) -> Iterator[int]:
    """Return the positions of a set, ascending."""
    while nodes:
        position = lowest(nodes)
        yield position
        nodes ^= 1 << position


def sample(groups: Iterable[int], limit: int) -> int:
    """Return up to so many nodes of groups that share none: equally many of each, as far as they go, the first ones."""
    sampled = 0
    rest = sorted(groups, key=int.bit_count)
    for number, nodes in enumerate(rest):
        share = (limit - sampled.bit_count()) // (len(rest) - number)
        for position in islice(positions(nodes), share):
            sampled |= 1 << position
    return sampled


class NodeSets(Generic[K]):
    """Sets of nodes by key; empty ones are not kept."""

    def __init__(self) -> None:
        self.by_key: dict[K, int] = {}

    def get(self, key: K) -> int:
        """Return one set."""
        return self.by_key.get(key, 0)

    def add(self, key: K, position: int) -> None:
        """Put a node in."""
        self.by_key[key] = self.by_key.get(key, 0) | 1 << position

    def discard(self, key: K, position: int) -> None:
        """Take out a node of the set."""
        left = self.by_key[key] ^ 1 << position
        if left:
            self.by_key[key] = left
        else:
            del self.by_key[key]

    def widen(self, position: int) -> None:
        """Make room for a node at the position."""
        for key, nodes in self.by_key.items():
            self.by_key[key] = widened(nodes, position)

    def narrow(self, position: int) -> None:
        """Close the gap of a node that was taken out of every set."""
        for key, nodes in self.by_key.items():
            self.by_key[key] = narrowed(nodes, position)
