"""Where the zeros of a tensor lie: groups of four with two or more, and runs of 32 that hold nothing else.

Two zeros in every four neighbours of a row is the pattern that sparse tensor cores compute with (NVIDIA, 2:4 sparsity); a
run of zeros can be left out by a block-sparse format. Groups and runs start with the row; what is left at its end is not
counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.base import Floats, Statistic, Tile
from diffai_stream.statistics.layout import LEAF_NUMEL, View

GROUP, ZEROS, RUN = 4, 2, 32
Counts = NDArray[np.int64]


class PatternState(NamedTuple):
    """int64[2 sides, 2]: groups that conform and runs of zeros; the shape, () before the first tile."""

    counts: Counts
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ZeroPatterns(Statistic[PatternState]):
    """Groups of four with two zeros or more, and runs of 32 zeros, of both sides."""

    view: View = View.PAIR

    @property
    def positional(self) -> bool:
        """Yes: groups lie along rows."""
        return True

    def skip_reason(self, shape: tuple[int, ...]) -> str | None:
        """No groups in a vector, whose elements are not multiplied with each other; rows lie in one leaf."""
        if len(shape) < 2:
            return f"has {len(shape)} axes, groups lie along rows of 2 or more"
        return f"has rows of {shape[-1]:,} elements, more than {LEAF_NUMEL:,}" if shape[-1] > LEAF_NUMEL else None

    def empty(self) -> PatternState:
        """Nothing counted."""
        return PatternState(np.zeros((2, 2), np.int64), ())

    def update(self, state: PatternState, tile: Tile) -> PatternState:
        """Count in a tile; one without a zero costs a look."""
        counts = state.counts.copy()
        counts[0] += patterns(tile.old, tile.shape)
        counts[1] += counts[0] - state.counts[0] if tile.new is tile.old else patterns(tile.new, tile.shape)
        return PatternState(counts, tile.shape)

    def merge(self, left: PatternState, right: PatternState) -> PatternState:
        """Counts add up."""
        return PatternState(left.counts + right.counts, left.shape or right.shape)

    def finalize(self, state: PatternState) -> dict[str, Counts | int]:
        """`groups` and `runs` int64[2 sides]: those that conform; `group_count` and `run_count`: how many there are."""
        rows, columns = (prod(state.shape[:-1]), state.shape[-1]) if len(state.shape) > 1 else (0, 0)
        return {
            "groups": state.counts[:, 0].copy(),
            "runs": state.counts[:, 1].copy(),
            "group_count": rows * (columns // GROUP),
            "run_count": rows * (columns // RUN),
        }


def patterns(values: Floats, shape: tuple[int, ...]) -> tuple[int, int]:
    """(groups of 4 with at least 2 zeros, runs of 32 zeros) of whole rows of a tensor of this shape."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is not zero either
        if len(shape) < 2 or values.all():
            return 0, 0
    zeros = (values == 0).reshape(-1, shape[-1])
    groups = zeros[:, : shape[-1] // GROUP * GROUP].reshape(-1, GROUP)
    runs = zeros[:, : shape[-1] // RUN * RUN].reshape(-1, RUN)
    return int((groups.sum(1, dtype=np.uint8) >= ZEROS).sum()), int(runs.all(1).sum())
