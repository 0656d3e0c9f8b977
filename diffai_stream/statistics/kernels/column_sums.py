"""Sums down the columns of a run of leaves: squares and products of a pair, in float64, one row after the other.

Eight columns of four rows at a time: their sums are fetched once for the four. An element that is not finite on one side
counts as 0 on both. Leaves are added along the complete binary tree as they are done: only those that wait for their sibling
are kept.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, number, part, vector
from diffai_stream.statistics.kernels.lanes import eight, one
from diffai_stream.statistics.kernels.siblings import add_siblings
from diffai_stream.vectors import converted, fused, load, splat, store, where

LANES = 8
STRIP, ROWS = 512, 4  # columns whose sums stay in the first-level cache, rows that are read side by side
u1, f4, f8 = np.uint8, np.float32, np.float64


@part
def add_eight(a, b, x, y, kinds, columns, rows, first, column, sums):
    """sums[column + 0:8], and those of the two other figures, with `rows` more rows; `first` is the first element of these."""
    zero = splat(0.0, LANES)
    old, new, dot = load(sums, column, LANES), load(sums, columns + column, LANES), load(sums, 2 * columns + column, LANES)
    for row in range(rows):
        k = first + row * columns + column
        u, v = converted(eight(a, x, k, kinds[0]), f8), converted(eight(b, y, k, kinds[1]), f8)
        is_finite = (u - u) + (v - v) == 0.0  # NaN for NaN and infinities
        u, v = where(is_finite, u, zero), where(is_finite, v, zero)
        old, new, dot = fused(u, u, old), fused(v, v, new), fused(u, v, dot)
    store(sums, column, old)
    store(sums, columns + column, new)
    store(sums, 2 * columns + column, dot)


@part
def sum_one(a, b, x, y, kinds, columns, rows, first, column, sums):
    """The same of one column."""
    old, new, dot = 0.0, 0.0, 0.0
    for row in range(rows):
        k = first + row * columns + column
        u, v = f8(one(a, x, k, kinds[0])), f8(one(b, y, k, kinds[1]))
        if (u - u) + (v - v) == 0.0:
            old, new, dot = old + u * u, new + v * v, dot + u * v
    sums[column], sums[columns + column], sums[2 * columns + column] = old, new, dot


@part
def sum_leaf(a, b, x, y, kinds, columns, rows, first, sums):
    """sums[3 * columns] of one leaf."""
    sums[:] = 0.0
    whole = columns // LANES * LANES
    for start in range(0, whole, STRIP):
        for row in range(0, rows, ROWS):
            for column in range(start, min(start + STRIP, whole), LANES):
                add_eight(a, b, x, y, kinds, columns, min(ROWS, rows - row), first + row * columns, column, sums)
    for column in range(whole, columns):
        sum_one(a, b, x, y, kinds, columns, rows, first, column, sums)


@part
def sum_columns(a, b, x, y, kinds, columns, rows, first, stop, stack):
    """stack[0] of the 2^k leaves, `rows` rows each or fewer, of elements [first, stop); stack[k + 1, 3 * columns]."""
    top = leaf = 0
    while first < stop:
        count = min(rows, (stop - first) // columns)
        sum_leaf(a, b, x, y, kinds, columns, count, first, stack[top])
        first += count * columns
        leaf += 1
        top = add_siblings(stack, top, leaf) + 1


def sum_columns32(b):
    """sum_columns of float32: bytes, tile and kind of old and of new; columns, rows, first, stop, stack."""
    raw, tiles = (vector(b, 0, u1), vector(b, 3, u1)), (vector(b, 1, f4), vector(b, 4, f4))
    kinds, numbers = (number(b, 2), number(b, 5)), (number(b, 6), number(b, 7), number(b, 8), number(b, 9))
    sum_columns(raw[0], raw[1], tiles[0], tiles[1], kinds, numbers[0], numbers[1], numbers[2], numbers[3], matrix(b, 10, f8))


def sum_columns64(b):
    """sum_columns of float64."""
    raw, tiles = (vector(b, 0, u1), vector(b, 3, u1)), (vector(b, 1, f8), vector(b, 4, f8))
    kinds, numbers = (number(b, 2), number(b, 5)), (number(b, 6), number(b, 7), number(b, 8), number(b, 9))
    sum_columns(raw[0], raw[1], tiles[0], tiles[1], kinds, numbers[0], numbers[1], numbers[2], numbers[3], matrix(b, 10, f8))
