"""Loops over one block of up to 2,048 elements that lies in the first-level cache.

Sums go by 16 or 32 explicit lanes, four or two elements a step: the compiler turns the inner loop into vector code
without being allowed to reorder anything, so every CPU gives the same bits. Buffers are float32 (fast road) or float64.
Constants are passed as i64(...): numba compiles a function anew for every literal integer it is called with.
Orders 1 to 4 of the central moments: Pebay, SAND2008-6212; a second pass around the block's mean, with the correction for
the rounding of that mean, is both faster and more exact than one pass of Welford's update.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import overload, part, prefetch, types

i32, i64, u8, u16, u32 = np.int32, np.int64, np.uint8, np.uint16, np.uint32

LANES = 32
N, MEAN, M2, M3, M4 = range(5)


@part
def fold(lanes, start, count):
    """Sum of lanes[start : start + count] in float64, by four chains: one alone would wait for each addition."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for i in range(start, start + count, 4):
        a += np.float64(lanes[i])
        b += np.float64(lanes[i + 1])
        c += np.float64(lanes[i + 2])
        d += np.float64(lanes[i + 3])
    return (a + b) + (c + d)


@part
def clear_lanes(lanes, count):
    """Zero the first lanes; a plain loop compiles faster than a slice assignment."""
    for i in range(count):
        lanes[i] = 0


@part
def fetch_ahead(raw):
    """Ask for the block after `raw`: it lies in another page, where hardware does not look ahead."""
    for at in range(raw.size, 2 * raw.size, 64):
        prefetch(raw, at)


@part
def pair_sums(x, y, d, n, lanes):
    """d = y - x, and lanes of x·y, x², y², d, |d| (16 lanes each); returns the five sums in float64."""
    clear_lanes(lanes, i64(80))
    whole = n - n % 64
    for k in range(0, whole, 64):
        a, b, c = x[k : k + 64], y[k : k + 64], d[k : k + 64]
        for i in range(16):
            a0, a1, a2, a3 = a[i], a[i + 16], a[i + 32], a[i + 48]
            b0, b1, b2, b3 = b[i], b[i + 16], b[i + 32], b[i + 48]
            d0, d1, d2, d3 = b0 - a0, b1 - a1, b2 - a2, b3 - a3
            c[i], c[i + 16], c[i + 32], c[i + 48] = d0, d1, d2, d3
            lanes[i] += (a0 * b0 + a1 * b1) + (a2 * b2 + a3 * b3)
            lanes[16 + i] += (a0 * a0 + a1 * a1) + (a2 * a2 + a3 * a3)
            lanes[32 + i] += (b0 * b0 + b1 * b1) + (b2 * b2 + b3 * b3)
            lanes[48 + i] += (d0 + d1) + (d2 + d3)
            lanes[64 + i] += (abs(d0) + abs(d1)) + (abs(d2) + abs(d3))
    for k in range(whole, n):
        i = k % 16
        d[k] = y[k] - x[k]
        lanes[i] += x[k] * y[k]
        lanes[16 + i] += x[k] * x[k]
        lanes[32 + i] += y[k] * y[k]
        lanes[48 + i] += d[k]
        lanes[64 + i] += abs(d[k])
    dot, x2 = fold(lanes, i64(0), i64(16)), fold(lanes, i64(16), i64(16))
    y2, total = fold(lanes, i64(32), i64(16)), fold(lanes, i64(48), i64(16))
    return dot, x2, y2, total, fold(lanes, i64(64), i64(16))


@part
def all_sums(x, y, d, n, lanes):
    """pair_sums with three more: the sums of x and of y, and of d². Moments to order 2 follow without a second pass."""
    clear_lanes(lanes, i64(128))
    whole = n - n % 64
    for k in range(0, whole, 64):
        a, b, c = x[k : k + 64], y[k : k + 64], d[k : k + 64]
        for i in range(16):
            a0, a1, a2, a3 = a[i], a[i + 16], a[i + 32], a[i + 48]
            b0, b1, b2, b3 = b[i], b[i + 16], b[i + 32], b[i + 48]
            d0, d1, d2, d3 = b0 - a0, b1 - a1, b2 - a2, b3 - a3
            c[i], c[i + 16], c[i + 32], c[i + 48] = d0, d1, d2, d3
            lanes[i] += (a0 * b0 + a1 * b1) + (a2 * b2 + a3 * b3)
            lanes[16 + i] += (a0 * a0 + a1 * a1) + (a2 * a2 + a3 * a3)
            lanes[32 + i] += (b0 * b0 + b1 * b1) + (b2 * b2 + b3 * b3)
            lanes[48 + i] += (d0 + d1) + (d2 + d3)
            lanes[64 + i] += (abs(d0) + abs(d1)) + (abs(d2) + abs(d3))
            lanes[80 + i] += (a0 + a1) + (a2 + a3)
            lanes[96 + i] += (b0 + b1) + (b2 + b3)
            lanes[112 + i] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    for k in range(whole, n):
        i = k % 16
        d[k] = y[k] - x[k]
        lanes[i] += x[k] * y[k]
        lanes[16 + i] += x[k] * x[k]
        lanes[32 + i] += y[k] * y[k]
        lanes[48 + i] += d[k]
        lanes[64 + i] += abs(d[k])
        lanes[80 + i] += x[k]
        lanes[96 + i] += y[k]
        lanes[112 + i] += d[k] * d[k]
    dot, x2 = fold(lanes, i64(0), i64(16)), fold(lanes, i64(16), i64(16))
    y2, total = fold(lanes, i64(32), i64(16)), fold(lanes, i64(48), i64(16))
    absolute, x1 = fold(lanes, i64(64), i64(16)), fold(lanes, i64(80), i64(16))
    return dot, x2, y2, total, absolute, x1, fold(lanes, i64(96), i64(16)), fold(lanes, i64(112), i64(16))


