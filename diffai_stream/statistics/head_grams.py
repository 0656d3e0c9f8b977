"""Products of the rows of each attention head, old and new: all that the bilinear forms of a head follow from.

A head is `size` neighbouring rows (W_Q, W_K, W_V) or columns (W_O) of a matrix. With X the rows of a head, old above new,
X Xᵀ holds old·oldᵀ, new·newᵀ and old·newᵀ at once. The products are float32 over blocks of rows that depend on the shape
alone: a head itself, or an aligned run of rows when heads are columns. Rows of a block that is not complete yet are carried
along, and blocks add up in float64 along the complete binary tree over their numbers: chunks never show.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """Rows of one block from row `row` on, as pieces of [rows, columns] of each side; the block ends before row `stop`."""

    row: int
    stop: int
    rows: int
    old: tuple[Values, ...]
    new: tuple[Values, ...]


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
        old, new = _alike(tile.old.reshape(-1, columns), tile.new.reshape(-1, columns))
        last = first + len(old)
        whole = -(-first // step) * step, last // step * step  # most blocks are whole, and multiplied at once
        items: list[Node | Pending] = []
        for start, stop in ((first, min(whole[0], last)), (max(whole[1], whole[0]), last)):
            if start < stop:
                piece = slice(start - first, stop - first)
                end = min((start // step + 1) * step, rows)
                items.append(Pending(start, end, stop - start, (old[piece],), (new[piece],)))
        if whole[0] < whole[1]:
            piece = slice(whole[0] - first, whole[1] - first)
            items[bool(first % step) : bool(first % step)] = self._products(whole[0] // step, old[piece], new[piece])
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
        grams = [node.sums for node in self._nodes(state)]
        empty = np.zeros((0, 3, self.size, self.size))
        with _quiet():
            found = empty if not grams else np.concatenate(grams) if self.axis == 0 else sum(grams[1:], grams[0])
        return {"old": found[:, OLD], "new": found[:, NEW], "cross": found[:, CROSS]}

    def _nodes(self, state: GramState) -> Iterator[Node]:
        """All of them, those of blocks that lack rows too."""
        for item in state.items:
            yield from self._product(item) if isinstance(item, Pending) else (item,)

    def _block_rows(self, columns: int) -> int:
        if self.axis == 0:
            return self.size
        return min(BLOCK_ROWS, max(64, 1 << ((BLOCK_NUMEL // columns).bit_length() - 1)))

    def _closed(self, item: Node | Pending, columns: int) -> Node | Pending:
        if not isinstance(item, Pending) or item.row % self._block_rows(columns) or item.rows < item.stop - item.row:
            return item
        return self._product(item)[0]

    def _joined(self, left: Node | Pending, right: Node | Pending) -> Node | Pending | None:
        """Both as one, where they are neighbours in a block or children of one node."""
        if isinstance(left, Pending) and isinstance(right, Pending):
            if left.stop == right.stop and left.row + left.rows == right.row:
                rows = left.rows + right.rows
                return Pending(left.row, left.stop, rows, left.old + right.old, left.new + right.new)
        elif isinstance(left, Node) and isinstance(right, Node) and self.axis == 1:
            return parent(left, right)
        return None

    def _product(self, item: Pending) -> list[Node]:
        """The node of what is there of a block."""
        sides = [np.concatenate(side) if len(side) > 1 else side[0] for side in (item.old, item.new)]
        return self._products(item.row // self._block_rows(sides[0].shape[1]), *sides)

    def _products(self, number: int, old: Values, new: Values) -> list[Node]:
        """The nodes of whole blocks from this number on, or of one that is not complete, from [rows, columns] of both sides."""
        if self.axis == 0:
            grams = products(*self._heads(old, new))
            return [Node(number + i, 1, grams[i : i + 1]) for i in range(len(grams))]
        pieces = self._pieces(old, new)
        return [Node(number + i, 1, products(*self._heads(*piece))) for i, piece in enumerate(pieces)]

    def _pieces(self, old: Values, new: Values) -> Iterator[tuple[Values, Values]]:
        """The rows of each block."""
        step = self._block_rows(old.shape[1])
        for at in range(0, len(old), step):
            yield old[at : at + step], new[at : at + step]

    def _heads(self, *sides: Values) -> Iterator[Values]:
        """[heads, d, n] of each side, a view of [rows, columns]; they are summed over n."""
        for side in sides:
            rows, columns = side.shape
            if self.axis == 1:
                yield side.reshape(rows, columns // self.size, self.size).transpose(1, 2, 0)
            else:
                heads = -(-rows // self.size)  # one that is not complete is shorter
                yield side.reshape(heads, rows // heads, columns)


def _alike(old: Values, new: Values) -> tuple[Values, Values]:
    """Both sides in float64 where one of them is."""
    if old.dtype == new.dtype == np.float32:
        return old, new
    with _quiet():
        return old.astype(np.float64, copy=False), new.astype(np.float64, copy=False)


def products(old: Values, new: Values) -> Grams:
    """float64[heads, 3, d, d]: old·oldᵀ, new·newᵀ, old·newᵀ of values[heads, d, n]; equal sides give three equal products.

    They are summed in float64 over spans of n; all of a head is float64, and without the elements that are not finite on any
    side, where float32 does not do.
    """
    found = np.empty((len(old), 3, old.shape[1], old.shape[1]))
    same = [_equal(a, b) for a, b in zip(old, new, strict=True)]
    with _quiet():
        found[:, OLD] = _summed(old, old)
        if not all(same):
            found[:, NEW], found[:, CROSS] = _summed(new, new), _summed(old, new)
        found[same, NEW] = found[same, CROSS] = found[same, OLD]
        for head in np.flatnonzero(~np.isfinite(found).all(axis=(1, 2, 3))):
            found[head] = _wide(old[head].astype(np.float64), new[head].astype(np.float64))
    return found


def _equal(old: Values, new: Values) -> bool:
    """Whether both are equal; most differ in their first row already."""
    return np.array_equal(old[:1], new[:1]) and np.array_equal(old, new)


def _summed(left: Values, right: Values) -> Values:
    total = left[..., :SPAN] @ right[..., :SPAN].swapaxes(-1, -2)
    for start in range(SPAN, left.shape[-1], SPAN):
        total = total.astype(np.float64, copy=False)
        total += left[..., start : start + SPAN] @ right[..., start : start + SPAN].swapaxes(-1, -2)
    return total


def _wide(old: Grams, new: Grams) -> Grams:
    finite = np.isfinite(old) & np.isfinite(new)
    if not finite.all():
        old, new = np.where(finite, old, 0.0), np.where(finite, new, 0.0)
    return np.stack([old @ old.T, new @ new.T, old @ new.T])
