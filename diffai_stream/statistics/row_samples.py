"""Some rows of both sides of a matrix, chosen by its shape alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.base import Statistic, Tile
from diffai_stream.statistics.layout import LEAF_NUMEL, View
from diffai_stream.statistics.row_choice import chosen_of

ROWS = 1024
Block = NDArray[np.float32]


class Samples(NamedTuple):
    """The chosen rows seen so far, in order: float32[k, columns] of old and of new."""

    old: tuple[Block, ...]
    new: tuple[Block, ...]


@dataclass(frozen=True)
class RowSamples(Statistic[Samples]):
    """1,024 seeded rows of old and of new, as float32."""

    view: View = View.PAIR

    @property
    def positional(self) -> bool:
        """Yes: rows are chosen by number."""
        return True

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Matrices only, with rows that lie in one leaf."""
        if len(shape) != 2:
            return f"has {len(shape)} axes, a matrix has 2"
        return f"has rows of {shape[1]:,} elements, more than {LEAF_NUMEL:,}" if shape[1] > LEAF_NUMEL else None

    def empty(self) -> Samples:
        """No row."""
        return Samples((), ())

    def update(self, state: Samples, tile: Tile) -> Samples:
        """Keep the chosen rows of a tile."""
        rows = chosen_of(tile, ROWS)
        if rows is None:
            return state
        with np.errstate(invalid="ignore", over="ignore"):
            old, new = (side.astype(np.float32) for side in rows)
        return Samples((*state.old, old), (*state.new, new))

    def merge(self, left: Samples, right: Samples) -> Samples:
        """The rows of both parts, in order."""
        return Samples(left.old + right.old, left.new + right.new)

    def finalize(self, state: Samples) -> dict[str, Any]:
        """`old` and `new`: float32[≤ 1024, columns]."""
        empty: Block = np.empty((0, 0), np.float32)
        old, new = (np.concatenate(side) if side else empty for side in state)
        return {"old": old, "new": new}
