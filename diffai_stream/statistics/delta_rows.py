"""A few rows of the change of a matrix, chosen by its shape alone: enough to tell whether the change is of low rank.

A change of rank r shows r singular values in any r + 1 rows or more, up to the rounding of the stored weights; a gap after
them tells where the rounding begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.base import Statistic, Tile
from diffai_stream.statistics.layout import LEAF_NUMEL, View
from diffai_stream.statistics.row_choice import chosen_of

ROWS = 64
GAP = 5.0
MAX_RANK = 48


class Rows(NamedTuple):
    """float32[k, columns] of the chosen rows seen so far, in order."""

    blocks: tuple[NDArray[np.float32], ...]


def rank_of(singular: NDArray[np.floating]) -> int | None:
    """The place of the first gap of GAP between neighbouring singular values, None when there is none up to MAX_RANK.

    Values below 1e-7 of the largest count as 0: the change was measured in float32, and values come from their squares.
    """
    if singular.size == 0 or singular[0] <= 0:
        return None
    floor = singular[0] * 1e-7
    for rank in range(1, min(MAX_RANK, singular.size - 1) + 1):
        if singular[rank - 1] > floor and singular[rank - 1] >= GAP * max(singular[rank], floor / GAP):
            return rank
    return None


@dataclass(frozen=True)
class DeltaRows(Statistic[Rows]):
    """Singular values of 64 seeded rows of new - old, and the rank that they show."""

    view: View = View.PAIR

    @property
    def positional(self) -> bool:
        """Yes: rows are chosen by number."""
        return True

    @property
    def kept(self) -> bool:
        """64 numbers a matrix."""
        return True

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Matrices only, with rows that lie in one leaf."""
        if len(shape) != 2:
            return f"has {len(shape)} axes, a matrix has 2"
        return f"has rows of {shape[1]:,} elements, more than {LEAF_NUMEL:,}" if shape[1] > LEAF_NUMEL else None

    def empty(self) -> Rows:
        """No row."""
        return Rows(())

    def update(self, state: Rows, tile: Tile) -> Rows:
        """Keep the chosen rows of a tile."""
        rows = chosen_of(tile, ROWS)
        if rows is None:
            return state
        with np.errstate(invalid="ignore", over="ignore"):  # float64 differences are rounded once more
            delta = (rows[1] - rows[0]).astype(np.float32, copy=False)
        return Rows((*state.blocks, delta))

    def merge(self, left: Rows, right: Rows) -> Rows:
        """The rows of both parts, in order."""
        return Rows(left.blocks + right.blocks)

    def finalize(self, state: Rows) -> dict[str, Any]:
        """`singular_values` float64[≤ 64], largest first, empty when a value is not finite; `rank` or None."""
        rows = np.concatenate(state.blocks) if state.blocks else np.empty((0, 0), np.float32)
        scale = float(max(rows.max(initial=0), -rows.min(initial=0)))
        if not 0 < scale < np.inf:  # NaN too
            return {"singular_values": np.empty(0), "rank": None}
        scaled = rows.astype(np.float64) / scale
        squares = np.linalg.eigvalsh(scaled @ scaled.T)[::-1]  # a hundred times faster than the singular values themselves
        singular = np.sqrt(np.maximum(squares, 0.0)) * scale
        return {"singular_values": singular, "rank": rank_of(singular)}
