"""Sums of each row of a pair: what per-row scales, cosines, drifts and dead rows follow from.

A row is everything along the last axis. Sums of a row are added up piece by piece, in order and only at the end, so that
chunks do not change their last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.native import Entry
from diffai_stream.statistics.base import Statistic, Tile, sides_of
from diffai_stream.statistics.layout import LEAF_NUMEL, View

_MODULE = "diffai_stream.statistics.kernels.row_sums"
sum_pieces32, sum_pieces64 = Entry(_MODULE, "sum_pieces32"), Entry(_MODULE, "sum_pieces64")

MAX_ROWS = 1 << 20
DEAD_RATIO = 1e-6
Matrix = NDArray[np.float64]


class RowField(IntEnum):
    """Columns of the row matrix, all over the elements that are finite on both sides."""

    N = 0
    OLD_SQUARES = 1
    NEW_SQUARES = 2
    DELTA_SQUARES = 3
    DOT = 4
    OLD_ABS_MAX = 5
    NEW_ABS_MAX = 6
    OLD_ZEROS = 7
    NEW_ZEROS = 8


class RowPieces(NamedTuple):
    """The sums of consecutive pieces of rows, tile by tile; where they begin follows from the tensor's shape."""

    blocks: tuple[Matrix, ...]
    shape: tuple[int, ...] | None


def piece_starts(shape: tuple[int, ...], start: int, stop: int) -> NDArray[np.int64]:
    """Flat indices where pieces begin in [start, stop): at every row, and in rows longer than a leaf at every leaf."""
    columns = shape[-1]
    starts = np.arange(-(-start // columns) * columns, stop, columns, dtype=np.int64)
    if columns <= LEAF_NUMEL:
        return starts
    leaves = np.arange(start, stop, LEAF_NUMEL, dtype=np.int64)
    return np.union1d(starts, leaves)


@dataclass(frozen=True)
class RowSums(Statistic[RowPieces]):
    """Squares of old, new and delta, dot product, largest magnitudes and zeros of every row, in float64."""

    view: View = View.PAIR

    @property
    def positional(self) -> bool:
        """Yes: a sum belongs to its row."""
        return True

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """No rows in a vector; above 2^20 rows the matrix would not be small."""
        if len(shape) < 2:
            return f"has {len(shape)} axes, rows need 2"
        rows = prod(shape[:-1])
        return f"has {rows:,} rows, more than {MAX_ROWS:,}" if rows > MAX_ROWS else None

    def empty(self) -> RowPieces:
        """No piece."""
        return RowPieces((), None)

    def update(self, state: RowPieces, tile: Tile) -> RowPieces:
        """Append the pieces of a tile."""
        if len(tile.shape) < 2 or tile.numel == 0:
            return self.merge(state, RowPieces((), tile.shape))
        stop = tile.first + tile.numel
        cuts = np.append(piece_starts(tile.shape, tile.first, stop), stop) - tile.first
        block = np.empty((cuts.size - 1, len(RowField)))
        old, new = sides_of(tile, View.OLD, View.NEW)
        sum_pieces = sum_pieces32 if old.values.dtype == np.float32 else sum_pieces64
        sum_pieces(*old, *new, cuts, np.empty(8), block)
        return self.merge(state, RowPieces((block,), tile.shape))

    def merge(self, left: RowPieces, right: RowPieces) -> RowPieces:
        """The pieces of both parts, in order."""
        return RowPieces(left.blocks + right.blocks, right.shape if left.shape is None else left.shape)

    def finalize(self, state: RowPieces) -> dict[str, Matrix]:
        """`rows`: float64[R, 9], see RowField; a tensor with fewer than two axes, or never seen, has none."""
        shape = state.shape
        if shape is None or len(shape) < 2:
            return {"rows": np.zeros((0, len(RowField)))}
        if not state.blocks:
            return {"rows": np.zeros((prod(shape[:-1]), len(RowField)))}
        pieces = np.concatenate(state.blocks)
        return {"rows": pieces if shape[-1] <= LEAF_NUMEL else _by_row(pieces, shape)}


def _by_row(pieces: Matrix, shape: tuple[int, ...]) -> Matrix:
    starts = piece_starts(shape, 0, prod(shape))
    first = np.flatnonzero(starts % shape[-1] == 0)
    with np.errstate(over="ignore", invalid="ignore"):  # squares of float64 beyond 1e154
        rows = np.add.reduceat(pieces, first, axis=0)
    for field in (RowField.OLD_ABS_MAX, RowField.NEW_ABS_MAX):
        rows[:, field] = np.maximum.reduceat(pieces[:, field], first)
    return rows


class WorstRow(NamedTuple):
    """The row that moved most, its number counted in C order over all axes but the last."""

    row: int
    relative_l2: float


def worst_row(rows: Matrix) -> WorstRow | None:
    """The first row with the largest ‖delta‖/‖old‖; None when every old row is zero, where that is not defined."""
    old, delta = rows[:, RowField.OLD_SQUARES], rows[:, RowField.DELTA_SQUARES]
    if not np.any(old > 0):
        return None
    ratio = np.divide(delta, old, out=np.full(len(rows), -1.0), where=old > 0)
    index = int(np.argmax(ratio))
    return WorstRow(index, float(np.sqrt(ratio[index])))


class FittedScales(NamedTuple):
    """Per row the scale s that brings s·new nearest to old, and the squares that remain, ‖old − s·new‖²."""

    scales: Matrix
    residuals: Matrix


def fitted_scale_residual(rows: Matrix) -> FittedScales:
    """Least squares per row: s = Σab/Σb², residual Σa² − (Σab)²/Σb² with a = old, b = new; s = 0 where b = 0.

    The difference cancels: a residual is good to about 1e-13 of Σa², which is an SQNR of 130 dB.
    """
    a2, b2, ab = (rows[:, field] for field in (RowField.OLD_SQUARES, RowField.NEW_SQUARES, RowField.DOT))
    scales = np.divide(ab, b2, out=np.zeros(len(rows)), where=b2 > 0)
    return FittedScales(scales, np.maximum(a2 - scales * ab, 0.0))


def row_norms(rows: Matrix, side: View) -> Matrix:
    """The norm of each row of a side; NaN for one without a finite element."""
    field = {View.OLD: RowField.OLD_SQUARES, View.NEW: RowField.NEW_SQUARES}[side]
    norms: Matrix = np.where(rows[:, RowField.N] > 0, np.sqrt(rows[:, field]), np.nan)
    return norms


def dead_rows(norms: NDArray[Any]) -> NDArray[np.int64]:
    """Rows whose norm is below 1e-6 of the median norm; those that are NaN are not judged."""
    judged: NDArray[np.int64] = np.flatnonzero(~np.isnan(norms))
    if judged.size == 0:
        return judged
    dead: NDArray[np.int64] = judged[norms[judged] < DEAD_RATIO * np.median(norms[judged])]
    return dead
