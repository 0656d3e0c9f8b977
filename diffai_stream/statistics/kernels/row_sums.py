"""Sums over pieces of rows: squares, products, largest magnitudes and zeros of a pair, in float64.

Sums go by explicit lanes, as in `loops.py`, so that every CPU gives the same bits. Elements of 16 bits are decoded on the
way. A piece with NaN or infinities is summed again element by element, over those that are finite on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffai_stream.jit import inlined, matrix, number, overload, part, types, vector
from diffai_stream.statistics.kernels.lanes import eight, one
from diffai_stream.vectors import converted, fused, larger, largest, splat, store, totals, viewed, where

u1, i32, i64, f32, f64 = np.uint8, np.int32, np.int64, np.float32, np.float64

LANES = 8
N, OLD2, NEW2, DELTA2, DOT, OLD_MAX, NEW_MAX, OLD_ZEROS, NEW_ZEROS = range(9)


@part
def sum_finite(a, b, x, y, kinds, start, stop, row):
    """row[0:9] of the elements [start, stop), whatever their values: one at a time."""
    n, u2, v2, d2, uv, top_u, top_v, zeros_u, zeros_v = 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0
    for i in range(start, stop):
        u, v = np.float64(one(a, x, i, kinds[0])), np.float64(one(b, y, i, kinds[1]))
        if abs(u) < np.inf and abs(v) < np.inf:
            n += 1
            u2 += u * u
            v2 += v * v
            d2 += (v - u) * (v - u)
            uv += u * v
            top_u, top_v = max(top_u, abs(u)), max(top_v, abs(v))
            zeros_u += u == 0
            zeros_v += v == 0
    row[N], row[OLD2], row[NEW2], row[DELTA2], row[DOT] = n, u2, v2, d2, uv
    row[OLD_MAX], row[NEW_MAX], row[OLD_ZEROS], row[NEW_ZEROS] = top_u, top_v, zeros_u, zeros_v


def _lanes_over(dtype: Any, integer: Any) -> Callable:
    """The loop over whole vectors of a type; magnitudes and zeros are told in it, sums are float64."""
    magnitude = integer(np.iinfo(integer).max)

    @inlined
    def as_float(key):
        """The float that a magnitude stands for, as float64."""
        return f64(integer(key).view(dtype))

    @part
    def loop(a, b, x, y, kinds, start, stop, sums, row):
        zero, nothing, single = splat(0.0, LANES), splat(dtype(0), LANES), splat(dtype(1), LANES)
        old2 = new2 = delta2 = dot = zero
        zeros_u = zeros_v = nothing
        top_u = top_v = splat(integer(0), LANES)
        for k in range(start, stop, LANES):
            p, q = eight(a, x, k, kinds[0]), eight(b, y, k, kinds[1])
            zeros_u, zeros_v = zeros_u + where(p == 0, single, nothing), zeros_v + where(q == 0, single, nothing)
            top_u = larger(top_u, viewed(p, integer) & magnitude)  # magnitudes order like their bits
            top_v = larger(top_v, viewed(q, integer) & magnitude)
            u, v = converted(p, f64), converted(q, f64)
            e = v - u
            old2, new2, delta2, dot = fused(u, u, old2), fused(v, v, new2), fused(e, e, delta2), fused(u, v, dot)
        counts = converted(zeros_u, f64), converted(zeros_v, f64)
        store(sums, 0, totals((old2, new2, delta2, dot, counts[0], counts[1], zero, zero)))
        for s in range(4):
            row[OLD2 + s] += sums[s]
        row[OLD_MAX] = max(row[OLD_MAX], as_float(largest(top_u)))
        row[NEW_MAX] = max(row[NEW_MAX], as_float(largest(top_v)))
        row[OLD_ZEROS] += sums[4]
        row[NEW_ZEROS] += sums[5]

    return loop


_lanes32, _lanes64 = _lanes_over(f32, i32), _lanes_over(f64, i64)


def sum_lanes(a, b, x, y, kinds, start, stop, sums, row):
    """Add the sums, largest magnitudes and zeros of whole vectors to `row`: for use inside kernels."""
    raise TypeError("sum_lanes is for compiled kernels")


@overload(sum_lanes)
def _sum_lanes(a, b, x, y, kinds, start, stop, sums, row):
    loop = _lanes32 if x.dtype == types.float32 else _lanes64
    return lambda a, b, x, y, kinds, start, stop, sums, row: loop(a, b, x, y, kinds, start, stop, sums, row)


@part
def sum_piece(a, b, x, y, kinds, start, stop, sums, row):
    """row[0:9] of one piece: whole vectors, then the rest; sum_finite alone when anything is not finite."""
    whole = start + (stop - start) // LANES * LANES
    sum_finite(a, b, x, y, kinds, whole, stop, row)
    if whole == start:
        return
    sum_lanes(a, b, x, y, kinds, start, whole, sums, row)
    row[N] += whole - start
    if not np.isfinite(row[OLD2] + row[NEW2] + row[DELTA2]):
        sum_finite(a, b, x, y, kinds, start, stop, row)


@part
def sum_pieces(a, b, x, y, kinds, cuts, sums, out):
    """out[p] of the pieces [cuts[p], cuts[p + 1]) of a run of elements; `sums` is a buffer of LANES."""
    for p in range(out.shape[0]):
        sum_piece(a, b, x, y, kinds, cuts[p], cuts[p + 1], sums, out[p])


def sum_pieces32(b):
    """sum_pieces in float32: bytes, tile and kind of old and of new; cuts, sums, out."""
    raw, tiles = (vector(b, 0, u1), vector(b, 3, u1)), (vector(b, 1, f32), vector(b, 4, f32))
    kinds = number(b, 2), number(b, 5)
    sum_pieces(raw[0], raw[1], tiles[0], tiles[1], kinds, vector(b, 6, i64), vector(b, 7, f64), matrix(b, 8, f64))


def sum_pieces64(b):
    """sum_pieces in float64."""
    raw, tiles = (vector(b, 0, u1), vector(b, 3, u1)), (vector(b, 1, f64), vector(b, 4, f64))
    kinds = number(b, 2), number(b, 5)
    sum_pieces(raw[0], raw[1], tiles[0], tiles[1], kinds, vector(b, 6, i64), vector(b, 7, f64), matrix(b, 8, f64))
