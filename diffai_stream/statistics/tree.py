"""The complete binary tree over leaf numbers: float sums that no cut into chunks can change.

A run of leaves is kept as the largest nodes that it fills, in order. Only the two children of one node are ever added, so
the order of additions follows from the number of leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Node(NamedTuple):
    """The sums, float64 of any shape, of `count` leaves from number `first` on."""

    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    sums: NDArray[np.float64]


def nodes(first: int, count: int) -> Iterator[tuple[int, int]]:
    """(number of its first leaf, number of leaves) of the largest nodes that `count` leaves from `first` on fill, in order."""
    while count:
        largest = 1 << (count.bit_length() - 1)
        size = min(largest, first & -first) if first else largest
        yield first, size
        first, count = first + size, count - size


def leaves(first: int, sums: NDArray[np.float64]) -> tuple[Node, ...]:
    """The largest nodes of neighbouring leaves from number `first` on, each with its sums; many are added at a time."""
    nodes: list[Node] = []
    tail: list[Node] = []
    count = 1
    with np.errstate(over="ignore", invalid="ignore"):
        while len(sums):
            if first % (2 * count):
                nodes.append(Node(first, count, sums[0].copy()))
                first, sums = first + count, sums[1:]
            if len(sums) % 2:
                tail.append(Node(first + (len(sums) - 1) * count, count, sums[-1].copy()))
                sums = sums[:-1]
            sums, count = sums[::2] + sums[1::2], 2 * count
    return (*nodes, *reversed(tail))


def parent(left: Node, right: Node) -> Node | None:
    """The node whose children these are; None when they are no siblings."""
    if left.count != right.count or left.first + left.count != right.first or left.first % (2 * left.count):
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # float64 near its limit
        return Node(left.first, 2 * left.count, left.sums + right.sums)


def joined(left: Iterable[Node], right: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes of two neighbouring runs."""
    nodes = list(left)
    for node in right:
        nodes.append(node)
        while len(nodes) > 1 and (above := parent(*nodes[-2:])) is not None:
            nodes[-2:] = [above]
    return tuple(nodes)


def total(nodes: Iterable[Node], empty: NDArray[np.float64]) -> Any:
    """The sums of all leaves, added to `empty` from the first node to the last."""
    with np.errstate(over="ignore", invalid="ignore"):
        for node in nodes:
            empty = empty + node.sums
    return empty
