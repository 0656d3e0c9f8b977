"""Central moments to order 4: from power sums of a block, and merged (Pebay, SAND2008-6212).

A block of up to 2,048 elements is summed by explicit lanes, so every CPU gives the same bits. Its central moments follow from
sums of powers, unless the mean is so large against the deviation that they would cancel: then a second pass sums powers
of the distance to the mean.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, overload, part, types
from diffai_stream.vectors import fused, load, splat, store, totals

f32, f64, i64 = np.float32, np.float64, np.int64

N, MEAN, M2, M3, M4 = range(5)


@inlined
def cancels(n, s1, s2):
    """Whether the mean makes up so much of a sum of squares that central moments take a second pass."""
    return s1 * s1 > 0.5 * n * s2


@part
def block_moments(x, n, s1, s2, s3, s4, fourth, out):
    """out[0:5] = n, mean, m2, m3, m4 of the tile x[:n] with the given sums of powers; without `fourth`, m3 and m4 are 0.

    `out` has room for POWERS numbers: a second pass stores all lanes of its sums there.
    """
    mean = s1 / n
    square = mean * mean
    if cancels(n, s1, s2):
        second_pass(x, n, mean, fourth, out)
        return
    out[N], out[MEAN], out[M2], out[M3], out[M4] = n, mean, s2 - n * square, 0.0, 0.0
    if fourth:
        shifted_moments(n, mean, s2, s3, s4, out)


@part
def shifted_moments(n, shift, s2, s3, s4, out):
    """m3 and m4 around the mean from powers of the distance to a point that lies `shift` below it."""
    square = shift * shift
    out[M3] = s3 - 3 * shift * s2 + 2 * n * shift * square
    out[M4] = max(s4 - 4 * shift * s3 + 6 * square * s2 - 3 * n * square * square, 0.0)


@part
def second_pass(x, n, mean, fourth, out):
    """out[0:5] from powers of x - mean, the mean rounded to the type of x and corrected for that rounding."""
    pivot = powers_around(x, n, mean, out)
    s1, s2, s3, s4 = out[0], out[1], out[2], out[3]
    shift = s1 / n
    out[N], out[MEAN], out[M2], out[M3], out[M4] = n, pivot + shift, max(s2 - n * shift * shift, 0.0), 0.0, 0.0
    if fourth:
        shifted_moments(n, shift, s2, s3, s4, out)


def powers_around(x, n, mean, out):
    """out[0:4] = sums of the first four powers of x[:n] - pivot; returns the pivot, the mean in the type of x."""
    raise TypeError("powers_around is for compiled kernels")


@overload(powers_around)
def _powers_around(x, n, mean, out):
    dtype, lanes = (f32, 16) if x.dtype == types.float32 else (f64, 8)

    def loop(x, n, mean, out):
        pivot = dtype(mean)
        zero = splat(dtype(0), lanes)
        a = b = c = d = zero
        whole = n - n % lanes
        for k in range(0, whole, lanes):
            e = load(x, k, lanes) - pivot
            square = e * e
            a, b, c, d = a + e, fused(e, e, b), fused(square, e, c), fused(square, square, d)
        store(out, 0, totals((a, b, c, d, zero, zero, zero, zero)))
        for k in range(whole, n):
            e = f64(x[k] - pivot)
            out[0] += e
            out[1] += e * e
            out[2] += e * e * e
            out[3] += e * e * e * e
        return f64(pivot)

    return loop


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
