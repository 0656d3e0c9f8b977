"""The analysis: a tensor whose elements were all multiplied by one number."""

from __future__ import annotations

from typing import Any

from diffai_example.ratio_range import RatioRange
from diffai_stream.analyses.base import Finding, PlacedFindings, Table
from diffai_stream.options import Options

LARGEST_SPREAD = 0.05  # bfloat16 rounds a quotient by up to 0.8 %


def needs(pair: Any, options: Options) -> tuple[RatioRange, ...]:
    """The range of quotients, where there are two sides of one shape."""
    return (RatioRange(),) if pair.status == "paired" else ()


def tensor(table: Table, options: Options) -> PlacedFindings:
    """The tensors that were scaled; those that were not, or did not change, have no record."""
    for place, evidence in enumerate(table.evidence):
        columns = evidence.extras.get(RatioRange())
        if columns is None or columns["ratio_min"] is None:
            continue
        low, high = columns["ratio_min"], columns["ratio_max"]
        factor = (low + high) / 2
        if factor in (0, 1) or high - low > LARGEST_SPREAD * abs(factor):
            continue
        fields = {"factor": factor, "spread": (high - low) / abs(factor)}
        yield place, Finding("tensor", evidence.pair.name, "measured", fields)
