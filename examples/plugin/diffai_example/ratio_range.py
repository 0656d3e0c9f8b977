"""The statistic: the smallest and the largest quotient new / old, over elements that are finite and where old is not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diffai_stream.statistics.base import Statistic, Tile, same_type
from diffai_stream.statistics.layout import View


class Range(NamedTuple):
    """Smallest and largest so far; the other way round when there was none."""

    low: float
    high: float


@dataclass(frozen=True)
class RatioRange(Statistic[Range]):
    """Extremes merge exactly in any order, so that the laws hold to the last bit."""

    view: View = View.PAIR

    def empty(self) -> Range:
        """No quotient."""
        return Range(np.inf, -np.inf)

    def update(self, state: Range, tile: Tile) -> Range:
        """Take in the quotients of a tile."""
        old, new = same_type(tile)
        usable = np.isfinite(old) & np.isfinite(new) & (old != 0)
        with np.errstate(over="ignore", under="ignore"):
            ratios = new[usable].astype(np.float64) / old[usable].astype(np.float64)
        if not ratios.size:
            return state
        return self.merge(state, Range(float(ratios.min()), float(ratios.max())))

    def merge(self, left: Range, right: Range) -> Range:
        """The wider range."""
        return Range(min(left.low, right.low), max(left.high, right.high))

    def finalize(self, state: Range) -> dict[str, float | None]:
        """`ratio_min` and `ratio_max`; None where there was no quotient, or one too large to be written."""
        if not np.isfinite([state.low, state.high]).all():
            return {"ratio_min": None, "ratio_max": None}
        return {"ratio_min": state.low, "ratio_max": state.high}
