"""Which schedule a history of learning rates follows: the simplest law whose residual is small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_POINTS = 5
EXACT = 1e-3  # of the largest rate: a law with a smaller residual is taken before a more complicated one
PLAUSIBLE = 0.02  # ... and one with a larger residual is none
MOST_LEVELS = 8
PERIODS, REFINEMENTS = 200, 5  # of the half period of a cosine
MOST_POINTS = 1000  # of a history, evenly taken
Values = NDArray[np.float64]


class Fit(NamedTuple):
    """A law, the root mean square of what it leaves over the largest rate, and the steps of warm-up before it."""

    pattern: str | None
    residual: float | None
    warmup_steps: int


def fitted(points: Sequence[tuple[int, float]]) -> Fit:
    """The law of a history of at least MIN_POINTS points.

    A rise at the beginning is warm-up and left out; a history that only rises is of pattern `warmup`.
    """
    if len(points) < MIN_POINTS:
        return Fit(None, None, 0)
    points = points[:: -(-len(points) // MOST_POINTS)]
    steps, rates = np.array([p[0] for p in points], np.float64), np.array([p[1] for p in points], np.float64)
    top = float(np.abs(rates).max())
    if top == 0:
        return Fit("constant", 0.0, 0)
    rates = rates / top
    start = _end_of_rise(rates)
    if start == len(rates) - 1:
        return Fit("warmup", _residual(rates, _line(steps, rates)), int(steps[start] - steps[0]))
    warmup = int(steps[start]) if start else 0
    steps, rates = steps[start:], rates[start:]
    if len(rates) < MIN_POINTS:
        return Fit(None, None, warmup)
    residuals = [(_residual(rates, law(steps, rates)), name) for name, law in LAWS.items()]
    exact = next((found for found in residuals if found[0] <= EXACT), None)
    residual, name = exact or min(residuals)
    return Fit(name if residual <= PLAUSIBLE else None, residual, warmup)


def _end_of_rise(rates: Values) -> int:
    """Where a rise at the beginning ends; 0 where there is none."""
    falls = np.flatnonzero(np.diff(rates) <= 0)
    return int(falls[0]) if falls.size else len(rates) - 1


def _residual(rates: Values, law: Values) -> float:
    return float(np.sqrt(np.mean((rates - law) ** 2)))


def _constant(steps: Values, rates: Values) -> Values:
    return np.full(len(rates), rates.mean())


def _line(steps: Values, rates: Values) -> Values:
    return _least_squares(rates, np.ones(len(steps)), steps / max(1.0, float(np.abs(steps).max())))


def _stairs(steps: Values, rates: Values) -> Values:
    """The rates themselves where they keep to a few levels, each for a while; else their mean, which fits badly."""
    jumps = np.count_nonzero(np.abs(np.diff(rates)) > EXACT)
    return rates if 0 < jumps < min(MOST_LEVELS, len(rates) // 3) else _constant(steps, rates)


def _exponential(steps: Values, rates: Values) -> Values:
    if rates.min() <= 0:
        return _constant(steps, rates)
    return np.exp(_line(steps, np.log(rates)))


def _cosine(steps: Values, rates: Values) -> Values:
    """low + (high - low)(1 + cos(pi (s - s0)/T))/2 with T by search, the rest by least squares.

    It began at step 0, at the first rate that was recorded, or up to one interval of the log before that.
    """
    interval = float(np.median(np.diff(steps)))
    starts = {0.0, float(steps[0]), float(steps[0]) - interval / 2, float(steps[0]) - interval}
    laws = [_half_wave(steps - start, rates) for start in sorted(starts) if start >= 0]
    return min(laws, key=lambda law: _residual(rates, law))


def _half_wave(x: Values, rates: Values) -> Values:
    """The best half wave from x = 0 on whose period is between the span and 20 times that."""
    span = float(x[-1]) or 1.0
    low, high = span, 20 * span
    for _ in range(REFINEMENTS):
        periods = np.linspace(low, high, PERIODS)
        waves = np.cos(np.pi * x / periods[:, None])
        centred = waves - waves.mean(axis=1, keepdims=True)
        power = (centred**2).sum(axis=1)
        left = -np.divide((centred @ (rates - rates.mean())) ** 2, power, out=np.zeros(PERIODS), where=power > 0)
        best, width = int(np.argmin(left)), (high - low) / (PERIODS - 1)
        low, high = max(span, periods[best] - 2 * width), periods[best] + 2 * width
    return _least_squares(rates, np.ones(len(x)), waves[best])


def _least_squares(values: Values, *columns: Values) -> Values:
    """The combination of the columns nearest to the values."""
    matrix = np.stack(columns, axis=1)
    found: Values = matrix @ np.linalg.lstsq(matrix, values, rcond=None)[0]
    return found


LAWS: dict[str, Callable[[Values, Values], Values]] = {
    "constant": _constant,
    "step": _stairs,
    "linear": _line,
    "exponential": _exponential,
    "cosine": _cosine,
}
"""Rates by steps to the law nearest to them, the simplest first."""
