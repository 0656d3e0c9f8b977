"""The row of the statistic, in a module of its own: statistics need numpy, which the other rows do without."""

from __future__ import annotations

from diffai_stream.statistics.catalogue import StatisticRow
from diffai_stream.statistics.layout import View

STATISTIC = StatisticRow(
    "ratio_range",
    "smallest and largest quotient new / old",
    (View.PAIR,),
    ("ratio_min", "ratio_max"),
    "exact in float64",
    5.0,
    "extremes merge in any order",
    "diffai_example.ratio_range:RatioRange",
)
