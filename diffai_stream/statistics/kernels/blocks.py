"""One block of a pair: compared as bytes, summed and counted by the loops, and taken into row and leaf.

A block whose sums are not safe in the type of its tiles takes the exact road instead.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.encodings.kernels.plain import BF16, F16, F32, I64, decode
from diffai_stream.jit import inlined, overload, part, prefetch, types
from diffai_stream.statistics.kernels import loops, rows
from diffai_stream.statistics.kernels.exact import pair_exact, side_exact, take_largest, take_pair, take_side
from diffai_stream.statistics.kernels.moments import cancels, merge_moments
from diffai_stream.statistics.kernels.tables import (
    count_keys,
    count_patterns8,
    count_patterns16,
    mark_keys,
    mark_patterns8,
    mark_patterns16,
    uncount_keys32,
)
from diffai_stream.statistics.layout import KEY, NONE, PATTERN8, PATTERN16
from diffai_stream.vectors import any_set, load_bytes

i64, u32 = np.int64, np.uint32


@part
def same_bytes(a, b):
    """Whether two byte blocks of equal size are equal: 64 bytes at a time, until some are not."""
    whole = a.size - a.size % 64
    for k in range(0, whole, 64):
        if any_set(load_bytes(a, k, 8, np.int64) ^ load_bytes(b, k, 8, np.int64)):
            return False
        prefetch(a, k + a.size)
        prefetch(b, k + a.size)
    difference = np.uint8(0)
    for i in range(whole, a.size):
        difference |= a[i] ^ b[i]
    return difference == np.uint8(0)


def is_wide(tile):
    """Whether a tile is float64; known when the kernel is compiled."""
    raise TypeError("is_wide is for compiled kernels")


@overload(is_wide)
def _is_wide(tile):
    answer = tile.dtype == types.float64
    return lambda tile: answer


@inlined
def are_safe_squares(a, b, tile):
    """Whether two sums of squares neither overflowed nor vanished; false for NaN."""
    low, high = (2.0**-900, 2.0**900) if is_wide(tile) else (2.0**-60, 2.0**100)
    return low <= a <= high and low <= b <= high


@inlined
def are_safe_powers(low, high, fourth, tile):
    """Whether squares, or fourth powers, of elements in a range can be summed without overflow and without vanishing."""
    if is_wide(tile):
        lowest, highest = (2.0**-220, 2.0**220) if fourth else (2.0**-440, 2.0**440)
    else:
        lowest, highest = (2.0**-28, 2.0**28) if fourth else (2.0**-56, 2.0**50)
    top = max(abs(low), abs(high))
    return lowest <= top <= highest or top == 0


def decoded(raw, side, tile):
    """The tile of a block: the bytes themselves for float32, else `tile`, where all but 16-bit floats are decoded."""
    raise TypeError("decoded is for compiled kernels")


@overload(decoded)
def _decoded(raw, side, tile):
    def as_float32(raw, side, tile):
        if side.kind == F32:
            return raw.view(np.float32)
        if side.kind != BF16 and side.kind != F16:
            decode(side.kind, raw, side.values, tile)
        return tile

    def as_float64(raw, side, tile):
        decode(side.kind, raw, side.values, tile)
        return tile

    return as_float32 if tile.dtype == types.float32 else as_float64


@part
def decode_halves(raw, side, tile):
    """Decode the 16-bit floats too, which the loops decode on their way."""
    if not is_wide(tile) and (side.kind == BF16 or side.kind == F16):
        decode(side.kind, raw, side.values, tile)


@part
def count_apart(raw, side, tile, table):
    """Count the codes that no loop counts: of 8 bits, and all beside tiles of float64."""
    if side.counted == PATTERN8:
        count_patterns8(raw, table)
    elif is_wide(tile) and side.counted == PATTERN16:
        count_patterns16(raw, 0, table)


@part
def mark_side(raw, x, n, side, groups):
    """Mark the groups of codes or keys of one side of a small tensor."""
    if side.counted == PATTERN16:
        mark_patterns16(raw, groups)
    elif side.counted == PATTERN8:
        mark_patterns8(groups)
    elif side.counted == KEY:
        mark_keys(x, n, groups)


@part
def unequal_integers(raw_old, raw_new, kind_old, kind_new):
    """Unequal elements of two 64-bit integer blocks, decided on the integers (float64 cannot tell 2^53 from 2^53 + 1)."""
    a, b = raw_old.view(np.int64), raw_new.view(np.int64)
    count = 0
    for i in range(a.size):
        if a[i] != b[i] or (kind_old != kind_new and a[i] < 0):
            count += 1
    return count


@part
def take_or_exact(raw, x, n, row, at, slot, count, table, groups, side, w):
    """Take what the side loop found, or take the exact road; `count`: keys are counted, those of float32 by the loop before."""
    out = w.out
    if np.isfinite(out[loops.S2]) and are_safe_powers(out[loops.LOW], out[loops.HIGH], side.fourth, x):
        if cancels(n, out[loops.S1], out[loops.S2]):
            decode_halves(raw, side, x)
        take_side(x, n, row, at, slot, side.fourth, out, w.five, w.leaf)
        if count and is_wide(x):
            count_keys(x, n, table)
        return
    decode_halves(raw, side, x)
    if count and not is_wide(x):
        uncount_keys32(x, n, table)
    side_exact(x, n, row, at, slot, count, table, groups, side.fourth, w)


@part
def equal_block(a, n, row, mark, side, rules, w):
    """A block whose bytes are equal: one side is counted, once for both, and its squares are all that the pair needs."""
    x = decoded(a, side, w.x)
    count_apart(a, side, x, w.table_shared)
    loops.side_loop(a, x, n, side.kind, side.counted, w.table_shared, w.tails, w.out)
    if mark:
        mark_side(a, x, n, side, w.groups_old)
    squares, finite = w.out[loops.S2], n
    if side.moments:
        take_or_exact(a, x, n, row, rows.OLD, rows.LEAF_OLD, side.counted == KEY, w.table_shared, w.groups_old, side, w)
        loops.side_loop(a, x, n, side.kind, i64(NONE), w.table_shared, w.tails, w.out)
        take_or_exact(a, x, n, row, rows.NEW, rows.LEAF_NEW, False, w.table_shared, w.groups_old, side, w)
    if not are_safe_squares(squares, squares, x):
        decode_halves(a, side, x)
        finite, squares = finite_squares(x, n, w)
        row[rows.DELTA + rows.NAN] += n - finite
    if finite:
        take_equal(finite, squares, row, rules, w)


@part
def finite_squares(x, n, w):
    """(how many of x[:n] are finite, the sum of their squares), by the exact road."""
    finite = 0
    for i in range(n):
        value = np.float64(x[i])
        if np.isfinite(value):
            w.wide_x[finite] = value
            finite += 1
    if finite:
        loops.side_loop(w.bytes, w.wide_x, finite, i64(-1), i64(NONE), w.table_shared, w.wide_tails, w.out)
    return finite, w.out[loops.S2] if finite else 0.0


@part
def take_equal(n, squares, row, rules, w):
    """Take n equal finite pairs into row and leaf."""
    rows.take_range(row, rows.DELTA, 0.0, 0.0)
    row[rows.DELTA + rows.ZERO] += n
    row[rows.MAX_ABS] = max(row[rows.MAX_ABS], 0.0)
    w.leaf[rows.LEAF_DOT] += squares
    w.leaf[rows.LEAF_OLD2] += squares
    w.leaf[rows.LEAF_NEW2] += squares
    w.five[0] = n
    for i in range(1, 5):
        w.five[i] = 0.0
    merge_moments(w.leaf, rows.LEAF_DELTA, w.five, 0)
    if rules.count_delta:
        w.table_delta[0] += u32(n)
        w.groups_delta[0] = 1


@part
def pair_block(a, b, n, row, first, mark, old, new, rules, w):
    """A block whose bytes differ."""
    x, y = decoded(a, old, w.x), decoded(b, new, w.y)
    count_apart(a, old, x, w.table_old)
    count_apart(b, new, y, w.table_new)
    tables, kinds = (w.table_old, w.table_new, w.table_delta), (old.kind, new.kind)
    counted = (old.counted, new.counted, i64(KEY) if rules.count_delta else i64(NONE))
    loops.pair_loop(a, b, x, y, w.d, n, kinds, counted, tables, w.tails, w.out)
    take_or_exact_pair(a, b, x, y, n, row, first, mark, old, new, rules, w)
    if mark:
        mark_side(a, x, n, old, w.groups_old)
        mark_side(b, y, n, new, w.groups_new)
    if old.moments:
        loops.side_loop(a, x, n, old.kind, i64(NONE), w.table_old, w.tails, w.out)
        take_or_exact(a, x, n, row, rows.OLD, rows.LEAF_OLD, old.counted == KEY, w.table_old, w.groups_old, old, w)
    if new.moments:
        loops.side_loop(b, y, n, new.kind, i64(NONE), w.table_new, w.tails, w.out)
        take_or_exact(b, y, n, row, rows.NEW, rows.LEAF_NEW, new.counted == KEY, w.table_new, w.groups_new, new, w)


@part
def take_or_exact_pair(a, b, x, y, n, row, first, mark, old, new, rules, w):
    """Take what the pair loop found, or take the exact road."""
    out = w.out
    integers = old.kind >= I64 and new.kind >= I64
    safe = are_safe_squares(out[loops.OLD2], out[loops.NEW2], x)
    safe = safe and are_safe_powers(out[loops.LOW], out[loops.HIGH], rules.fourth, x)
    if rules.tolerant or not safe:
        decode_halves(a, old, x)
        decode_halves(b, new, y)
    if integers or not safe:
        if rules.count_delta and not is_wide(x):
            uncount_keys32(w.d, n, w.table_delta)
        pair_exact(x, y, n, row, first, unequal_integers(a, b, old.kind, new.kind) if integers else i64(-1), rules, w)
        return
    take_largest(row, w.d, n, first, out)
    take_pair(x, y, w.d, n, out[loops.UNEQUAL], row, rules, out, w.five, w.leaf)
    if rules.count_delta and is_wide(x):
        count_keys(w.d, n, w.table_delta)
    if rules.count_delta and mark:
        mark_keys(w.d, n, w.groups_delta)


@part
def block(a, b, n, row, first, mark, old, new, rules, w):
    """One block of n elements whose bytes are `a` and `b`; returns whether they are equal, and counted once for both."""
    equal = rules.same_encoding and same_bytes(a, b)
    if equal:
        equal_block(a, n, row, mark, old, rules, w)
    else:
        pair_block(a, b, n, row, first, mark, old, new, rules, w)
    return equal
