"""State rows in words: the figures of sides and of changes, as records print them, for many tensors at a time.

Definitions are those of the record contract: figures cover finite elements, counts all of them, and what there is nothing
to measure for is None. Columns are computed over the rows of all tensors, because one at a time costs more than scanning a
small one; what cannot be computed is NaN in a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum, inf, isfinite, log10, nan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.layout import AGREEMENT, PAIR_START, VIEW_WIDTH, View, column

Rows = NDArray[np.float64]
Column = NDArray[np.float64]

_FIGURES = ("mean", "std", "min", "max", "l2_norm", "abs_max")
_COUNTS = ("zero_count", "nan_count", "posinf_count", "neginf_count")
_SHAPE = ("skewness", "excess_kurtosis", "sparsity_ratio")
_UNDEFINED = np.errstate(invalid="ignore", over="ignore", divide="ignore")


def field(rows: Rows, view: View, name: str) -> Column:
    """One field of a view of every row."""
    return rows[:, column(view, name)]


@_UNDEFINED
def side_stats(rows: Rows, view: View) -> list[dict[str, Any]]:
    """mean, std, range, norm and counts of one view, a dict a row."""
    n, mean, m2, low, high = (field(rows, view, name) for name in ("n", "mean", "m2", "min", "max"))
    norm, largest = np.sqrt(sum_of_squares(rows, view)), np.maximum(np.abs(low), np.abs(high))
    figures = (np.where(n > 0, mean, nan), np.sqrt(m2 / n), low + 0.0, high + 0.0, norm, largest)  # -0.0 is 0.0
    counts = rows[:, column(view, "zero") : (view + 1) * VIEW_WIDTH].astype(np.int64).tolist()
    names = _FIGURES + _COUNTS
    return [dict(zip(names, told + counted, strict=True)) for told, counted in zip(numbers(figures), counts, strict=True)]


@_UNDEFINED
def shape_stats(rows: Rows, view: View) -> list[dict[str, Any]]:
    """skewness, excess kurtosis and sparsity, a dict a row: the figures that `--stats` adds."""
    n, m2, m3, zero = (field(rows, view, name) for name in ("n", "m2", "m3", "zero"))
    skewness = np.where(m2 * m2 > 0, np.sqrt(n) * m3 / (m2 * np.sqrt(m2)), nan)
    figures = (skewness, excess_kurtosis(rows, view), zero / numels(rows, view))
    return [dict(zip(_SHAPE, told, strict=True)) for told in numbers(figures)]


@_UNDEFINED
def excess_kurtosis(rows: Rows, view: View) -> Column:
    """Fourth standardized moment less 3; not finite where the view is constant or empty."""
    n, m2, m4 = (field(rows, view, name) for name in ("n", "m2", "m4"))
    return n * m4 / (m2 * m2) - 3.0


def nonfinite_count(rows: Rows, view: View) -> Column:
    """How many elements of a view are NaN or infinite."""
    return field(rows, view, "nan") + field(rows, view, "posinf") + field(rows, view, "neginf")


def numels(rows: Rows, view: View) -> Column:
    """Real numbers of a view, finite or not; a complex element counts twice."""
    return field(rows, view, "n") + nonfinite_count(rows, view)


@_UNDEFINED
def sum_of_squares(rows: Rows, view: View) -> Column:
    """Sum of x² over the finite elements of a view, from its moments."""
    n, mean, m2 = (field(rows, view, name) for name in ("n", "mean", "m2"))
    return m2 + n * mean * mean


@_UNDEFINED
def change_stats(rows: Rows, shapes: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """How far new is from old over the elements finite on both sides, a dict a row."""
    changed, _, _, dot, old2, new2, abs_sum, max_abs, _ = rows[:, PAIR_START:].T
    numel, compared = np.array([prod(shape) for shape in shapes], np.int64), field(rows, View.DELTA, "n")
    delta2 = sum_of_squares(rows, View.DELTA)
    norm, old, new = np.sqrt(delta2), np.sqrt(old2), np.sqrt(new2)
    both = (old > 0) & (new > 0)
    figures = (
        changed / numel,
        norm,
        norm / old,
        np.where(both, np.clip(dot / old / new, -1.0, 1.0), nan),
        np.where(both, cosine_distance(dot, delta2, old, new), nan),
        decibels(old2 / delta2),
        np.where(compared > 0, max_abs, nan),
        abs_sum / compared,
    )
    counts = rows[:, [column(View.PAIR, name) for name in ("changed", "flips", "max_index")]].astype(np.int64).tolist()
    return [
        {
            "changed_count": changed_count,
            "changed_ratio": ratio,
            "sign_flip_count": flip_count,
            "l2_norm": l2_norm,
            "relative_l2": relative_l2,
            "cosine_similarity": cosine,
            "cosine_distance": distance,
            "sqnr_db": sqnr,
            "max_abs": largest,
            "max_abs_index": unravel(place, shape) if place >= 0 else None,
            "mean_abs": mean_abs,
        }
        for (changed_count, flip_count, place), shape, (
            *(ratio, l2_norm, relative_l2, cosine, distance, sqnr, largest, mean_abs),
        ) in zip(counts, shapes, numbers(figures), strict=True)
    ]


@_UNDEFINED
def cosine_distance(dot: Column, delta2: Column, old: Column, new: Column) -> Column:
    """1 - cosine as (‖d‖² − (‖n‖ − ‖o‖)²) / (2‖o‖‖n‖), which does not cancel where the cosine saturates.

    Where ‖d‖² is the larger, its rounding would show in that form and 1 - cosine itself is the exact one.
    """
    stable = np.maximum(0.0, (delta2 - np.square(new - old)) / (2 * old) / new)
    return np.where(delta2 / (2 * old) / new < 1, stable, 1 - np.clip(dot / old / new, -1.0, 1.0))


def decibels(ratios: Column) -> Column:
    """10·log10 of ratios; NaN unless they are positive and finite."""
    # not np.log10, whose last digit depends on the processor
    return np.array([10 * log10(ratio) if 0 < ratio < inf else nan for ratio in ratios.tolist()])


def numbers(columns: Sequence[Column]) -> list[list[Any]]:
    """Columns as rows of Python numbers, None for what is not finite."""
    table = np.stack(columns, axis=1)
    rows: list[list[Any]] = table.tolist()
    for row, place in np.argwhere(~np.isfinite(table)).tolist():
        rows[row][place] = None
    return rows


def finite(value: float) -> float | None:
    """The number, or None when it is not one."""
    return value if isfinite(value) else None


def total(values: Iterable[float]) -> float:
    """The sum by math.fsum; infinity where it is beyond float64."""
    try:
        return fsum(values)
    except OverflowError:
        return inf


def agreement(row: Sequence[float]) -> dict[str, float]:
    """The columns of the pair of one row, by name."""
    return dict(zip(AGREEMENT, row[PAIR_START:], strict=True))


def unravel(index: int, shape: Sequence[int]) -> list[int]:
    """One integer an axis of a flat C-order index; [] for a scalar."""
    places: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return places[::-1]