@part
def lean_moments(x, n, total, squares, lanes, out):
    """Moments to order 2 from a sum and a sum of squares; by a second pass where the mean would cancel half of them."""
    mean = total / n
    offset = n * mean * mean
    if offset > 0.5 * squares:
        central_moments(x, n, total, False, lanes, out)
        return
    out[N], out[MEAN], out[M2], out[M3], out[M4] = n, mean, squares - offset, 0.0, 0.0


@part
def side_sum(x, n, lanes):
    """Sum of the first n elements, in float64."""
    clear_lanes(lanes, i64(32))
    whole = n - n % 128
    for k in range(0, whole, 128):
        a = x[k : k + 128]
        for i in range(32):
            lanes[i] += (a[i] + a[i + 32]) + (a[i + 64] + a[i + 96])
    for k in range(whole, n):
        lanes[k % 32] += x[k]
    return fold(lanes, i64(0), i64(32))


@part
def side_squares(x, n, lanes):
    """Sum of squares of the first n elements, in float64."""
    clear_lanes(lanes, i64(32))
    whole = n - n % 64
    for k in range(0, whole, 64):
        a = x[k : k + 64]
        for i in range(32):
            lanes[i] += a[i] * a[i] + a[i + 32] * a[i + 32]
    for k in range(whole, n):
        lanes[k % 32] += x[k] * x[k]
    return fold(lanes, i64(0), i64(32))


@part
def second_moment(x, n, pivot, lanes):
    """Lanes of (x - pivot) and its square, 32 each."""
    clear_lanes(lanes, i64(128))
    whole = n - n % 64
    for k in range(0, whole, 64):
        a = x[k : k + 64]
        for i in range(32):
            e, f = a[i] - pivot, a[i + 32] - pivot
            lanes[i] += e + f
            lanes[32 + i] += e * e + f * f
    for k in range(whole, n):
        e = x[k] - pivot
        lanes[k % 32] += e
        lanes[32 + k % 32] += e * e


@part
def fourth_moment(x, n, pivot, lanes):
    """Lanes of (x - pivot) and its second, third and fourth power, 32 each."""
    clear_lanes(lanes, i64(128))
    whole = n - n % 64
    for k in range(0, whole, 64):
        a = x[k : k + 64]
        for i in range(32):
            e, f = a[i] - pivot, a[i + 32] - pivot
            e2, f2 = e * e, f * f
            lanes[i] += e + f
            lanes[32 + i] += e2 + f2
            lanes[64 + i] += e2 * e + f2 * f
            lanes[96 + i] += e2 * e2 + f2 * f2
    for k in range(whole, n):
        e = x[k] - pivot
        e2 = e * e
        lanes[k % 32] += e
        lanes[32 + k % 32] += e2
        lanes[64 + k % 32] += e2 * e
        lanes[96 + k % 32] += e2 * e2


@part
def central_moments(x, n, total, fourth, lanes, out):
    """out[0:5] = n, mean, m2, m3, m4 of x[:n], whose sum is `total`; without `fourth`, m3 and m4 stay 0."""
    lanes[0] = total / n
    pivot = lanes[0]  # the mean, rounded to the type of x
    if fourth:
        fourth_moment(x, n, pivot, lanes)
    else:
        second_moment(x, n, pivot, lanes)
    shift = fold(lanes, i64(0), i64(32)) / n
    s2, s3, s4 = fold(lanes, i64(32), i64(32)), 0.0, 0.0
    square = shift * shift
    out[N] = n
    out[MEAN] = np.float64(pivot) + shift
    out[M2] = max(s2 - n * square, 0.0)
    out[M3], out[M4] = 0.0, 0.0
    if fourth:
        s3, s4 = fold(lanes, i64(64), i64(32)), fold(lanes, i64(96), i64(32))
        out[M3] = s3 - 3 * shift * s2 + 2 * n * shift * square
        out[M4] = max(s4 - 4 * shift * s3 + 6 * square * s2 - 3 * n * square * square, 0.0)


