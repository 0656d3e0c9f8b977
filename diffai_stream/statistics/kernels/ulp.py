"""Distances between floats in units in the last place, counted by the keys of a logarithmic histogram."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import kernel

u32, u64, i64 = np.uint32, np.uint64, np.int64

FIRST_KEY = 0x3F80  # the key of a distance of 1; 0 has a place of its own before it
ULP_KEYS = 0x5F80 - FIRST_KEY + 2  # up to a distance of 2^64


@kernel
def count_distances(a, b, bits, infinity, counts):
    """Count the distances of two arrays of sign-magnitude codes of `bits` bits; returns the largest.

    `infinity` is the largest magnitude that is a number: what lies above is NaN, and pairs with it are left out.
    """
    sign, top = u64(1) << u64(bits - 1), u64(0)
    for i in range(a.size):
        x, y = u64(a[i]), u64(b[i])
        p, q = x & (sign - u64(1)), y & (sign - u64(1))
        if p > infinity or q > infinity:
            continue
        distance = p + q
        if (x & sign) == (y & sign):
            distance = p - q if p > q else q - p
        top = max(top, distance)
        if distance == u64(0):
            counts[0] += 1
        else:
            counts[1 + i64(np.float32(distance).view(np.uint32) >> u32(16)) - FIRST_KEY] += 1
    return top
