"""A count-sketch of old, new, or new - old: 16 KB from which the angle between any two tensors of a shape can be told.

The inner product of two sketches estimates that of the tensors without bias, with variance (‖x‖²‖y‖² + ⟨x,y⟩²)/4096
(Charikar, Chen & Farach-Colton 2002): cosines between what was never in memory together, other layers or other
checkpoints. Tensors of at most 4,096 elements are kept exactly. Sums are taken leaf by leaf and added along the complete
binary tree over leaf numbers, so that chunks do not change a bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.native import Entry
from diffai_stream.statistics.base import Statistic, Tile, sides_of
from diffai_stream.statistics.layout import View, leaf_numel
from diffai_stream.statistics.tree import Node, joined, nodes, total

_MODULE = "diffai_stream.statistics.kernels.sketch"
sketch32, sketch64 = Entry(_MODULE, "sketch32"), Entry(_MODULE, "sketch64")
WIDTH = 4096  # as in the kernel, whose import would import numba
SCRATCH = WIDTH + 64
Sketched = NDArray[np.float32]


class SketchState(NamedTuple):
    """The largest nodes of the tree that a run of leaves fills, in order, and the elements of the whole tensor."""

    blocks: tuple[Node, ...]
    numel: int


@dataclass(frozen=True)
class Sketch(Statistic[SketchState]):
    """Count-sketch of one view: OLD, NEW or DELTA. What is not finite counts as 0."""

    view: View

    @property
    def positional(self) -> bool:
        """Yes: the index of an element tells its sum and sign."""
        return True

    @property
    def kept(self) -> bool:
        """At most 16 KB a tensor."""
        return True

    def result_nbytes(self, shape: tuple[int, ...], numel: int) -> int:
        """Of a node, in float64."""
        return 8 * WIDTH

    def empty(self) -> SketchState:
        """No leaf."""
        return SketchState((), 0)

    def update(self, state: SketchState, tile: Tile) -> SketchState:
        """Add the leaves of a tile."""
        numel, size = prod(tile.shape), tile.numel
        if not size:
            return self.merge(state, SketchState((), numel))
        leaf, is_delta = leaf_numel(tile.shape), self.view == View.DELTA
        sides = sides_of(tile, View.OLD, View.NEW) if is_delta else sides_of(tile, self.view) * 2
        run = sketch32 if sides[0].values.dtype == np.float32 else sketch64
        blocks, start, scratch = [], tile.first // leaf, np.empty(SCRATCH)
        for first, count in nodes(start, -(-size // leaf)):
            stack = np.empty((count.bit_length(), min(WIDTH, numel)))
            at, stop = (first - start) * leaf, min((first - start + count) * leaf, size)
            run(*sides[0], *sides[1], is_delta, tile.first, leaf, at, stop, scratch, stack)
            blocks.append(Node(first, count, stack[0].copy()))
        return self.merge(state, SketchState(tuple(blocks), numel))

    def merge(self, left: SketchState, right: SketchState) -> SketchState:
        """The nodes of both parts; two children of one node become that node."""
        return SketchState(joined(left.blocks, right.blocks), max(left.numel, right.numel))

    def finalize(self, state: SketchState) -> dict[str, Any]:
        """`sketch` float32[≤ 4096]; `is_exact` where nothing met, and inner products of sketches are those of tensors."""
        sums = total(state.blocks, np.zeros(min(WIDTH, state.numel)))
        with np.errstate(over="ignore"):
            return {"sketch": sums.astype(np.float32), "is_exact": state.numel <= WIDTH}


def sketch_of(extras: dict[Any, dict[str, Any]], view: View) -> dict[str, Any] | None:
    """The finalized sketch of a view among the other statistics of a tensor."""
    return extras.get(Sketch(view))


class Estimate(NamedTuple):
    """A cosine, 0 within `standard_error`; both None where a norm is 0."""

    cosine: float | None
    standard_error: float | None


class Product(NamedTuple):
    """Two tensors as far as their angle needs it: sketches, whether these are exact, and the exact norms."""

    left: Sketched
    right: Sketched
    is_exact: bool
    left_norm: float
    right_norm: float


def cosine_of(products: Iterable[Product]) -> Estimate:
    """The cosine between two vectors, each given in parts: Σ⟨sketches⟩ over the exact norms, cut to [-1, 1].

    Its standard error is √Σ(‖x‖²‖y‖² + ⟨x,y⟩²)/4096 over the norms, over the parts that are not exact: of one part
    √((1 + c²)/4096), less for more parts, whose errors are independent.
    """
    dot = left = right = variance = 0.0
    for product in products:
        with np.errstate(over="ignore", invalid="ignore"):
            inner = float(product.left.astype(np.float64) @ product.right.astype(np.float64))
        dot += inner
        left += product.left_norm**2
        right += product.right_norm**2
        if not product.is_exact:
            variance += ((product.left_norm * product.right_norm) ** 2 + inner**2) / WIDTH
    norms = sqrt(left) * sqrt(right)
    if not 0 < norms < float("inf") or not abs(dot) < float("inf"):
        return Estimate(None, None)
    return Estimate(min(1.0, max(-1.0, dot / norms)), sqrt(variance) / norms)
