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

from diffai_stream.encodings.base import Encoding
from diffai_stream.native import Entry
from diffai_stream.statistics.base import Keyed, Statistic, Tile, sides_of
from diffai_stream.statistics.layout import LEAF_NUMEL, View
from diffai_stream.statistics.scanner import domain_of

_MODULE = "diffai_stream.statistics.kernels.zero_patterns"
patterns32, patterns64 = Entry(_MODULE, "patterns32"), Entry(_MODULE, "patterns64")

GROUP, RUN = 4, 32  # as in the kernel
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
        """Count in a tile."""
        counts = state.counts.copy()
        if len(tile.shape) > 1 and tile.numel:
            for view in (View.OLD,) if tile.is_alone else (View.OLD, View.NEW):
                (side,) = sides_of(tile, view)
                count = patterns32 if side.values.dtype == np.float32 else patterns64
                count(*side, tile.numel, tile.shape[-1], counts[view])
            if tile.is_alone:
                counts[1] += counts[0] - state.counts[0]
        return PatternState(counts, tile.shape)

    def of_runs(
        self, runs: tuple[Keyed, Keyed], encodings: tuple[Encoding, Encoding], shape: tuple[int, ...]
    ) -> PatternState | None:
        """Nothing, where neither side has a zero: most weights have none, and need not be looked at again."""
        for run, encoding in zip(runs, encodings, strict=True):
            if not run.keys.size or (domain_of(encoding).values[run.keys] == 0).any():
                return None
        return PatternState(np.zeros((2, 2), np.int64), shape)

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
