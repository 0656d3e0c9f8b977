"""Distances between floats in units in the last place, counted by the keys of a logarithmic histogram."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import number, part, vector
from diffai_stream.statistics.layout import ULP_FIRST_KEY

u32, u64, i64 = np.uint32, np.uint64, np.int64


@part
def ordered(magnitude, sign):
    """The integer that orders like the float: the magnitude, negated where `sign` is 1; no branch on random signs."""
    return (magnitude ^ -sign) + sign


@part
def place_of(distance):
    """Where a distance is counted: 0, or by the top half of its float32, 2^-7 wide relatively."""
    fits = i64(distance) >= 0  # a signed conversion is one instruction
    value = np.float32(i64(distance)) if fits else np.float32(i64(distance >> u64(1))) * np.float32(2)
    key = i64(u32(np.float32(value).view(np.uint32) >> u32(16)))
    return max(key - i64(ULP_FIRST_KEY - 1), i64(0))


@part
def count_distances(a, b, bits, infinity, counts):
    """Count the distances of two arrays of sign-magnitude codes of `bits` bits; returns the largest.

    `infinity` is the largest magnitude that is a number: what lies above is NaN, and pairs with it are left out.
    """
    top, shift = u64(0), u64(bits - 1)
    mask = (u64(1) << shift) - u64(1)
    for i in range(a.size):
        x, y = u64(a[i]), u64(b[i])
        p, q = i64(x & mask), i64(y & mask)
        if max(p, q) > infinity:
            continue
        p, q = ordered(p, i64(x >> shift)), ordered(q, i64(y >> shift))
        distance = u64(max(p, q)) - u64(min(p, q))  # unsigned: it may be above 2^63
        top = max(top, distance)
        counts[place_of(distance)] += 1
    return top


def count_distances16(b):
    """count_distances of 16-bit codes: a, b, bits, infinity, counts, largest[1]."""
    codes = vector(b, 0, np.uint16), vector(b, 1, np.uint16)
    vector(b, 5, u64)[0] = count_distances(*codes, number(b, 2), number(b, 3), vector(b, 4, i64))


def count_distances32(b):
    """count_distances of 32-bit codes: a, b, bits, infinity, counts, largest[1]."""
    codes = vector(b, 0, np.uint32), vector(b, 1, np.uint32)
    vector(b, 5, u64)[0] = count_distances(*codes, number(b, 2), number(b, 3), vector(b, 4, i64))


def count_distances64(b):
    """count_distances of 64-bit codes: a, b, bits, infinity, counts, largest[1]."""
    codes = vector(b, 0, np.uint64), vector(b, 1, np.uint64)
    vector(b, 5, u64)[0] = count_distances(*codes, number(b, 2), number(b, 3), vector(b, 4, i64))
