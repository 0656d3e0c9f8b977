"""State rows in words: the figures of a side and of a change, as records print them.

Definitions are those of the record contract: figures cover finite elements, counts all of them, and what there is nothing
to measure for is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum, inf, isfinite, log10, prod, sqrt
from typing import Any

from diffai_stream.statistics.layout import AGREEMENT, PAIR_START, VIEW_WIDTH, View

Row = Sequence[float]


def side_stats(row: Row, view: View) -> dict[str, Any]:
    """mean, std, range, norm and counts of one view of a state row."""
    n, mean, m2, _, _, low, high, zero, nan, posinf, neginf = row[view * VIEW_WIDTH : (view + 1) * VIEW_WIDTH]
    counts = {"zero_count": int(zero), "nan_count": int(nan), "posinf_count": int(posinf), "neginf_count": int(neginf)}
    if n == 0:
        return {"mean": None, "std": None, "min": None, "max": None, "l2_norm": 0.0, "abs_max": None, **counts}
    low, high = low + 0.0, high + 0.0  # -0.0 is 0.0
    return {
        "mean": finite(mean),
        "std": finite(sqrt(m2 / n)),
        "min": low,
        "max": high,
        "l2_norm": finite(sqrt(sum_of_squares(row, view))),
        "abs_max": max(abs(low), abs(high)),
        **counts,
    }


def shape_stats(row: Row, view: View) -> dict[str, Any]:
    """skewness, excess kurtosis and sparsity: the figures that `--stats` adds."""
    n, _, m2, m3, m4, _, _, zero, nan, posinf, neginf = row[view * VIEW_WIDTH : (view + 1) * VIEW_WIDTH]
    numel = n + nan + posinf + neginf
    skewness = kurtosis = None
    if n and m2 > 0 and m2 * m2 > 0:
        skewness, kurtosis = finite(sqrt(n) * m3 / m2**1.5), finite(n * m4 / (m2 * m2) - 3.0)
    return {"skewness": skewness, "excess_kurtosis": kurtosis, "sparsity_ratio": zero / numel if numel else None}


def excess_kurtosis(row: Row, view: View) -> float | None:
    """Fourth standardized moment less 3; None when the view is constant or empty."""
    kurtosis: float | None = shape_stats(row, view)["excess_kurtosis"]
    return kurtosis


def sum_of_squares(row: Row, view: View) -> float:
    """Sum of x² over the finite elements of a view, from its moments."""
    n, mean, m2 = row[view * VIEW_WIDTH : view * VIEW_WIDTH + 3]
    return m2 + n * mean * mean


def finite(value: float) -> float | None:
    """The number, or None when it is not one."""
    return value if isfinite(value) else None


def total(values: Iterable[float]) -> float:
    """The sum by math.fsum; infinity where it is beyond float64."""
    try:
        return fsum(values)
    except OverflowError:
        return inf


def agreement(row: Row) -> dict[str, float]:
    """The columns of the pair, by name."""
    return dict(zip(AGREEMENT, row[PAIR_START:], strict=True))


def change_stats(row: Row, shape: Sequence[int]) -> dict[str, Any]:
    """How far new is from old, over the elements finite on both sides."""
    changed, _, flips, dot, old2, new2, abs_sum, max_abs, max_index = row[PAIR_START:]
    numel, compared = prod(shape), row[View.DELTA * VIEW_WIDTH]
    delta2 = sum_of_squares(row, View.DELTA)
    norm, old, new = sqrt(delta2), sqrt(old2), sqrt(new2)
    both = old > 0 and new > 0
    return {
        "changed_count": int(changed),
        "changed_ratio": changed / numel if numel else None,
        "sign_flip_count": int(flips),
        "l2_norm": finite(norm),
        "relative_l2": finite(norm / old) if old > 0 else None,
        "cosine_similarity": finite(max(-1.0, min(1.0, dot / old / new))) if both else None,
        "cosine_distance": cosine_distance(dot, delta2, old, new) if both else None,
        "sqnr_db": finite(10 * log10(old2 / delta2)) if old2 > 0 and delta2 > 0 and old2 / delta2 > 0 else None,
        "max_abs": finite(max_abs) if compared else None,
        "max_abs_index": unravel(int(max_index), shape) if max_index >= 0 else None,
        "mean_abs": finite(abs_sum / compared) if compared else None,
    }


def cosine_distance(dot: float, delta2: float, old: float, new: float) -> float | None:
    """1 - cosine as (‖d‖² − (‖n‖ − ‖o‖)²) / (2‖o‖‖n‖), which does not cancel where the cosine saturates.

    Where ‖d‖² is the larger, its rounding would show in that form and 1 - cosine itself is the exact one.
    """
    if delta2 / (2 * old) / new < 1:
        return finite(max(0.0, (delta2 - (new - old) ** 2) / (2 * old) / new))
    return finite(1 - max(-1.0, min(1.0, dot / old / new)))


def unravel(index: int, shape: Sequence[int]) -> list[int]:
    """One integer an axis of a flat C-order index; [] for a scalar."""
    places: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return places[::-1]
