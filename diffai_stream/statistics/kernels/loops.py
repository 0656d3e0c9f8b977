"""The loops over one block of up to 2,048 elements: all sums of a pair, or of one side, in one pass.

Tables of counts are filled by the same loops: an increment waits for the store before it, and meanwhile the vector units
add. Lanes are explicit, so every CPU adds in the same order and gives the same bits. Elements of 16 bits are decoded on the
way, others lie decoded in a tile. What a loop finds goes into `out`, at the places named here. Values that are not
finite show in the sums of squares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffai_stream.encodings.kernels.plain import BF16, F16, decode
from diffai_stream.jit import inlined, overload, part, prefetch, types
from diffai_stream.statistics.kernels.lanes import side32, side64
from diffai_stream.statistics.kernels.tables import count_codes, count_keys32, count_patterns16, count_tops
from diffai_stream.statistics.layout import KEY, PATTERN16, TAIL
from diffai_stream.vectors import fused, larger, largest, load, smaller, smallest, splat, store, totals, viewed, where

f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64

DOT, OLD2, NEW2, D1, ABS, D2, D3, D4, UNEQUAL, FLIPS = range(10)  # places of a pair's sums in `out`
S1, S2, S3, S4, ZEROS = range(5)  # of a side's
LOW, HIGH = 16, 17  # of the range: the delta's, or the side's


CHAIN = 16  # vectors added one after the other: rounding grows with their number, most of all for equal elements


@inlined
def joined5(s, p):
    """The sums of a side, added one by one."""
    return s[0] + p[0], s[1] + p[1], s[2] + p[2], s[3] + p[3], s[4] + p[4]


@inlined
def joined10(s, p):
    """The sums of a pair, added one by one."""
    five = s[5] + p[5], s[6] + p[6], s[7] + p[7], s[8] + p[8], s[9] + p[9]
    return s[0] + p[0], s[1] + p[1], s[2] + p[2], s[3] + p[3], s[4] + p[4], *five


@inlined
def tail32(raw, tile, whole, n, kind, tail, at):
    """What is left after `whole` elements as tail[at : at + 16], filled up with zeros."""
    for i in range(at, at + TAIL):
        tail[i] = 0
    if kind == BF16 or kind == F16:
        decode(kind, raw[2 * whole :], tail, tail[at : at + n - whole])
    else:
        for i in range(whole, n):
            tail[at + i - whole] = tile[i]


@inlined
def tail64(raw, tile, whole, n, kind, tail, at):
    """tail32 of a tile of float64."""
    for i in range(at, at + TAIL):
        tail[i] = 0
    for i in range(whole, n):
        tail[at + i - whole] = tile[i]


@inlined
def count_lanes(raw, tile, k, counted, table):
    """Count sixteen elements from k on: by their codes, or by their keys from a tile of float32."""
    if counted == PATTERN16:
        count_codes(raw, 2 * k, table)
    elif counted == KEY:
        count_tops(tile, 4 * k, table)


@inlined
def count_tail(raw, tile, whole, n, counted, table):
    """Count what is left after whole vectors."""
    if counted == PATTERN16:
        count_patterns16(raw, 2 * whole, table)
    elif counted == KEY:
        count_keys32(tile, whole, n, table)


class Lanes(NamedTuple):
    """How vectors of a type are loaded and summed: pieces of a loop, put into it by the compiler."""

    dtype: Any
    mask: Any
    lanes: int
    side: Callable
    tail: Callable
    in_order: Callable
    add_pair: Callable
    add_side: Callable
    take_range: Callable


def _lanes(dtype: Any, integer: Any, lanes: int, side: Callable, tail: Callable) -> Lanes:
    """The pieces for `lanes` numbers of a float type and the integer type of its width."""
    mask, shift = integer(np.iinfo(integer).max), integer(np.iinfo(integer).bits - 1)

    @inlined
    def in_order(x):
        """Integers that order like the floats."""
        bits = viewed(x, integer)
        return bits ^ ((bits >> shift) & mask)

    @inlined
    def as_float(key):
        """The float of such an integer, as float64."""
        return f64(integer(key ^ integer(integer(key >> shift) & mask)).view(dtype))

    @inlined
    def add_pair(sums, u, v, e):
        """The ten sums of a pair with the lanes u, v and e = v - u added."""
        dot, old2, new2, d1, size, d2, d3, d4, unequal, flips = sums
        zero, one = splat(dtype(0), lanes), splat(dtype(1), lanes)
        square = e * e
        magnitude = viewed(viewed(e, integer) & mask, dtype)
        opposite = (viewed(u, integer) ^ viewed(v, integer)) < 0
        flips = flips + where(opposite & (u != 0) & (v != 0), one, zero)
        dot, old2, new2, d1 = fused(u, v, dot), fused(u, u, old2), fused(v, v, new2), d1 + e
        size, d2, d3, d4 = size + magnitude, fused(e, e, d2), fused(square, e, d3), fused(square, square, d4)
        return dot, old2, new2, d1, size, d2, d3, d4, unequal + where(u != v, one, zero), flips

    @inlined
    def add_side(sums, u):
        """The five sums of a side with the lanes u added."""
        s1, s2, s3, s4, zeros = sums
        zero, one = splat(dtype(0), lanes), splat(dtype(1), lanes)
        square = u * u
        return s1 + u, fused(u, u, s2), fused(square, u, s3), fused(square, square, s4), zeros + where(u == 0, one, zero)

    @inlined
    def take_range(low, high, tile, whole, n, out):
        """The ends of the range of whole vectors and of the elements after them; any float will do when there are none."""
        out[LOW], out[HIGH] = as_float(smallest(low)), as_float(largest(high))
        if whole == 0:
            out[LOW], out[HIGH] = np.inf, -np.inf
        for i in range(n - whole):
            out[LOW], out[HIGH] = min(out[LOW], f64(tile[i])), max(out[HIGH], f64(tile[i]))

    return Lanes(dtype, mask, lanes, side, tail, in_order, add_pair, add_side, take_range)


def _pair_over(pieces: Lanes, integer: Any, counts: bool) -> Callable:
    """The pair loop over vectors of a type; only that of float32 fills tables."""
    dtype, mask, lanes, side, tail, in_order, add_pair, _, take_range = pieces

    @part
    def pair_loop(a, b, x, y, d, n, kinds, counted, tables, tails, out):
        """d = y - x, its sums into `out`, its counts into tables; `kinds`, `counted` and `tables` are of old, new, delta.

        The kind of a side that lies decoded in a tile is none of the 16-bit ones; counted[2] is KEY or NONE.
        """
        zero = splat(dtype(0), lanes)
        low, high = splat(mask, lanes), splat(integer(~mask), lanes)
        none = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
        sums, whole, step_a, step_b = none, n - n % lanes, a.size // n, b.size // n
        for start in range(0, whole, CHAIN * lanes):
            part = none
            for k in range(start, min(start + CHAIN * lanes, whole), lanes):
                prefetch(a, a.size + k * step_a)  # the next block lies in another page, where hardware does not look ahead
                prefetch(b, b.size + k * step_b)
                u, v = side(a, x, k, kinds[0]), side(b, y, k, kinds[1])
                e = v - u
                store(d, k, e)
                part = add_pair(part, u, v, e)
                key = in_order(e)
                low, high = smaller(low, key), larger(high, key)
                if counts:
                    count_lanes(a, x, k, counted[0], tables[0])
                    count_lanes(b, y, k, counted[1], tables[1])
                    if counted[2] and k:
                        count_tops(d, 4 * k - 64, tables[2])  # stored long enough ago to be read without waiting
            sums = joined10(sums, part)
        if whole < n:
            tail(a, x, whole, n, kinds[0], tails, 0)
            tail(b, y, whole, n, kinds[1], tails, TAIL)
            u, v = load(tails, 0, lanes), load(tails, TAIL, lanes)
            store(tails, 0, v - u)
            sums = add_pair(sums, u, v, v - u)
            for i in range(whole, n):
                d[i] = tails[i - whole]
        if counts:
            count_tail(a, x, whole, n, counted[0], tables[0])
            count_tail(b, y, whole, n, counted[1], tables[1])
            if counted[2] and whole:
                count_tops(d, 4 * whole - 64, tables[2])
            count_tail(a, d, whole, n, counted[2], tables[2])
        store(out, 0, totals(sums[:8]))
        store(out, 8, totals((sums[8], sums[9], zero, zero, zero, zero, zero, zero)))
        take_range(low, high, tails, whole, n, out)

    return pair_loop


def _side_over(pieces: Lanes, integer: Any, counts: bool) -> Callable:
    """The side loop over vectors of a type."""
    dtype, mask, lanes, side, tail, in_order, _, add_side, take_range = pieces

    @part
    def side_loop(a, x, n, kind, counted, table, tails, out):
        """The sums of one side into `out`, its counts into a table."""
        zero = splat(dtype(0), lanes)
        low, high = splat(mask, lanes), splat(integer(~mask), lanes)
        none = (zero, zero, zero, zero, zero)
        sums, whole = none, n - n % lanes
        for start in range(0, whole, CHAIN * lanes):
            part = none
            for k in range(start, min(start + CHAIN * lanes, whole), lanes):
                u = side(a, x, k, kind)
                part = add_side(part, u)
                key = in_order(u)
                low, high = smaller(low, key), larger(high, key)
                if counts:
                    count_lanes(a, x, k, counted, table)
            sums = joined5(sums, part)
        if whole < n:
            tail(a, x, whole, n, kind, tails, 0)
            sums = add_side(sums, load(tails, 0, lanes))
        if counts:
            count_tail(a, x, whole, n, counted, table)
        store(out, 0, totals((sums[0], sums[1], sums[2], sums[3], sums[4], zero, zero, zero)))
        if whole < n:
            out[ZEROS] -= lanes - (n - whole)  # those that fill the tail
        take_range(low, high, tails, whole, n, out)

    return side_loop


_of32, _of64 = _lanes(f32, i32, 16, side32, tail32), _lanes(f64, i64, 8, side64, tail64)
_pair32, _pair64 = _pair_over(_of32, i32, True), _pair_over(_of64, i64, False)
_side32, _side64 = _side_over(_of32, i32, True), _side_over(_of64, i64, False)


def pair_loop(a, b, x, y, d, n, kinds, counted, tables, tails, out):
    """The pair loop for tiles of the type of d: for use inside kernels."""
    raise TypeError("pair_loop is for compiled kernels")


@overload(pair_loop)
def _pair_loop(a, b, x, y, d, n, kinds, counted, tables, tails, out):
    loop = _pair32 if d.dtype == types.float32 else _pair64
    return lambda a, b, x, y, d, n, kinds, counted, tables, tails, out: loop(
        a, b, x, y, d, n, kinds, counted, tables, tails, out
    )


def side_loop(a, x, n, kind, counted, table, tails, out):
    """The side loop for tiles of the type of x: for use inside kernels."""
    raise TypeError("side_loop is for compiled kernels")


@overload(side_loop)
def _side_loop(a, x, n, kind, counted, table, tails, out):
    loop = _side32 if x.dtype == types.float32 else _side64
    return lambda a, x, n, kind, counted, table, tails, out: loop(a, x, n, kind, counted, table, tails, out)
