"""Sums over pieces of rows: squares, products, largest magnitudes and zeros of a pair, in float64.

Sums go by explicit lanes, as in `loops.py`, so that every CPU gives the same bits. A piece with NaN or infinities is
summed again element by element, over the elements that are finite on both sides.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, part, vector
from diffai_stream.vectors import converted, larger, largest, load, splat, store, totals, viewed, where

f32, f64, i64 = np.float32, np.float64, np.int64

LANES = 8
N, OLD2, NEW2, DELTA2, DOT, OLD_MAX, NEW_MAX, OLD_ZEROS, NEW_ZEROS = range(9)
MAGNITUDE = i64(0x7FFFFFFFFFFFFFFF)  # all bits of a float64 but its sign


@part
def sum_finite(x, y, start, stop, row):
    """row[0:9] of the elements [start, stop), whatever their values: one at a time."""
    n, a2, b2, d2, ab, top_a, top_b, zeros_a, zeros_b = 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0
    for i in range(start, stop):
        a, b = np.float64(x[i]), np.float64(y[i])
        if abs(a) < np.inf and abs(b) < np.inf:
            n += 1
            a2 += a * a
            b2 += b * b
            d2 += (b - a) * (b - a)
            ab += a * b
            top_a, top_b = max(top_a, abs(a)), max(top_b, abs(b))
            zeros_a += a == 0
            zeros_b += b == 0
    row[N], row[OLD2], row[NEW2], row[DELTA2], row[DOT] = n, a2, b2, d2, ab
    row[OLD_MAX], row[NEW_MAX], row[OLD_ZEROS], row[NEW_ZEROS] = top_a, top_b, zeros_a, zeros_b


@part
def sum_lanes(x, y, start, stop, sums, row):
    """Add the sums, largest magnitudes and zeros of whole vectors to `row`; everything is computed in float64."""
    zero, one = splat(0.0, LANES), splat(1.0, LANES)
    old2 = new2 = delta2 = dot = zeros_a = zeros_b = zero
    top_a = top_b = splat(i64(0), LANES)
    for k in range(start, stop, LANES):
        u, v = converted(load(x, k, LANES), f64), converted(load(y, k, LANES), f64)
        e = v - u
        old2, new2, delta2, dot = old2 + u * u, new2 + v * v, delta2 + e * e, dot + u * v
        zeros_a, zeros_b = zeros_a + where(u == 0, one, zero), zeros_b + where(v == 0, one, zero)
        top_a = larger(top_a, viewed(u, i64) & MAGNITUDE)  # magnitudes order like their bits
        top_b = larger(top_b, viewed(v, i64) & MAGNITUDE)
    store(sums, 0, totals((old2, new2, delta2, dot, zeros_a, zeros_b, zero, zero)))
    for s in range(4):
        row[OLD2 + s] += sums[s]
    row[OLD_MAX] = max(row[OLD_MAX], i64(largest(top_a)).view(f64))
    row[NEW_MAX] = max(row[NEW_MAX], i64(largest(top_b)).view(f64))
    row[OLD_ZEROS] += sums[4]
    row[NEW_ZEROS] += sums[5]


@part
def sum_piece(x, y, start, stop, sums, row):
    """row[0:9] of one piece: whole vectors, then the rest; sum_finite alone when anything is not finite."""
    whole = start + (stop - start) // LANES * LANES
    sum_finite(x, y, whole, stop, row)
    if whole == start:
        return
    sum_lanes(x, y, start, whole, sums, row)
    row[N] += whole - start
    if not np.isfinite(row[OLD2] + row[NEW2] + row[DELTA2]):
        sum_finite(x, y, start, stop, row)


@part
def sum_pieces(x, y, cuts, sums, out):
    """out[p] of the pieces [cuts[p], cuts[p + 1]) of a tile; `sums` is a buffer of LANES."""
    for p in range(out.shape[0]):
        sum_piece(x, y, cuts[p], cuts[p + 1], sums, out[p])


def sum_pieces32(b):
    """sum_pieces of float32: x, y, cuts, sums, out."""
    sum_pieces(vector(b, 0, f32), vector(b, 1, f32), vector(b, 2, i64), vector(b, 3, f64), matrix(b, 4, f64))


def sum_pieces64(b):
    """sum_pieces of float64: x, y, cuts, sums, out."""
    sum_pieces(vector(b, 0, f64), vector(b, 1, f64), vector(b, 2, i64), vector(b, 3, f64), matrix(b, 4, f64))
