"""The scan: one pass over the bytes of two sides that fills the state rows and histograms of many segments.

A segment is a run of whole leaves of one tensor. Its blocks of 2,048 elements are compared as bytes, decoded, subtracted,
summed and counted while they are in the first-level cache; leaves merge along the complete binary tree over their
numbers, so the result does not depend on how a tensor was cut into segments. A block with values that are not finite, or
so large or small that float32 squares would overflow or vanish, takes the float64 road instead.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.encodings.kernels.plain import I64, decode, itemsize
from diffai_stream.jit import inlined, part
from diffai_stream.statistics.kernels.blocks import (
    all_sums,
    central_moments,
    clear_lanes,
    count_beyond,
    count_flips,
    count_unequal,
    count_zeros,
    fetch_ahead,
    first_position,
    lean_moments,
    merge_moments,
    pair_sums,
    same_bytes,
    side_squares,
    side_sum,
    value_range,
)
from diffai_stream.statistics.kernels.tables import (
    clear,
    count_keys,
    count_patterns8,
    count_patterns16,
    emit,
    mark_keys,
    mark_patterns8,
    mark_patterns16,
)
from diffai_stream.statistics.layout import AGREEMENT, BLOCK, KEY, LEAF, PAIR_START, PATTERN8, PATTERN16, VIEW_WIDTH

i64 = np.int64
SMALL = 65_536  # tensors below this mark the groups of keys they touch, instead of having whole tables searched
LOW, HIGH, ZERO, NAN, POSINF, NEGINF = 5, 6, 7, 8, 9, 10  # within a view's columns
OLD, NEW, DELTA = 0, VIEW_WIDTH, 2 * VIEW_WIDTH
CHANGED, UNEQUAL, FLIPS, DOT, OLD2, NEW2, ABS, MAX, INDEX = range(PAIR_START, PAIR_START + len(AGREEMENT))
LEAF_DOT, LEAF_OLD2, LEAF_NEW2, LEAF_ABS = 15, 16, 17, 18
SAFE_LOW, SAFE_HIGH = 2.0**-24, 2.0**28  # fourth powers of these, summed over a block, stay normal float32 numbers
SQUARES_LOW, SQUARES_HIGH = 2.0**-60, 2.0**100
OLD_BYTE, NEW_BYTE, NUMEL, LEAF_NUMEL, FIRST = range(5)  # columns of `segments`


@inlined
def take_range(row, at, low, high):
    """Take a block's range into a view's extremes."""
    row[at + LOW] = min(row[at + LOW], low)
    row[at + HIGH] = max(row[at + HIGH], high)


@inlined
def is_safe(low, high):
    """Whether powers up to the fourth fit float32, by a block's range; false for NaN, which fails every comparison."""
    a, b = abs(low), abs(high)
    return a <= SAFE_HIGH and b <= SAFE_HIGH and (a >= SAFE_LOW or b >= SAFE_LOW or (a == 0 and b == 0))


@inlined
def are_safe_squares(a, b):
    """Whether two sums of squares neither overflowed nor vanished in float32; false for NaN."""
    return a >= SQUARES_LOW and a <= SQUARES_HIGH and b >= SQUARES_LOW and b <= SQUARES_HIGH


@inlined
def add_moments(x, n, total, fourth, lanes, five, leaf, slot):
    """Merge the moments of x[:n] into a view of the leaf."""
    central_moments(x, n, total, fourth, lanes, five)
    merge_moments(leaf, slot, five, i64(0))


@part
def side_exact(x, n, row, at, slot, table, groups, side, w):
    """One side of a block by the float64 road, non-finite values counted and left out."""
    wide, finite = w.wide_x, 0
    for i in range(n):
        value = np.float64(x[i])
        if value != value:
            row[at + NAN] += 1
        elif value == np.inf:
            row[at + POSINF] += 1
        elif value == -np.inf:
            row[at + NEGINF] += 1
        else:
            wide[finite] = value
            finite += 1
    if finite == 0:
        return
    row[at + ZERO] += count_zeros(wide, finite)
    low, high = value_range(wide, finite)
    take_range(row, at, low, high)
    add_moments(wide, finite, side_sum(wide, finite, w.wide_lanes), side.fourth, w.wide_lanes, w.five, w.leaf, slot)
    if side.counted == KEY:
        count_keys(wide, finite, table)
        mark_keys(wide, finite, groups)


