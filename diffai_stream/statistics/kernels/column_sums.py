"""Sums down the columns of a run of leaves: squares and products of a pair, in float64, one row after the other.

Columns go in strips that stay in the first-level cache with all their sums. An element that is not finite on one side
counts as 0 on both.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, number, part, vector

STRIP = 512
f4, f8 = np.float32, np.float64


@part
def add_row(x, y, old, new, dot):
    """old += x², new += y², dot += x·y, element by element."""
    for i in range(x.size):
        a, b = np.float64(x[i]), np.float64(y[i])
        is_finite = (a - a) + (b - b) == 0.0  # NaN for NaN and infinities
        a, b = a if is_finite else 0.0, b if is_finite else 0.0
        old[i] += a * a
        new[i] += b * b
        dot[i] += a * b


@part
def sum_columns(x, y, columns, rows, out):
    """out[leaf, 3 * columns] of leaves of `rows` rows, the last perhaps of fewer."""
    for leaf in range(out.shape[0]):
        sums = out[leaf]
        sums[:] = 0.0
        first = leaf * rows * columns
        count = min(rows, (x.size - first) // columns)
        for start in range(0, columns, STRIP):
            n = min(STRIP, columns - start)
            old, new = sums[start : start + n], sums[columns + start : columns + start + n]
            dot = sums[2 * columns + start : 2 * columns + start + n]
            for row in range(count):
                at = first + row * columns + start
                add_row(x[at : at + n], y[at : at + n], old, new, dot)


def sum_columns32(b):
    """sum_columns of float32: x, y, columns, rows, out."""
    sum_columns(vector(b, 0, f4), vector(b, 1, f4), number(b, 2), number(b, 3), matrix(b, 4, f8))


def sum_columns64(b):
    """sum_columns of float64: x, y, columns, rows, out."""
    sum_columns(vector(b, 0, f8), vector(b, 1, f8), number(b, 2), number(b, 3), matrix(b, 4, f8))
