"""The norm of every row of a side, in float32: what a profile keeps of rows, to tell dead ones and those that moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffai_stream.statistics.base import OneSided, Tile
from diffai_stream.statistics.layout import View
from diffai_stream.statistics.row_sums import RowPieces, RowSums, row_norms

MIN_COLUMNS = 4096  # four bytes are a twentieth of a percent of a row of bfloat16 this long


@dataclass(frozen=True)
class RowNorms(OneSided[RowPieces], RowSums):
    """Norms of rows of at least 4,096 elements, over those that are finite on both sides."""

    view: View = View.OLD

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Never: a tensor without long rows has no norms, which is no reason to tell."""
        return None

    def update(self, state: RowPieces, tile: Tile) -> RowPieces:
        """Append the pieces of a tile whose rows are long."""
        if RowSums.skip_reason(self, tile.shape) or tile.shape[-1] < MIN_COLUMNS:
            return state
        return super().update(state, tile)

    def finalize(self, state: RowPieces) -> dict[str, Any]:
        """`row_norms`: float32[R], in C order over the other axes, NaN without a finite element; R = 0 for short rows."""
        with np.errstate(over="ignore"):  # norms beyond float32
            return {"row_norms": row_norms(super().finalize(state)["rows"], self.view).astype(np.float32)}