@inlined
def side_block(x, n, row, at, slot, table, groups, mark, side, w):
    """Moments, extremes, zeros and keys of one side of a decoded block."""
    low, high = value_range(x, n)
    if not is_safe(low, high):
        side_exact(x, n, row, at, slot, table, groups, side, w)
        return
    take_range(row, at, low, high)
    row[at + ZERO] += count_zeros(x, n)
    add_moments(x, n, side_sum(x, n, w.lanes), side.fourth, w.lanes, w.five, w.leaf, slot)
    if side.counted == KEY:
        count_keys(x, n, table)
        if mark:
            mark_keys(x, n, groups)


@inlined
def count_side(raw, side, table, groups, mark):
    """Count the patterns of one side's bytes, for encodings whose codes are few enough."""
    if side.counted == PATTERN16:
        count_patterns16(raw, table)
        if mark:
            mark_patterns16(raw, groups)
    elif side.counted == PATTERN8:
        count_patterns8(raw, table)
        mark_patterns8(groups)


@inlined
def take_largest(row, d, n, top, first):
    """Remember the first element with the largest |d|; `first` is the block's flat index in the tensor."""
    if top > row[MAX]:
        row[MAX] = top
        row[INDEX] = first + first_position(d, n, top) if top > 0 else -1.0


@part
def unequal_integers(raw_old, raw_new, kind_old, kind_new):
    """Unequal elements of two 64-bit integer blocks, decided on the integers (float64 cannot tell 2^53 from 2^53 + 1)."""
    a, b = raw_old.view(np.int64), raw_new.view(np.int64)
    count = 0
    for i in range(a.size):
        if a[i] != b[i] or (kind_old != kind_new and a[i] < 0):
            count += 1
    return count


@inlined
def take_pair(sums, low, high, x, y, d, n, unequal, row, lanes, mark, rules, w):
    """Take a block's sums, range, counts and keys into row and leaf; all values are finite, `sums` is from pair_sums."""
    take_range(row, DELTA, low, high)
    row[DELTA + ZERO] += n - unequal
    row[FLIPS] += count_flips(x, y, n)
    row[UNEQUAL] += unequal
    row[CHANGED] += count_beyond(x, y, n, rules.absolute, rules.relative) if rules.tolerant else unequal
    for i in range(3):
        w.leaf[LEAF_DOT + i] += sums[i]
    w.leaf[LEAF_ABS] += sums[4]
    add_moments(d, n, sums[3], rules.fourth, lanes, w.five, w.leaf, i64(10))
    if rules.count_delta:
        count_keys(d, n, w.table_delta)
        if mark:
            mark_keys(d, n, w.groups_delta)


@part
def pair_exact(x, y, n, row, first, exact_integers, mark, rules, w):
    """The pair of a block by the float64 road: sums over elements finite on both sides, the others counted."""
    px, py, finite, odd = w.wide_x, w.wide_y, 0, 0
    for i in range(n):
        a, b = np.float64(x[i]), np.float64(y[i])
        e = b - a
        if np.isfinite(a) and np.isfinite(b):
            px[finite], py[finite] = a, b
            finite += 1
            if abs(e) > row[MAX]:
                row[MAX], row[INDEX] = abs(e), first + i if e != 0 else -1.0
            continue
        odd += 1 if a != b and not (a != a and b != b) else 0
        row[DELTA + NAN] += 1 if e != e else 0
        row[DELTA + POSINF] += 1 if e == np.inf else 0
        row[DELTA + NEGINF] += 1 if e == -np.inf else 0
    row[UNEQUAL] += odd
    row[CHANGED] += odd
    if finite:
        unequal = exact_integers if exact_integers >= 0 else count_unequal(px, py, finite)
        sums = pair_sums(px, py, w.wide_d, finite, w.wide_lanes)
        low, high = value_range(w.wide_d, finite)
        row[DELTA + ZERO] += unequal - count_unequal(px, py, finite)  # integers that only float64 takes for equal
        take_pair(sums, low, high, px, py, w.wide_d, finite, unequal, row, w.wide_lanes, mark, rules, w)


