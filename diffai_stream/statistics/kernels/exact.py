"""The exact road: blocks with values that are not finite, or so large or small that sums would overflow or vanish.

Finite elements are gathered as float64 and summed there; the others are counted.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, part
from diffai_stream.statistics.kernels import loops, rows
from diffai_stream.statistics.kernels.moments import block_moments, merge_moments
from diffai_stream.statistics.kernels.tables import count_keys, mark_keys
from diffai_stream.statistics.layout import NONE

i64 = np.int64


@part
def take_side(x, n, row, at, slot, fourth, out, five, leaf):
    """Take what the side loop found of n finite elements into a view of the row and its moments into the leaf."""
    rows.take_range(row, at, out[loops.LOW], out[loops.HIGH])
    row[at + rows.ZERO] += out[loops.ZEROS]
    block_moments(x, n, out[loops.S1], out[loops.S2], out[loops.S3], out[loops.S4], fourth, five)
    merge_moments(leaf, slot, five, 0)


@part
def side_exact(x, n, row, at, slot, count, table, groups, fourth, w):
    """One side of a block of decoded elements; `count` says whether the finite ones are counted by their keys."""
    wide, finite = w.wide_x, 0
    for i in range(n):
        value = np.float64(x[i])
        if value != value:
            row[at + rows.NAN] += 1
        elif value == np.inf:
            row[at + rows.POSINF] += 1
        elif value == -np.inf:
            row[at + rows.NEGINF] += 1
        else:
            wide[finite] = value
            finite += 1
    if finite == 0:
        return
    loops.side_loop(w.bytes, wide, finite, i64(-1), i64(NONE), table, w.wide_tails, w.out)
    take_side(wide, finite, row, at, slot, fourth, w.out, w.five, w.leaf)
    if count:
        count_keys(wide, finite, table)
        mark_keys(wide, finite, groups)


@inlined
def take_largest(row, d, n, first, out):
    """Remember the first element with the largest |d|; `first` is the block's flat index in the tensor."""
    top = max(abs(out[loops.LOW]), abs(out[loops.HIGH]))
    if top > row[rows.MAX_ABS]:
        row[rows.MAX_ABS], row[rows.INDEX] = top, first_position(d, n, top, first)


@part
def first_position(d, n, magnitude, first):
    """`first` + i of the first |d[i]| == magnitude; -1 for a magnitude of 0."""
    for i in range(n):
        if abs(d[i]) == magnitude and magnitude > 0:
            return np.float64(first + i)
    return -1.0


@part
def count_beyond(x, y, n, absolute, relative):
    """How many |y - x| > absolute + relative·|x|, in float64, for finite values."""
    count = 0
    for i in range(n):
        a = np.float64(x[i])
        count += i64(abs(np.float64(y[i]) - a) > absolute + relative * abs(a))
    return count


@part
def take_pair(x, y, d, n, unequal, row, rules, out, five, leaf):
    """Take what the pair loop found of n finite pairs into the row, its sums and moments into the leaf."""
    rows.take_range(row, rows.DELTA, out[loops.LOW], out[loops.HIGH])
    row[rows.DELTA + rows.ZERO] += n - out[loops.UNEQUAL]  # of integers that only float64 takes for equal too
    row[rows.FLIPS] += out[loops.FLIPS]
    row[rows.UNEQUAL] += unequal
    row[rows.CHANGED] += count_beyond(x, y, n, rules.absolute, rules.relative) if rules.tolerant else unequal
    leaf[rows.LEAF_DOT] += out[loops.DOT]
    leaf[rows.LEAF_OLD2] += out[loops.OLD2]
    leaf[rows.LEAF_NEW2] += out[loops.NEW2]
    leaf[rows.LEAF_ABS] += out[loops.ABS]
    block_moments(d, n, out[loops.D1], out[loops.D2], out[loops.D3], out[loops.D4], rules.fourth, five)
    merge_moments(leaf, rows.LEAF_DELTA, five, 0)


@part
def pair_exact(x, y, n, row, first, exact_integers, rules, w):
    """The pair of a block of decoded elements: sums over those finite on both sides, the others counted."""
    px, py, finite, odd = w.wide_x, w.wide_y, 0, 0
    for i in range(n):
        a, b = np.float64(x[i]), np.float64(y[i])
        e = b - a
        if np.isfinite(a) and np.isfinite(b):
            px[finite], py[finite] = a, b
            finite += 1
            if abs(e) > row[rows.MAX_ABS]:
                row[rows.MAX_ABS], row[rows.INDEX] = abs(e), first + i if e != 0 else -1.0
            continue
        odd += 1 if a != b and not (a != a and b != b) else 0
        row[rows.DELTA + rows.NAN] += 1 if e != e else 0
        row[rows.DELTA + rows.POSINF] += 1 if e == np.inf else 0
        row[rows.DELTA + rows.NEGINF] += 1 if e == -np.inf else 0
    row[rows.UNEQUAL] += odd
    row[rows.CHANGED] += odd
    if finite == 0:
        return
    none, tables = (i64(NONE), i64(NONE), i64(NONE)), (w.table_old, w.table_new, w.table_delta)
    loops.pair_loop(w.bytes, w.bytes, px, py, w.wide_d, finite, (i64(-1), i64(-1)), none, tables, w.wide_tails, w.out)
    unequal = np.float64(exact_integers) if exact_integers >= 0 else w.out[loops.UNEQUAL]
    take_pair(px, py, w.wide_d, finite, unequal, row, rules, w.out, w.five, w.leaf)
    if rules.count_delta:
        count_keys(w.wide_d, finite, w.table_delta)
        mark_keys(w.wide_d, finite, w.groups_delta)
