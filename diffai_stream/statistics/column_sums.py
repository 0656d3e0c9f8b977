"""Sums of each column of a pair: what tells a weight whose columns were rescaled from one that was damaged.

AWQ and SmoothQuant move a scale of every input channel into the layer before; against the original the weight then differs
by a factor a column, and only what the best factor leaves over is the loss. Sums are taken leaf by leaf and added along the
complete binary tree over leaf numbers, so that chunks do not change their last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.native import Entry
from diffai_stream.statistics.base import Statistic, Tile, sides_of
from diffai_stream.statistics.layout import LEAF_NUMEL, View, leaf_numel
from diffai_stream.statistics.tree import Node, joined, nodes, total

_MODULE = "diffai_stream.statistics.kernels.column_sums"
sum_columns32, sum_columns64 = Entry(_MODULE, "sum_columns32"), Entry(_MODULE, "sum_columns64")
Matrix = NDArray[np.float64]


class ColumnField(IntEnum):
    """Rows of the column matrix, all over the elements that are finite on both sides."""

    OLD_SQUARES = 0
    NEW_SQUARES = 1
    DOT = 2


class ColumnBlocks(NamedTuple):
    """The largest nodes of the tree that a run of leaves fills, in order."""

    blocks: tuple[Node, ...]
    columns: int


@dataclass(frozen=True)
class ColumnSums(Statistic[ColumnBlocks]):
    """Squares of old and new and their dot product in every column of a matrix, in float64."""

    view: View = View.PAIR

    @property
    def positional(self) -> bool:
        """Yes: a sum belongs to its column."""
        return True

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Matrices only, with rows that lie in one leaf: a sum for each of their columns stays small."""
        if len(shape) != 2:
            return f"has {len(shape)} axes, a matrix has 2"
        return f"has {shape[1]:,} columns, more than {LEAF_NUMEL:,}" if shape[1] > LEAF_NUMEL else None

    def result_nbytes(self, shape: tuple[int, ...], numel: int) -> int:
        """Of a node; that of a tensor of many rows is one of them."""
        return 8 * len(ColumnField) * shape[-1]

    def empty(self) -> ColumnBlocks:
        """No leaf."""
        return ColumnBlocks((), 0)

    def update(self, state: ColumnBlocks, tile: Tile) -> ColumnBlocks:
        """Add the leaves of a tile."""
        columns = tile.shape[-1] if len(tile.shape) == 2 else 0
        if not columns or tile.numel == 0:
            return self.merge(state, ColumnBlocks((), columns))
        leaf = leaf_numel(tile.shape)
        sides = sides_of(tile, View.OLD, View.NEW)
        sum_columns = sum_columns32 if sides[0].values.dtype == np.float32 else sum_columns64
        blocks, start = [], tile.first // leaf
        for first, count in nodes(start, -(-tile.numel // leaf)):
            stack = np.empty((count.bit_length(), len(ColumnField) * columns))
            at, stop = (first - start) * leaf, min((first - start + count) * leaf, tile.numel)
            sum_columns(*sides[0], *sides[1], columns, leaf // columns, at, stop, stack)
            blocks.append(Node(first, count, stack[0].reshape(len(ColumnField), columns).copy()))
        return self.merge(state, ColumnBlocks(tuple(blocks), columns))

    def merge(self, left: ColumnBlocks, right: ColumnBlocks) -> ColumnBlocks:
        """The nodes of both parts; two children of one node become that node."""
        return ColumnBlocks(joined(left.blocks, right.blocks), max(left.columns, right.columns))

    def finalize(self, state: ColumnBlocks) -> dict[str, Matrix]:
        """`columns`: float64[3, C], see ColumnField; a tensor that was never seen has none."""
        return {"columns": total(state.blocks, np.zeros((len(ColumnField), state.columns)))}


class FittedColumns(NamedTuple):
    """Per column the scale s that brings s·old nearest to new, and the squares that remain, ‖new − s·old‖²."""

    scales: Matrix
    residuals: Matrix


def fitted_columns(columns: Matrix) -> FittedColumns:
    """Least squares per column: s = Σab/Σa², residual Σb² − (Σab)²/Σa² with a = old, b = new; s = 0 where a = 0.

    The difference cancels: a residual is good to about 1e-13 of Σb², which is an SQNR of 130 dB.
    """
    a2, b2, ab = columns[ColumnField.OLD_SQUARES], columns[ColumnField.NEW_SQUARES], columns[ColumnField.DOT]
    scales = np.divide(ab, a2, out=np.zeros(columns.shape[1]), where=a2 > 0)
    return FittedColumns(scales, np.maximum(b2 - scales * ab, 0.0))