@part
def lean_block(x, y, n, row, first, rules, w):
    """A decoded block when neither histograms nor fourth moments are asked: all sums in one pass; False if not safe."""
    d, lanes, five, leaf = w.d, w.lanes, w.five, w.leaf
    dot, x2, y2, d1, absolute, x1, y1, d2 = all_sums(x, y, d, n, lanes)
    low, high = value_range(d, n)
    low_x, high_x = value_range(x, n)
    low_y, high_y = value_range(y, n)
    if not (are_safe_squares(x2, y2) and is_safe(low, high) and is_safe(low_x, high_x) and is_safe(low_y, high_y)):
        return False
    take_range(row, OLD, low_x, high_x)
    take_range(row, NEW, low_y, high_y)
    take_range(row, DELTA, low, high)
    row[OLD + ZERO] += count_zeros(x, n)
    row[NEW + ZERO] += count_zeros(y, n)
    take_largest(row, d, n, max(abs(low), abs(high)), first)
    unequal = count_unequal(x, y, n)
    row[DELTA + ZERO] += n - unequal
    row[FLIPS] += count_flips(x, y, n)
    row[UNEQUAL] += unequal
    row[CHANGED] += count_beyond(x, y, n, rules.absolute, rules.relative) if rules.tolerant else unequal
    leaf[LEAF_DOT] += dot
    leaf[LEAF_OLD2] += x2
    leaf[LEAF_NEW2] += y2
    leaf[LEAF_ABS] += absolute
    lean_moments(x, n, x1, x2, lanes, five)
    merge_moments(leaf, i64(0), five, i64(0))
    lean_moments(y, n, y1, y2, lanes, five)
    merge_moments(leaf, i64(5), five, i64(0))
    lean_moments(d, n, d1, d2, lanes, five)
    merge_moments(leaf, i64(10), five, i64(0))
    return True


@inlined
def pair_block(x, y, n, row, first, exact_integers, mark, rules, w):
    """The pair of a decoded block: the float32 road when every sum is safe there, else the float64 road."""
    sums = pair_sums(x, y, w.d, n, w.lanes)
    low, high = value_range(w.d, n)
    if exact_integers >= 0 or not (are_safe_squares(sums[1], sums[2]) and is_safe(low, high)):
        pair_exact(x, y, n, row, first, exact_integers, mark, rules, w)
        return
    take_largest(row, w.d, n, max(abs(low), abs(high)), first)
    take_pair(sums, low, high, x, y, w.d, n, count_unequal(x, y, n), row, w.lanes, mark, rules, w)


@part
def equal_block(x, n, row, rules, w):
    """The pair of a block whose bytes are equal: only the squares of one side need summing."""
    squares = side_squares(x, n, w.lanes)
    finite = n
    if not (squares >= SQUARES_LOW and squares <= SQUARES_HIGH):
        finite, squares = 0, 0.0
        for i in range(n):
            value = np.float64(x[i])
            if np.isfinite(value):
                w.wide_x[finite] = value
                finite += 1
        row[DELTA + NAN] += n - finite
        squares = side_squares(w.wide_x, finite, w.wide_lanes)
    if finite == 0:
        return
    row[DELTA + ZERO] += finite
    take_range(row, DELTA, 0.0, 0.0)
    row[MAX] = max(row[MAX], 0.0)
    w.leaf[LEAF_DOT] += squares
    w.leaf[LEAF_OLD2] += squares
    w.leaf[LEAF_NEW2] += squares
    clear_lanes(w.five, i64(5))
    w.five[0] = finite
    merge_moments(w.leaf, i64(10), w.five, i64(0))
    if rules.count_delta:
        w.table_delta[0] += np.uint32(finite)
        w.groups_delta[0] = 1


@inlined
def block(a, b, n, row, first, mark, old, new, rules, w):
    """One block of n elements whose bytes are `a` and `b`."""
    decode(old.kind, a, old.values, w.x)
    if rules.same_encoding and same_bytes(a, b):
        count_side(a, old, w.table_shared, w.groups_old, mark)
        equal_block(w.x, n, row, rules, w)
        if old.moments:
            for c in range(VIEW_WIDTH):
                w.before[c] = row[OLD + c]
            clear_lanes(w.five, i64(5))
            side_block(w.x, n, row, i64(OLD), i64(0), w.table_shared, w.groups_old, mark, old, w)
            copy_side(row, w.before)
            merge_moments(w.leaf, i64(5), w.five, i64(0))
        return
    decode(new.kind, b, new.values, w.y)
    if old.counted != PATTERN16:
        fetch_ahead(a)
    if new.counted != PATTERN16:
        fetch_ahead(b)
    integers = old.kind >= I64 and new.kind >= I64
    lean = not (rules.fourth or rules.count_delta or integers) and old.moments and new.moments
    if lean and lean_block(w.x, w.y, n, row, first, rules, w):
        return
    count_side(a, old, w.table_old, w.groups_old, mark)
    count_side(b, new, w.table_new, w.groups_new, mark)
    if old.moments:
        side_block(w.x, n, row, i64(OLD), i64(0), w.table_old, w.groups_old, mark, old, w)
    if new.moments:
        side_block(w.y, n, row, i64(NEW), i64(5), w.table_new, w.groups_new, mark, new, w)
    exact_integers = unequal_integers(a, b, old.kind, new.kind) if integers else -1
    pair_block(w.x, w.y, n, row, first, exact_integers, mark, rules, w)


