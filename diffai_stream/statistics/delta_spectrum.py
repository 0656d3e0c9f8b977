"""The strongest directions of the change of a matrix, from one pass: a sketch of DᵀD, where D is new - old.

With Ω of 64 orthonormal columns, Z = DᵀDΩ adds up over the rows of D, so that rows need not be kept. From Z follow the largest
eigenvalues of DᵀD, the squared singular values of D (Nyström; none is above the true one, and a change of rank 64 or less is
told exactly), and the sum of all squared eigenvalues, whose expectation is n/64·‖Z‖². Blocks of rows as in `head_grams.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.head_grams import Grams, HeadGrams, Values
from diffai_stream.statistics.layout import LEAF_NUMEL
from diffai_stream.statistics.tree import Node

WIDTH = 64
ROUNDING = 1e-6  # of the largest eigenvalue: what float32 products leave below it is no direction


@lru_cache(maxsize=8)
def directions(columns: int) -> NDArray[np.float32]:
    """float32[columns, ≤ 64], orthonormal, the same for every matrix with so many columns."""
    drawn = np.random.Generator(np.random.PCG64(columns)).normal(size=(columns, min(WIDTH, columns)))
    return np.asarray(np.linalg.qr(drawn)[0], np.float32)


@dataclass(frozen=True)
class DeltaSpectrum(HeadGrams):
    """Largest eigenvalues of DᵀD and the sum of the squares of all of them."""

    size: int = WIDTH
    axis: int = 1

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """Matrices only, with rows that lie in one leaf."""
        if len(shape) != 2:
            return f"has {len(shape)} axes, a matrix has 2"
        return f"has rows of {shape[1]:,} elements, more than {LEAF_NUMEL:,}" if shape[1] > LEAF_NUMEL else None

    def result_nbytes(self, shape: tuple[int, ...], numel: int) -> int:
        """Of Z."""
        return 8 * shape[1] * min(WIDTH, shape[1])

    def finalize(self, state: Any) -> dict[str, Any]:
        """`squares` float64[≤ 64]: squared singular values of D, largest first; `fourth`: the sum of all fourth powers."""
        sums = [node.sums for node in self._nodes(state)]
        if not sums:
            return {"squares": np.zeros(0), "fourth": 0.0}
        sketch = sum(sums[1:], sums[0])
        columns, width = sketch.shape
        with np.errstate(over="ignore", invalid="ignore"):
            return {"squares": _eigenvalues(sketch), "fourth": float((sketch**2).sum()) * columns / width}

    def _products(self, number: int, old: Values, new: Values) -> list[Node]:
        return [Node(number + i, 1, _image(*piece)) for i, piece in enumerate(self._pieces(old, new))]


def _image(old: Values, new: Values) -> Grams:
    """float64[columns, 64]: DᵀDΩ of some rows; a change that is not finite counts as 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        delta = new - old
        delta[~np.isfinite(delta)] = 0
        return np.asarray(delta.T @ (delta @ directions(old.shape[1])), np.float64)


def _eigenvalues(sketch: Grams) -> NDArray[np.float64]:
    """Eigenvalues of Z (ΩᵀZ)⁻¹ Zᵀ, largest first, by the shifted form that stays positive definite (Tropp et al. 2017)."""
    omega = directions(len(sketch)).astype(np.float64)
    norm = float(np.linalg.norm(sketch))
    if norm == 0 or not np.isfinite(norm):
        return np.zeros(sketch.shape[1])
    shift = ROUNDING * norm
    shifted = sketch + shift * omega
    core = omega.T @ shifted
    factor = np.linalg.cholesky((core + core.T) / 2)
    half = np.linalg.solve(factor, shifted.T)
    found = np.linalg.eigvalsh(half @ half.T)[::-1] - shift
    return np.where(found > 2 * shift, found, 0.0)
