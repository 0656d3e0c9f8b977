"""Products of the rows of each attention head, old and new: all that the bilinear forms of a head follow from.

A head is `size` neighbouring rows (W_Q, W_K, W_V) or columns (W_O) of a matrix. With X the rows of a head, old above new,
X Xᵀ holds old·oldᵀ, new·newᵀ and old·newᵀ at once. The products are float32 over blocks of rows that depend on the shape
alone: a head itself, or an aligned run of rows when heads are columns. Rows of a block that is not complete yet are carried
along, and blocks add up in float64 along the complete binary tree over their numbers: chunks never show.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.base import Statistic, Tile
from diffai_stream.statistics.layout import LEAF_NUMEL, View
from diffai_stream.statistics.tree import Node, parent

OLD, NEW, CROSS = range(3)
BLOCK_NUMEL = 1 << 20  # elements of a run of rows when heads are columns
BLOCK_ROWS = 512
SPAN = 4096  # columns multiplied in float32 before the float64 sum
Grams = NDArray[np.float64]
Values = NDArray[Any]  # float32, or float64 where a side needs it


def _quiet() -> np.errstate:
    """What overflows or is not finite is left out afterwards."""
    return np.errstate(over="ignore", invalid="ignore", under="ignore")


class Pending(NamedTuple):
    """Rows of one block from row `row` on, values[2 sides, rows, columns]; the block ends before row `stop`."""

    row: int
    stop: int
    values: Values


class GramState(NamedTuple):
    """Nodes with float64[heads, 3, size, size] and rows of unfinished ones, in order; the columns seen, 0 at first."""

    items: tuple[Node | Pending, ...]
    columns: int


@dataclass(frozen=True)
class HeadGrams(Statistic[GramState]):
    """d x d products of each head: `size` is d, `axis` 0 when heads are rows, 1 when they are columns."""

    view: View = View.PAIR
    size: int = 64
    axis: int = 0

    @property
    def positional(self) -> bool:
        """Yes: rows belong to heads by their numbers."""
        return True

    @property
    def uses_blas(self) -> bool:
        """Yes: threads of its own would only stand in the way of those that scan."""
        return True

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Matrices of whole heads, with rows that lie in one leaf."""
        if len(shape) != 2:
            return f"has {len(shape)} axes, a matrix has 2"
        if shape[self.axis] % self.size:
            return f"has {shape[self.axis]:,} {('rows', 'columns')[self.axis]}, which are no whole heads of {self.size}"
        return f"has rows of {shape[1]:,} elements, more than {LEAF_NUMEL:,}" if shape[1] > LEAF_NUMEL else None

    def result_nbytes(self, shape: tuple[int, ...], numel: int) -> int:
        """Of the heads among so many elements, or of all of them where heads are columns."""
        heads = shape[1] // self.size if self.axis else -(-numel // (shape[1] * self.size))
        return 3 * 8 * heads * self.size**2

    def empty(self) -> GramState:
        """No row."""
        return GramState((), 0)

    def update(self, state: GramState, tile: Tile) -> GramState:
        """Take in the rows of a tile."""
        if self.skip_reason(tile.shape) or not tile.numel:
            return state
        rows, columns = tile.shape
        step, first = self._block_rows(columns), tile.first // columns
        dtype = np.float32 if tile.old.dtype == tile.new.dtype == np.float32 else np.float64
        sides = [side.reshape(-1, columns) for side in (tile.old, tile.new)]
        last = first + len(sides[0])
        items: list[Node | Pending] = []
        for row in (first, *range((first // step + 1) * step, last, step)):
            stop = min((row // step + 1) * step, rows)
            with _quiet():
                values = np.stack([side[row - first : min(stop, last) - first] for side in sides]).astype(dtype, copy=False)
            items.append(Pending(row, stop, values))
        return self.merge(state, GramState(tuple(items), columns))

    def merge(self, left: GramState, right: GramState) -> GramState:
        """Rows of one block come together; a block that is complete becomes its products, two children their sum."""
        columns = max(left.columns, right.columns)
        items: list[Node | Pending] = []
        for item in left.items + right.items:
            items.append(self._closed(item, columns))
            while len(items) > 1 and (joined := self._joined(items[-2], items[-1])) is not None:
                items[-2:] = [self._closed(joined, columns)]
        return GramState(tuple(items), columns)

    def finalize(self, state: GramState) -> dict[str, Any]:
        """`old`, `new` (symmetric) and `cross` (old·newᵀ): float64[heads, d, d]; elements not finite on a side count as 0."""
        blocks = [self._product(item, state.columns) if isinstance(item, Pending) else item for item in state.items]
        grams = [block.sums for block in blocks]
        empty = np.zeros((0, 3, self.size, self.size))
        with _quiet():
            found = empty if not grams else np.concatenate(grams) if self.axis == 0 else sum(grams[1:], grams[0])
        return {"old": found[:, OLD], "new": found[:, NEW], "cross": found[:, CROSS]}

    def _block_rows(self, columns: int) -> int:
        if self.axis == 0:
            return self.size
        return min(BLOCK_ROWS, max(64, 1 << ((BLOCK_NUMEL // columns).bit_length() - 1)))

    def _closed(self, item: Node | Pending, columns: int) -> Node | Pending:
        whole = isinstance(item, Pending) and item.values.shape[1] == item.stop - item.row
        starts = isinstance(item, Pending) and item.row % self._block_rows(columns) == 0
        return self._product(item, columns) if whole and starts and isinstance(item, Pending) else item

    def _joined(self, left: Node | Pending, right: Node | Pending) -> Node | Pending | None:
        """Both as one, where they are neighbours in a block or children of one node."""
        if isinstance(left, Pending) and isinstance(right, Pending):
            if left.stop == right.stop and left.row + left.values.shape[1] == right.row:
                return Pending(left.row, left.stop, np.concatenate([left.values, right.values], axis=1))
        elif isinstance(left, Node) and isinstance(right, Node) and self.axis == 1:
            return parent(left, right)
        return None

    def _product(self, item: Pending, columns: int) -> Node:
        number, values = item.row // self._block_rows(columns), item.values
        if self.axis == 0:
            return Node(number, 1, products(values)[None])
        heads = values.reshape(2, values.shape[1], -1, self.size).transpose(2, 0, 3, 1)  # [heads, sides, size, rows]
        return Node(number, 1, np.stack([products(head) for head in heads]))


def products(values: Values) -> Grams:
    """float64[3, d, d]: old·oldᵀ, new·newᵀ, old·newᵀ of values[2 sides, d, n]; equal sides give one product."""
    if np.array_equal(values[0], values[1]):
        one = _squared(values[0])
        return np.stack([one, one, one])
    size = values.shape[1]
    full = _squared(values.reshape(2 * size, -1))
    return np.stack([full[:size, :size], full[size:, size:], full[:size, size:]])


def _squared(rows: Values) -> Grams:
    """rows · rowsᵀ; in float64, and without the elements that are not finite on any side, where float32 does not do."""
    with _quiet():
        total = sum(_spans(rows), np.zeros((len(rows), len(rows))))
        if not np.isfinite(total).all():
            wide = rows.astype(np.float64)
            half = len(rows) // 2
            total = wide @ wide.T if np.isfinite(wide).all() else _masked(wide, half)
    return np.asarray(total, np.float64)


def _spans(rows: Values) -> Iterable[Grams]:
    for start in range(0, rows.shape[1], SPAN):
        part = np.ascontiguousarray(rows[:, start : start + SPAN])
        yield (part @ part.T).astype(np.float64)


def _masked(wide: Grams, half: int) -> Grams:
    finite = np.isfinite(wide)
    both = np.tile(finite[:half] & finite[half:], (2, 1)) if 2 * half == len(wide) else finite
    kept = np.where(both, wide, 0.0)
    return np.asarray(kept @ kept.T)
