"""The complete binary tree over leaf numbers: float sums that no cut into chunks can change.

A run of leaves is kept as the largest nodes that it fills, in order. Only the two children of one node are ever added, so
the order of additions follows from the number of leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Node(NamedTuple):
    """The sums, float64 of any shape, of `count` leaves from number `first` on."""

    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    sums: NDArray[np.float64]


def leaves(first: int, sums: Iterable[NDArray[np.float64]]) -> tuple[Node, ...]:
    """Neighbouring leaves from number `first` on, each with its sums."""
    return tuple(Node(first + place, 1, row) for place, row in enumerate(sums))


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