@inlined
def copy_side(row, before):
    """Add to NEW what an equal block added to OLD: counts by difference, extremes by taking them."""
    for c in range(ZERO, VIEW_WIDTH):
        row[NEW + c] += row[OLD + c] - before[c]
    take_range(row, NEW, row[OLD + LOW], row[OLD + HIGH])


@part
def merge_leaf(into, other):
    """Merge one leaf state into another."""
    for slot in (0, 5, 10):
        merge_moments(into, slot, other, slot)
    for i in range(LEAF_DOT, LEAF):
        into[i] += other[i]


@inlined
def settle(stack, top, row):
    """Merge what is left on the stack, right to left, into the row."""
    while top > 1:
        merge_leaf(stack[top - 2], stack[top - 1])
        top -= 1
    for view in range(3):
        for i in range(5):
            row[view * VIEW_WIDTH + i] = stack[0, view * 5 + i]
    row[DOT], row[OLD2] = stack[0, LEAF_DOT], stack[0, LEAF_OLD2]
    row[NEW2], row[ABS] = stack[0, LEAF_NEW2], stack[0, LEAF_ABS]


@inlined
def empty_row(row):
    """The neutral state: zeros, empty ranges, no largest change."""
    clear_lanes(row, row.size)
    for at in (OLD, NEW, DELTA):
        row[at + LOW], row[at + HIGH] = np.inf, -np.inf
    row[MAX], row[INDEX] = -1.0, -1.0


@part
def segment_rows(segment, row, old, new, rules, w):
    """Scan one segment, leaf by leaf, block by block."""
    numel, leaf_numel, size_old, size_new = segment[NUMEL], segment[LEAF_NUMEL], itemsize(old.kind), itemsize(new.kind)
    mark = numel < SMALL
    top = 0
    empty_row(row)
    clear_lanes(w.stack[0], i64(LEAF))
    for number in range((numel + leaf_numel - 1) // leaf_numel):
        clear_lanes(w.leaf, i64(LEAF))
        end = min((number + 1) * leaf_numel, numel)
        for start in range(number * leaf_numel, end, BLOCK):
            n = min(BLOCK, end - start)
            at, bt = segment[OLD_BYTE] + start * size_old, segment[NEW_BYTE] + start * size_new
            a, b = old.raw[at : at + n * size_old], new.raw[bt : bt + n * size_new]
            block(a, b, n, row, segment[FIRST] + start, mark, old, new, rules, w)
        for i in range(LEAF):
            w.stack[top, i] = w.leaf[i]
        top += 1
        t = number
        while t & 1:
            merge_leaf(w.stack[top - 2], w.stack[top - 1])
            top -= 1
            t >>= 1
    settle(w.stack, top, row)


@part
def segment_histograms(s, numel, old, new, rules, w, h):
    """Move the tables of a finished segment into runs and clear them."""
    everywhere = numel >= SMALL
    last = max(s - 1, 0)
    for view in range(3):
        h.ends[s, view] = h.ends[last, view] if s else 0
    shared = rules.same_encoding
    if shared and not everywhere:
        for g in range(w.groups_old.size):
            w.groups_new[g] |= w.groups_old[g]
    if old.counted:
        h.ends[s, 0] = emit(
            w.table_old, w.table_shared, shared, old.order, everywhere, w.groups_old, h.keys_old, h.counts_old, h.ends[s, 0]
        )
    if new.counted:
        h.ends[s, 1] = emit(
            w.table_new, w.table_shared, shared, new.order, everywhere, w.groups_new, h.keys_new, h.counts_new, h.ends[s, 1]
        )
    if rules.count_delta:
        h.ends[s, 2] = emit(
            w.table_delta,
            w.table_shared,
            False,
            w.key_order,
            everywhere,
            w.groups_delta,
            h.keys_delta,
            h.counts_delta,
            h.ends[s, 2],
        )
        clear(w.table_delta, w.key_order, everywhere, w.groups_delta)
    if old.counted:
        clear(w.table_old, old.order, everywhere, w.groups_old)
        clear(w.table_shared, old.order, everywhere, w.groups_old)
    if new.counted:
        clear(w.table_new, new.order, everywhere, w.groups_new)
    for groups in (w.groups_old, w.groups_new, w.groups_delta):
        clear_lanes(groups, groups.size)


@part
def scan_pair(segments, rows, old, new, rules, w, h):
    """Scan every segment: rows[s] is its state row, its histograms are appended to `h`."""
    for s in range(segments.shape[0]):
        segment_rows(segments[s], rows[s], old, new, rules, w)
        segment_histograms(s, segments[s, NUMEL], old, new, rules, w, h)
