"""The rows of every statistic. A new one is a file with a `Statistic` and a row here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from diffai_stream.plugins import Catalogue
from diffai_stream.statistics.base import Statistic
from diffai_stream.statistics.layout import AGREEMENT, COUNTS, EXTREMA, MOMENTS, View

SIDES = (View.OLD, View.NEW, View.DELTA)
FUSED = "diffai_stream.statistics.scanner:Scanner"


@dataclass(frozen=True)
class StatisticRow:
    """One statistic.

    `views` it can look at; `columns` its result has; `exactness` in words; `cost_ns` nanoseconds an element pair and core
    on top of reading and decoding, in order of magnitude; `target` is `module:Class`, imported when it is used; `fused`
    ones are filled by the scan itself and have no class of their own.
    """

    name: str
    title: str
    views: tuple[View, ...]
    columns: tuple[str, ...]
    exactness: str
    cost_ns: float
    reference: str
    target: str
    fused: bool = False

    def open(self, view: View) -> Statistic[Any]:
        """The statistic for a view. Raises ValueError for a view it does not have, and for fused ones."""
        if self.fused or view not in self.views:
            raise ValueError(f"{self.name} has no statistic of its own for {view.name}")
        module, _, attribute = self.target.partition(":")
        return cast(Statistic[Any], getattr(import_module(module), attribute)(view))


_ROWS = (
    StatisticRow(
        "moments",
        "count, mean and central moments to order 4",
        SIDES,
        MOMENTS,
        "1e-6 relative, the mean 1e-6 of the root mean square; exact sums over codes of at most 16 bits",
        0.3,
        "Chan, Golub & LeVeque 1979; Pebay, SAND2008-6212",
        FUSED,
        fused=True,
    ),
    StatisticRow(
        "extrema",
        "smallest and largest finite value",
        SIDES,
        EXTREMA,
        "exact; of the delta 1e-7 relative",
        0.1,
        "integers that order like IEEE 754 floats",
        FUSED,
        fused=True,
    ),
    StatisticRow("counts", "zeros, NaN and infinities", SIDES, COUNTS, "exact", 0.1, "IEEE 754-2019", FUSED, fused=True),
    StatisticRow(
        "agreement",
        "changed elements, sign flips, dot product, squares, largest change and where",
        (View.PAIR,),
        AGREEMENT,
        "counts and place exact, sums 1e-6 relative",
        0.3,
        "definitions of the record `tensor`",
        FUSED,
        fused=True,
    ),
    StatisticRow(
        "key_histogram",
        "counts by code of at most 16 bits, else by the top half of the float32",
        SIDES,
        ("keys", "counts"),
        "exact for codes of at most 16 bits, else within 2^-7 relative",
        0.4,
        "a bfloat16 has 65,536 values: counting them is the exact distribution",
        FUSED,
        fused=True,
    ),
    StatisticRow(
        "row_sums",
        "squares, dot product, largest magnitude and zeros of every row",
        (View.PAIR,),
        ("rows",),
        "float64 sums; counts and maxima exact",
        1.0,
        "per-channel error and scales, scale-invariant residuals",
        "diffai_stream.statistics.row_sums:RowSums",
    ),
    StatisticRow(
        "delta_rows",
        "singular values of 64 seeded rows of the change of a matrix",
        (View.PAIR,),
        ("singular_values", "rank"),
        "of those rows, to the precision of float32",
        0.1,
        "Eckart & Young 1936; rows by the seeded sample of the standard library",
        "diffai_stream.statistics.delta_rows:DeltaRows",
    ),
    StatisticRow(
        "row_samples",
        "1,024 seeded rows of both sides of a matrix",
        (View.PAIR,),
        ("old", "new"),
        "rounded to float32",
        0.1,
        "the seeded sample of the standard library",
        "diffai_stream.statistics.row_samples:RowSamples",
    ),
    StatisticRow(
        "zero_patterns",
        "groups of four with two zeros or more, runs of 32 zeros",
        (View.PAIR,),
        ("groups", "runs", "group_count", "run_count"),
        "exact counts",
        0.3,
        "2:4 sparsity of tensor cores, Mishra et al. 2021",
        "diffai_stream.statistics.zero_patterns:ZeroPatterns",
    ),
    StatisticRow(
        "head_grams",
        "products of the rows of each attention head, within a side and across",
        (View.PAIR,),
        ("old", "new", "cross"),
        "float32 products, float64 sums",
        5.0,
        "‖AᵀB‖_F² = ⟨AAᵀ, BBᵀ⟩",
        "diffai_stream.statistics.head_grams:HeadGrams",
    ),
    StatisticRow(
        "column_sums",
        "squares and dot product of every column",
        (View.PAIR,),
        ("columns",),
        "float64 sums",
        0.6,
        "the residual after the best scale per column, for weights rescaled by AWQ or SmoothQuant",
        "diffai_stream.statistics.column_sums:ColumnSums",
    ),
    StatisticRow(
        "sketch",
        "count-sketch, from which the angle to any other tensor of the shape is told",
        SIDES,
        ("sketch", "is_exact"),
        "cosines within sqrt((1 + c^2)/4096); exact up to 4,096 elements",
        0.5,
        "Charikar, Chen & Farach-Colton 2002; splitmix64, Steele, Lea & Flood 2014",
        "diffai_stream.statistics.sketch:Sketch",
    ),
    StatisticRow(
        "delta_spectrum",
        "largest singular values of the change of a matrix, and the sum of the fourth powers of all",
        (View.PAIR,),
        ("squares", "fourth"),
        "never above the true values, exact to 1e-6 for changes of rank 64 or less; the sum within a few percent",
        8.0,
        "one-pass Nystrom sketch, Tropp, Yurtsever, Udell & Cevher 2017",
        "diffai_stream.statistics.delta_spectrum:DeltaSpectrum",
    ),
    StatisticRow(
        "task_vectors",
        "products, overlaps and conflicts of sign of two changes of a common base",
        (View.PAIR,),
        ("sums",),
        "float64 sums, exact counts; the largest fifth leaf by leaf",
        25.0,
        "TIES, Yadav et al. 2023; DARE, Yu et al. 2024",
        "diffai_stream.statistics.task_vectors:TaskVectors",
    ),
    StatisticRow(
        "stored_codes",
        "entropy and saturation of quantized codes, range of their scales, scales that are not finite",
        (View.OLD, View.NEW),
        (
            *("code_entropy_bits", "saturation_ratio", "scale_count", "nonfinite_scales", "zero_scales"),
            *("smallest_scale", "largest_scale"),
        ),
        "exact counts",
        0.2,
        "codes are counted as they are stored, not decoded",
        "diffai_stream.statistics.stored_codes:StoredCodes",
    ),
    StatisticRow(
        "ulp",
        "distance in units in the last place",
        (View.PAIR,),
        ("ulp_p50", "ulp_p99", "ulp_max"),
        "exact below 256, then within 2^-7 relative; the maximum exact",
        4.0,
        "Bruce Dawson, Comparing floating point numbers",
        "diffai_stream.statistics.ulp:UlpDistance",
    ),
    StatisticRow(
        "content_hash",
        "hash of encoding, shape and bytes",
        (View.OLD, View.NEW),
        ("content_hash",),
        "exact but for collisions, 2^-64 for two tensors by accident",
        0.2,
        "XXH3-128, https://xxhash.com",
        "diffai_stream.statistics.content_hash:ContentHash",
    ),
    StatisticRow(
        "pattern_counts",
        "how often each pattern occurs on a side, from 2^22 elements on",
        (View.OLD, View.NEW),
        ("keys", "counts"),
        "exact",
        0.0,
        "counted by the scan",
        "diffai_stream.statistics.pattern_counts:PatternCounts",
    ),
    StatisticRow(
        "row_norms",
        "norm of each row of at least 4,096 elements",
        (View.OLD, View.NEW),
        ("row_norms",),
        "float32",
        0.5,
        "sums of squares of rows",
        "diffai_stream.statistics.row_norms:RowNorms",
    ),
    StatisticRow(
        "casts",
        "pairs that rounding or truncation of the old value explains",
        (View.PAIR,),
        (
            *("cast", "old_is_bf16", "new_is_bf16", "n_count", "finite_count", "equal_count", "rne_count", "truncated_count"),
            *("overflow_count", "saturated_count", "flushed_count", "subnormal_count"),
        ),
        "exact",
        3.0,
        "IEEE 754-2019, 4.3 and 7.4; OCP 8-bit floating point specification 1.0",
        "diffai_stream.statistics.casts:CastCounts",
    ),
)


def _refused(row: StatisticRow) -> str | None:
    return "only the scan itself fills fused statistics" if row.fused else None


STATISTICS: Catalogue[StatisticRow] = Catalogue("statistics", StatisticRow, _ROWS, _refused)
