"""How a narrower copy was made: exactly, by rounding to nearest even, by cutting bits off, or not by a cast at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import frexp, inf, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffai_stream.encodings.base import DecodeKind, Encoding
from diffai_stream.native import Entry
from diffai_stream.statistics.base import Keyed, Statistic, Tile, same_type
from diffai_stream.statistics.layout import View

_MODULE = "diffai_stream.statistics.kernels.casts"
round_values = Entry(_MODULE, "round_values64")
count_casts32, count_casts64 = Entry(_MODULE, "count_casts32"), Entry(_MODULE, "count_casts64")
or_words = Entry(_MODULE, "or_words")

UNSIGNED_SCALE = "F8_E8M0"  # powers of two without sign or zero: nothing is cast to it element by element


class CastField(IntEnum):
    """Counts of a narrowing pair; those after FINITE, but for EQUAL, are of elements whose old value is finite."""

    N = 0
    FINITE = 1
    EQUAL = 2  # new is old, NaN equal to NaN
    RNE = 3  # new is old rounded to nearest even; beyond the largest value Inf, NaN and that value all count
    TRUNCATED = 4  # new is old rounded toward zero
    OVERFLOW = 5  # new is infinite or NaN
    SATURATED = 6  # new is the largest value where old rounds beyond it
    FLUSHED = 7  # new is 0 where old does not round to 0
    SUBNORMAL = 8  # new is below the smallest normal number


class FloatGrid(NamedTuple):
    """The values of a float encoding: exponent of its smallest normal number, mantissa bits, largest value, infinity or not."""

    min_exponent: int
    mantissa_bits: int
    max_finite: float
    has_infinity: bool


@lru_cache(maxsize=32)
def grid_of(encoding: Encoding) -> FloatGrid:
    """The grid of a float encoding, read from the values of small codes and from IEEE 754 otherwise."""
    mantissa = encoding.mantissa_bits
    if encoding.kind == DecodeKind.CODE8:
        table = encoding.table()
        smallest = frexp(float(table[table > 0].min()))[1] - 1  # a subnormal step, 2^(min_exponent - mantissa)
        return FloatGrid(smallest + mantissa, mantissa, encoding.max_finite, bool(np.isinf(table).any()))
    return FloatGrid(2 - (1 << (encoding.exponent_bits - 1)), mantissa, encoding.max_finite, True)


def rounded(values: ArrayLike, grid: FloatGrid, toward_zero: bool = False, saturating: bool = False) -> NDArray[np.float64]:
    """Values on the grid, to nearest even or toward zero, as float64[n].

    What rounds to nearest beyond the largest value becomes that value when `saturating`, else infinity, else NaN where the
    encoding has no infinity; toward zero it always becomes the largest value (IEEE 754-2019, 7.4).
    """
    flat = np.ascontiguousarray(values, np.float64).reshape(-1)
    out = np.empty(flat.size)
    overflow = grid.max_finite if saturating else inf if grid.has_infinity else nan
    round_values(flat, grid.min_exponent, grid.mantissa_bits, float(grid.max_finite), float(overflow), toward_zero, out)
    return out


class CastState(NamedTuple):
    """int64[9] counts (CastField), the OR of the low 16 bits of each float32 side (else -1), and whether new is narrower."""

    counts: NDArray[np.int64]
    low_bits: tuple[int, int]
    narrowing: bool | None


def is_narrowing(old: Encoding, new: Encoding) -> bool:
    """Whether both are floats and new has fewer bits."""
    floats = old.family == new.family == "float" and UNSIGNED_SCALE not in (old.name, new.name)
    return floats and new.bits // new.components < old.bits // old.components


def _low_bits(raw: NDArray[np.uint8], encoding: Encoding) -> int:
    if encoding.kind != DecodeKind.F32:
        return -1
    found = np.empty(1, np.int64)
    or_words(raw.view(np.uint32), found)
    return int(found[0]) & 0xFFFF


def _joined(left: int, right: int) -> int:
    """OR of two findings, -1 being none."""
    return max(left, right) if min(left, right) < 0 else left | right


@dataclass(frozen=True)
class CastCounts(Statistic[CastState]):
    """Counts of the pairs that a cast of old would explain, and whether float32 data holds bfloat16 values."""

    view: View = View.PAIR

    def empty(self) -> CastState:
        """No pair."""
        return CastState(np.zeros(len(CastField), np.int64), (-1, -1), None)

    def update(self, state: CastState, tile: Tile) -> CastState:
        """Count the pairs of a tile."""
        narrowing = is_narrowing(tile.encoding_old, tile.encoding_new)
        counts = np.zeros(len(CastField), np.int64)
        if narrowing:
            grid = grid_of(tile.encoding_new)
            old, new = same_type(tile)
            count_casts = count_casts32 if old.dtype == np.float32 else count_casts64
            count_casts(old, new, grid.min_exponent, grid.mantissa_bits, float(grid.max_finite), counts)
        low = (_low_bits(tile.raw_old, tile.encoding_old), _low_bits(tile.raw_new, tile.encoding_new))
        return self.merge(state, CastState(counts, low, narrowing))

    def of_pairs(self, pairs: Keyed, encodings: tuple[Encoding, Encoding]) -> CastState | None:
        """Nothing to count where new is no narrower float: bytes have no low half either."""
        return None if is_narrowing(*encodings) else CastState(np.zeros(len(CastField), np.int64), (-1, -1), False)

    def merge(self, left: CastState, right: CastState) -> CastState:
        """Counts add up, bits are or-ed."""
        low = (_joined(left.low_bits[0], right.low_bits[0]), _joined(left.low_bits[1], right.low_bits[1]))
        return CastState(left.counts + right.counts, low, right.narrowing if left.narrowing is None else left.narrowing)

    def finalize(self, state: CastState) -> dict[str, Any]:
        """`cast`, `old_is_bf16`, `new_is_bf16`, and a count for every CastField.

        `cast` is exact, rne, truncated or none, and None unless new is a narrower float; `_is_bf16` tells whether a float32
        side holds nothing but bfloat16 values, None for other encodings.
        """
        columns: dict[str, Any] = {f"{field.name.lower()}_count": int(state.counts[field]) for field in CastField}
        old, new = (None if bits < 0 else bits == 0 for bits in state.low_bits)
        return {"cast": verdict(state.counts) if state.narrowing else None, "old_is_bf16": old, "new_is_bf16": new, **columns}


def verdict(counts: NDArray[np.int64]) -> str | None:
    """The simplest cast that explains every pair; None when there is no pair."""
    n, finite = counts[CastField.N], counts[CastField.FINITE]
    if n == 0:
        return None
    if counts[CastField.EQUAL] == n:
        return "exact"
    if counts[CastField.RNE] == finite:
        return "rne"
    return "truncated" if counts[CastField.TRUNCATED] == finite else "none"
