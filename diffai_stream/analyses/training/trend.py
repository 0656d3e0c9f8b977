"""Straight lines through a history, and whether they go up, down or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MIN_POINTS = 5
SIGNIFICANT = 2.0  # of Student's t: a slope below it may be noise
LEVEL = 1e-3  # of the mean: a change below it is none


class Line(NamedTuple):
    """Least squares: value = a + slope·step; `t` is the slope over its standard error, `change` slope times the span."""

    slope: float
    t: float
    change: float
    mean: float

    @property
    def direction(self) -> str:
        """falling, rising or flat."""
        if abs(self.t) < SIGNIFICANT or abs(self.change) <= LEVEL * abs(self.mean):
            return "flat"
        return "falling" if self.slope < 0 else "rising"


def line_through(points: Sequence[tuple[int, float]]) -> Line | None:
    """The line through points; None for fewer than MIN_POINTS, or when all are of one step."""
    if len(points) < MIN_POINTS:
        return None
    steps, values = np.array([p[0] for p in points], np.float64), np.array([p[1] for p in points], np.float64)
    x = steps - steps.mean()
    spread = float(x @ x)
    if spread == 0:
        return None
    mean = float(values.mean())
    slope = float(x @ (values - mean)) / spread
    residual = values - mean - slope * x
    error = float(np.sqrt(residual @ residual / max(1, len(points) - 2) / spread))
    t = slope / error if error > 0 else float("inf") if slope else 0.0
    return Line(slope, t, slope * float(steps.max() - steps.min()), mean)


def tail(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """The last fifth of a history, at least MIN_POINTS of it."""
    return points[-max(MIN_POINTS, len(points) // 5) :]
