"""Rounding to any smaller float, and counting which way of rounding explains a pair.

A grid is (exponent of the smallest normal number, mantissa bits, largest finite value): below the smallest normal number
its steps stay equal (subnormals), so every value is an integer times a power of two, and rounding is `rint` of that
integer, exact in float64 (IEEE 754-2019, 4.3).
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import number, part, real, vector

i64, f32, f64, u32 = np.int64, np.float32, np.float64, np.uint32

N, FINITE, EQUAL, RNE, TRUNCATED, OVERFLOW, SATURATED, FLUSHED, SUBNORMAL = range(9)


@part
def steps_of(x, min_exponent, mantissa_bits):
    """(|x| counted in steps of the grid, the step) for a finite x; both are exact."""
    exponent = ((np.float64(x).view(np.int64) >> i64(52)) & i64(0x7FF)) - i64(1023)
    shift = max(exponent, min_exponent) - mantissa_bits
    step = i64((shift + i64(1023)) << i64(52)).view(np.float64)
    inverse = i64((i64(1023) - shift) << i64(52)).view(np.float64)
    return abs(x) * inverse, step


@part
def nearest(steps):
    """Round a number below 2^51 to an integer, ties to even: adding 1.5·2^52 leaves no room for a fraction."""
    magic = 6755399441055744.0
    return (steps + magic) - magic


@part
def round_values(x, min_exponent, mantissa_bits, max_finite, overflow, toward_zero, out):
    """out[i] = x[i] on the grid; what rounds beyond max_finite becomes `overflow`, with its sign. Inf and NaN stay."""
    for i in range(x.size):
        value = np.float64(x[i])
        if not abs(value) < np.inf:
            out[i] = value
            continue
        steps, step = steps_of(value, min_exponent, mantissa_bits)
        magnitude = min(np.floor(steps) * step, max_finite) if toward_zero else nearest(steps) * step
        out[i] = np.copysign(overflow if magnitude > max_finite else magnitude, value)


@part
def count_casts(x, y, min_exponent, mantissa_bits, max_finite, counts):
    """Add to counts[0:9] what the pairs of x and y, a value of the grid, are; see casts.CastField.

    To round to nearest and to overflow may give an infinity, NaN or the largest finite value: casts differ in it.
    """
    smallest = 1.0 * 2.0 ** np.float64(min_exponent)
    finite, equal, rne, truncated, overflow, saturated, flushed, subnormal = 0, 0, 0, 0, 0, 0, 0, 0
    for i in range(x.size):
        old, new = np.float64(x[i]), np.float64(y[i])
        equal += (old == new) | ((old != old) & (new != new))
        if not abs(old) < np.inf:
            continue
        steps, step = steps_of(old, min_exponent, mantissa_bits)
        rounded, size = nearest(steps) * step, abs(new)
        same_sign = (new >= 0) if old >= 0 else (new <= 0)
        out_of_range, lost = rounded > max_finite, not size < np.inf
        capped = out_of_range & same_sign & (size == max_finite)
        finite += 1
        rne += ((size == rounded) & same_sign) | capped | (out_of_range & lost & (same_sign | (new != new)))
        truncated += same_sign & (size == min(np.floor(steps) * step, max_finite))
        overflow += lost
        saturated += capped
        flushed += (new == 0) & (rounded != 0)
        subnormal += (size > 0) & (size < smallest)
    counts[N] += x.size
    counts[FINITE] += finite
    counts[EQUAL] += equal
    counts[RNE] += rne
    counts[TRUNCATED] += truncated
    counts[OVERFLOW] += overflow
    counts[SATURATED] += saturated
    counts[FLUSHED] += flushed
    counts[SUBNORMAL] += subnormal


@part
def or_of(words):
    """OR of 32-bit words."""
    found = u32(0)
    for i in range(words.size):
        found = u32(found | words[i])
    return i64(found)


def round_values64(b):
    """round_values: x, min_exponent, mantissa_bits, max_finite, overflow, toward_zero, out."""
    grid = number(b, 1), number(b, 2), real(b, 3)
    round_values(vector(b, 0, f64), *grid, real(b, 4), number(b, 5) != 0, vector(b, 6, f64))


def count_casts32(b):
    """count_casts of float32: x, y, min_exponent, mantissa_bits, max_finite, counts."""
    count_casts(vector(b, 0, f32), vector(b, 1, f32), number(b, 2), number(b, 3), real(b, 4), vector(b, 5, i64))


def count_casts64(b):
    """count_casts of float64: x, y, min_exponent, mantissa_bits, max_finite, counts."""
    count_casts(vector(b, 0, f64), vector(b, 1, f64), number(b, 2), number(b, 3), real(b, 4), vector(b, 5, i64))


def or_words(b):
    """or_of: words, out[1]."""
    vector(b, 1, i64)[0] = or_of(vector(b, 0, u32))
