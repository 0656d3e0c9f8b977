"""The entry points of counting pairs of 8-bit codes, for `native.py` to compile: each takes its arguments out of the block."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, number, real, vector
from diffai_stream.statistics.kernels import joint

f4, f8, i8, u1, u2, u4 = np.float32, np.float64, np.int64, np.uint8, np.uint16, np.uint32


def scan_pairs(b):
    """scan_pairs: segments, rows, both sides' bytes and values, same encoding, five buffers, keys, counts, ends."""
    sides = vector(b, 2, u1), vector(b, 3, u1), vector(b, 4, f4), vector(b, 5, f4), number(b, 6) != 0
    work = vector(b, 7, u4), vector(b, 8, u4), vector(b, 9, u2), vector(b, 10, u1), vector(b, 11, u2)
    runs = vector(b, 12, u2), vector(b, 13, i8), matrix(b, 14, i8)
    joint.scan_pairs(matrix(b, 0, i8), matrix(b, 1, f8), *sides, work, *runs)


def finish_pairs(b):
    """finish_pairs: ends, keys, counts, values of both sides, tolerances, rows, tables, orders, runs, their ends."""
    inputs = matrix(b, 0, i8), vector(b, 1, u2), vector(b, 2, i8), vector(b, 3, f8), vector(b, 4, f8)
    tolerances = real(b, 5), real(b, 6)
    dense = vector(b, 8, i8), vector(b, 9, i8), vector(b, 10, i8)
    orders = vector(b, 11, u2), vector(b, 12, u2), vector(b, 13, u2)
    old, new = (vector(b, 14, u2), vector(b, 15, i8)), (vector(b, 16, u2), vector(b, 17, i8))
    out = (*old, *new, vector(b, 18, u2), vector(b, 19, i8))
    joint.finish_pairs(*inputs, tolerances, matrix(b, 7, f8), dense, orders, out, matrix(b, 20, i8))
