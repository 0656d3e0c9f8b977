"""Sums over pieces of rows: squares, products, largest magnitudes and zeros of a pair, in float64.

Sums go by explicit lanes, as in `blocks.py`, so that every CPU gives the same bits. A piece with NaN or infinities is
summed again element by element, over the elements that are finite on both sides.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import kernel, part
from diffai_stream.statistics.kernels.blocks import count_zeros, fold, value_range

LANES = 16
STEP = 4 * LANES  # fewer lanes are unrolled by the compiler before it can turn them into vectors: three times slower
WIDTH = 9
N, OLD2, NEW2, DELTA2, DOT, OLD_MAX, NEW_MAX, OLD_ZEROS, NEW_ZEROS = range(WIDTH)


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
def sum_lanes(x, y, lanes, row):
    """The four sums of whole steps, added to `row`; differences and products are taken in float64."""
    lanes[:] = 0.0
    for k in range(0, x.size, STEP):
        a, b = x[k : k + STEP], y[k : k + STEP]
        for i in range(LANES):
            a0, a1, a2, a3 = np.float64(a[i]), np.float64(a[i + 16]), np.float64(a[i + 32]), np.float64(a[i + 48])
            b0, b1, b2, b3 = np.float64(b[i]), np.float64(b[i + 16]), np.float64(b[i + 32]), np.float64(b[i + 48])
            d0, d1, d2, d3 = b0 - a0, b1 - a1, b2 - a2, b3 - a3
            lanes[i] += (a0 * a0 + a1 * a1) + (a2 * a2 + a3 * a3)
            lanes[16 + i] += (b0 * b0 + b1 * b1) + (b2 * b2 + b3 * b3)
            lanes[32 + i] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
            lanes[48 + i] += (a0 * b0 + a1 * b1) + (a2 * b2 + a3 * b3)
    for s in range(4):
        row[OLD2 + s] += fold(lanes, s * LANES, LANES)


@part
def add_magnitudes(x, row, top, zeros):
    """Take the largest |x| and the number of ±0 of finite elements into two columns of `row`."""
    low, high = value_range(x, x.size)
    row[top] = max(row[top], max(abs(low), abs(high)))
    row[zeros] += count_zeros(x, x.size)


@part
def sum_piece(x, y, start, stop, lanes, row):
    """row[0:9] of one piece: whole steps, then the rest; sum_finite alone when anything is not finite."""
    whole = start + (stop - start) // STEP * STEP
    sum_finite(x, y, whole, stop, row)
    if whole == start:
        return
    a, b = x[start:whole], y[start:whole]
    sum_lanes(a, b, lanes, row)
    if not np.isfinite(row[OLD2] + row[NEW2] + row[DELTA2]):
        sum_finite(x, y, start, stop, row)
        return
    add_magnitudes(a, row, OLD_MAX, OLD_ZEROS)
    add_magnitudes(b, row, NEW_MAX, NEW_ZEROS)
    row[N] += whole - start


@kernel
def sum_pieces(x, y, cuts, out):
    """out[p] of the pieces [cuts[p], cuts[p + 1]) of a tile; x and y have one type, float32 or float64."""
    lanes = np.empty(4 * LANES)
    for p in range(out.shape[0]):
        sum_piece(x, y, cuts[p], cuts[p + 1], lanes, out[p])