@part
def merge_moments(into, at, other, start):
    """Merge other[start:start+5] into into[at:at+5] (Chan, Golub & LeVeque 1979; Pebay 2008, eq. 3.1); n = 0 is neutral."""
    nb = other[start + N]
    if nb == 0:
        return
    na = into[at + N]
    if na == 0:
        for i in range(5):
            into[at + i] = other[start + i]
        return
    n = na + nb
    delta = other[start + MEAN] - into[at + MEAN]
    ratio = delta / n
    a2, b2 = into[at + M2], other[start + M2]
    a3, b3 = into[at + M3], other[start + M3]
    term = delta * ratio * na * nb
    into[at + M4] += other[start + M4] + term * ratio * ratio * (na * na - na * nb + nb * nb)
    into[at + M4] += 6 * ratio * ratio * (na * na * b2 + nb * nb * a2) + 4 * ratio * (na * b3 - nb * a3)
    into[at + M3] += b3 + term * ratio * (na - nb) + 3 * ratio * (na * b2 - nb * a2)
    into[at + M2] += b2 + term
    into[at + MEAN] += ratio * nb
    into[at + N] = n


@part
def ordered_range32(bits, n):
    """Smallest and largest float32 of bits[:n] (an int32 view), as floats, through integers that order like them.

    NaN of either sign lies outside ±Inf in that order, so a block with NaN or Inf has an end that is not finite.
    """
    low, high = i32(0x7FFFFFFF), i32(-0x80000000)
    for i in range(n):
        b = bits[i]
        key = i32(b ^ i32(i32(b >> i32(31)) & i32(0x7FFFFFFF)))
        low, high = min(low, key), max(high, key)
    low = i32(low ^ i32(i32(low >> i32(31)) & i32(0x7FFFFFFF)))
    high = i32(high ^ i32(i32(high >> i32(31)) & i32(0x7FFFFFFF)))
    return np.float64(np.int32(low).view(np.float32)), np.float64(np.int32(high).view(np.float32))


@part
def ordered_range64(bits, n):
    """ordered_range32 for float64, over an int64 view."""
    mask = i64(0x7FFFFFFFFFFFFFFF)
    low, high = mask, ~mask
    for i in range(n):
        b = bits[i]
        key = b ^ ((b >> 63) & mask)
        low, high = min(low, key), max(high, key)
    low, high = low ^ ((low >> 63) & mask), high ^ ((high >> 63) & mask)
    return np.int64(low).view(np.float64), np.int64(high).view(np.float64)


def value_range(x, n):
    """(smallest, largest) of x[:n] as float64: for use inside kernels."""
    raise TypeError("value_range is for compiled kernels")


@overload(value_range)
def _value_range(x, n):
    if x.dtype == types.float32:
        return lambda x, n: ordered_range32(x.view(np.int32), n)
    return lambda x, n: ordered_range64(x.view(np.int64), n)


@part
def count_zeros(x, n):
    """How many of x[:n] are ±0."""
    count = u32(0)
    for i in range(n):
        count = u32(count + u32(x[i] == 0))
    return i64(count)


@part
def count_unequal(x, y, n):
    """How many x[i] != y[i] by value, for finite values."""
    count = u32(0)
    for i in range(n):
        count = u32(count + u32(x[i] != y[i]))
    return i64(count)


@part
def count_flips(x, y, n):
    """How many signs differ where neither is zero (the product itself could underflow)."""
    count = u32(0)
    for i in range(n):
        count = u32(count + u32(u32((x[i] < 0) & (y[i] > 0)) | u32((x[i] > 0) & (y[i] < 0))))
    return i64(count)


@part
def count_beyond(x, y, n, absolute, relative):
    """How many |y - x| > absolute + relative·|x|, in float64, for finite values."""
    count = 0
    for i in range(n):
        a = np.float64(x[i])
        if abs(np.float64(y[i]) - a) > absolute + relative * abs(a):
            count += 1
    return count


@part
def first_position(d, n, magnitude):
    """First i with |d[i]| == magnitude, or -1."""
    for i in range(n):
        if abs(d[i]) == magnitude:
            return i
    return -1


@part
def same_bytes(a, b):
    """Whether two byte blocks of equal size are equal: the OR of XORs over 64-bit words, then the last bytes.

    The first 128 bytes are looked at alone: most blocks that differ do so there.
    """
    words = a.size // 8
    x, y = a[: words * 8].view(np.uint64), b[: words * 8].view(np.uint64)
    difference = np.uint64(0)
    first = min(words, 16)
    for i in range(first):
        difference |= x[i] ^ y[i]
    if difference != np.uint64(0):
        return False
    for i in range(first, words):
        difference |= x[i] ^ y[i]
    for i in range(words * 8, a.size):
        difference |= np.uint64(a[i] ^ b[i])
    return difference == np.uint64(0)
