"""Two changes of one base, element by element: old - base and new - base, as merging of models sees them.

The base is read beside the pair, tile by tile, through a reader that the statistic carries. Sums are taken leaf by leaf and
added along the complete binary tree over leaf numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.base import Statistic, Tile
from diffai_stream.statistics.layout import View, leaf_numel
from diffai_stream.statistics.tree import Node, joined, leaves, total

KEPT = 5  # one of so many elements survives the trimming of TIES: its largest fifth
Sums = NDArray[np.float64]


class TaskField(IntEnum):
    """Sums over the elements that are finite in all three, a = old - base, b = new - base."""

    N = 0
    BASE_SQUARES = 1
    OLD_SQUARES = 2  # Σa²
    NEW_SQUARES = 3  # Σb²
    DOT = 4  # Σab
    OLD_SIZES = 5  # Σ|a|
    NEW_SIZES = 6  # Σ|b|
    PRODUCTS = 7  # Σ|ab|
    OLD_COUNT = 8  # a is not 0
    NEW_COUNT = 9
    BOTH_COUNT = 10  # neither is 0
    CONFLICTS = 11  # and their signs differ
    KEPT_COUNT = 12  # both are among the largest fifth of their leaf
    KEPT_CONFLICTS = 13


class Reader(Protocol):
    """The base of a pair."""

    def values(self, start: int, stop: int) -> NDArray[Any]:
        """Its elements [start, stop), in C order of the compared shape. Raises CheckpointError."""


@dataclass(frozen=True)
class TaskVectors(Statistic[tuple[Node, ...]]):
    """Sums and counts of both changes of a base; without one nothing is summed."""

    view: View = View.PAIR
    base: Reader | None = None

    @property
    def positional(self) -> bool:
        """Yes: the base is read at the place of the tile."""
        return True

    @property
    def kept(self) -> bool:
        """Fourteen numbers a tensor."""
        return True

    def empty(self) -> tuple[Node, ...]:
        """No leaf."""
        return ()

    def update(self, state: tuple[Node, ...], tile: Tile) -> tuple[Node, ...]:
        """Add the leaves of a tile."""
        size = tile.numel
        if self.base is None or not size:
            return state
        base = self.base.values(tile.first, tile.first + size)
        step = leaf_numel(tile.shape)
        cuts = [slice(start, start + step) for start in range(0, size, step)]
        rows = [_sums(tile.old[cut], tile.new[cut], base[cut]) for cut in cuts]
        return self.merge(state, leaves(tile.first // step, np.array(rows)))

    def merge(self, left: tuple[Node, ...], right: tuple[Node, ...]) -> tuple[Node, ...]:
        """The nodes of both parts."""
        return joined(left, right)

    def finalize(self, state: tuple[Node, ...]) -> dict[str, Any]:
        """`sums`: float64[14], see TaskField."""
        return {"sums": total(state, np.zeros(len(TaskField)))}


def _sums(old: NDArray[Any], new: NDArray[Any], base: NDArray[Any]) -> Sums:
    """The sums of one leaf."""
    with np.errstate(over="ignore", invalid="ignore"):
        start = base.astype(np.float64)
        a, b = old.astype(np.float64) - start, new.astype(np.float64) - start
        finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(start)
        if not finite.all():
            a, b, start = a[finite], b[finite], start[finite]
        sizes = np.abs(a), np.abs(b)
        products = a * b
        large = _large(sizes[0]) & _large(sizes[1])
        squares = (float(start @ start), float(a @ a), float(b @ b), float(products.sum()))
        totals = (float(sizes[0].sum()), float(sizes[1].sum()), float(np.abs(products).sum()))
    both, conflict = (sizes[0] > 0) & (sizes[1] > 0), products < 0
    counts = ((sizes[0] > 0), (sizes[1] > 0), both, conflict, large, large & conflict)
    return np.array([a.size, *squares, *totals, *(float(found.sum()) for found in counts)])


def _large(sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The largest fifth, zeros never."""
    if not sizes.size:
        return np.zeros(0, np.bool_)
    place = sizes.size - max(1, sizes.size // KEPT)
    return np.asarray((sizes >= np.partition(sizes, place)[place]) & (sizes > 0))
