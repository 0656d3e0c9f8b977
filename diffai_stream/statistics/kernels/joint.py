"""Pairs of 8-bit codes: counted together, because 65,536 counts hold everything that can be said of such a pair.

A pair of codes is one 16-bit code, old in the low byte and new in the high one. Counting takes one increment an element;
all figures follow from the counts when a tensor is whole. Only the place of the largest change needs a second look.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import part, prefetch
from diffai_stream.statistics.kernels.blocks import same_bytes
from diffai_stream.statistics.kernels.rows import (
    ABS,
    CHANGED,
    DELTA,
    DOT,
    FLIPS,
    INDEX,
    MAX_ABS,
    NAN,
    NEGINF,
    NEW2,
    OLD2,
    POSINF,
    UNEQUAL,
    ZERO,
    empty_row,
    take_range,
)
from diffai_stream.statistics.kernels.tables import count_codes, count_patterns8, is_occupied, key_of, take
from diffai_stream.statistics.layout import BLOCK
from diffai_stream.vectors import bump

u8, u16, u32, u64, i64 = np.uint8, np.uint16, np.uint32, np.uint64, np.int64

CODES = 65_536
EIGHT, LOW_BYTE = u16(8), u16(255)
FEW = 8  # codes that are looked for one after the other, by vector code; more are looked up
MEAN, M2, M3, M4 = range(1, 5)  # within a view's columns, after n
OLD_BYTE, NEW_BYTE, NUMEL, _, FIRST = range(5)  # columns of `segments`


@part
def join_codes(a, b, out):
    """out[i] = the pair of codes of a[i] and b[i]."""
    for i in range(a.size):
        out[i] = u16(u16(a[i]) | u16(u16(b[i]) << EIGHT))


@part
def count_pairs(codes, n, table):
    """Count n pairs of codes."""
    raw, whole = codes.view(np.uint8), n - n % 16
    for at in range(0, 2 * whole, 32):
        count_codes(raw, at, table)
    for i in range(whole, n):
        bump(table, u64(codes[i]) << u64(1))


@part
def difference(code, old_values, new_values):
    """new - old of a pair of codes, in float64; finite only where both are."""
    return np.float64(new_values[u16(code >> EIGHT)]) - np.float64(old_values[u16(code & LOW_BYTE)])


@part
def count_blocks(a, b, same_encoding, codes, table, shared):
    """Count the pairs of two sides, blocks of equal bytes by one side only."""
    for start in range(0, a.size, BLOCK):
        x, y = a[start : start + BLOCK], b[start : start + BLOCK]
        if same_encoding and same_bytes(x, y):
            count_patterns8(x, shared)
            continue
        for at in range(0, x.size, 64):  # the next block lies in another page, where hardware does not look ahead
            prefetch(x, at + x.size)
            prefetch(y, at + y.size)
        join_codes(x, y, codes)
        count_pairs(codes, x.size, table)


@part
def fold_shared(table, shared):
    """Move the counts of equal pairs into the table of pairs; both tables of `shared` are zero afterwards."""
    for code in range(256):
        table[2 * 257 * code] += take(shared, 2 * code)


@part
def emit_pairs(table, keys, counts, at):
    """Append the pairs that occurred, in ascending order, and zero the table; returns the new end."""
    for group in range(CODES // 64):
        if not is_occupied(table, group):
            continue
        for code in range(64 * group, 64 * group + 64):
            count = take(table, 2 * code)
            keys[at], counts[at] = u16(code), i64(count)  # always, into one entry more than can be used: no branch
            at += i64(count > 0)
    return at


@part
def mark_largest(keys, start, end, old_values, new_values, flags, few):
    """(largest |new - old|, how many pairs have it): they are flagged, and the first are listed in `few`."""
    top, number = -1.0, 0
    for i in range(start, end):
        size = abs(difference(keys[i], old_values, new_values))
        if size < np.inf and size > top:
            top = size
    if top <= 0:
        return top, 0
    for i in range(start, end):
        if abs(difference(keys[i], old_values, new_values)) == top:
            flags[keys[i]] = u8(1)
            few[min(number, FEW - 1)] = keys[i]
            number += 1
    return top, number


@part
def contains(codes, n, code):
    """Whether a pair occurs among codes[:n]."""
    found = u16(0)
    for i in range(n):
        found = u16(found | u16(codes[i] == code))
    return found != u16(0)


@part
def first_flagged(a, b, same_encoding, codes, flags, few, number):
    """The first element whose pair is flagged; one of them occurs."""
    for start in range(0, a.size, BLOCK):
        x, y = a[start : start + BLOCK], b[start : start + BLOCK]
        if same_encoding and same_bytes(x, y):
            continue
        join_codes(x, y, codes)
        seen = number > FEW
        for k in range(min(number, i64(FEW))):
            seen = seen or contains(codes, x.size, few[k])
        if seen:
            for i in range(x.size):
                if flags[codes[i]]:
                    return start + i
    return -1


@part
def scan_pairs(segments, rows, raw_old, raw_new, old_values, new_values, same_encoding, w, keys, counts, ends):
    """Count the pairs of every segment into runs; of the rows only the largest change and its place are filled.

    `w` is (table, shared, codes, flags, few); tables and flags are zero before and after.
    """
    table, shared, codes, flags, few = w
    at = 0
    for s in range(segments.shape[0]):
        first, second, numel = segments[s, OLD_BYTE], segments[s, NEW_BYTE], segments[s, NUMEL]
        a, b = raw_old[first : first + numel], raw_new[second : second + numel]
        count_blocks(a, b, same_encoding, codes, table, shared)
        fold_shared(table, shared)
        start, at = at, emit_pairs(table, keys, counts, at)
        ends[s, 3] = at
        empty_row(rows[s])
        rows[s, MAX_ABS], number = mark_largest(keys, start, at, old_values, new_values, flags, few)
        if number:
            rows[s, INDEX] = segments[s, FIRST] + first_flagged(a, b, same_encoding, codes, flags, few, number)
            for i in range(start, at):
                flags[keys[i]] = 0


@part
def take_odd(row, x, y, d, count):
    """Take in pairs that are not finite on both sides."""
    odd = count if x != y and not (x != x and y != y) else 0.0
    row[UNEQUAL] += odd
    row[CHANGED] += odd
    row[DELTA + NAN] += count if d != d else 0.0
    row[DELTA + POSINF] += count if d == np.inf else 0.0
    row[DELTA + NEGINF] += count if d == -np.inf else 0.0


@part
def take_finite(row, x, y, d, count, absolute, relative):
    """Take in pairs that are finite on both sides."""
    row[DELTA] += count
    row[DELTA + MEAN] += count * d
    take_range(row, DELTA, d, d)
    row[DELTA + ZERO] += count if d == 0 else 0.0
    row[UNEQUAL] += count if x != y else 0.0
    row[CHANGED] += count if abs(d) > absolute + relative * abs(x) else 0.0
    row[FLIPS] += count if (x < 0 and y > 0) or (x > 0 and y < 0) else 0.0
    row[DOT] += count * (x * y)
    row[OLD2] += count * (x * x)
    row[NEW2] += count * (y * y)
    row[ABS] += count * abs(d)


@part
def central_delta(keys, counts, start, end, old_values, new_values, row):
    """Mean and central moments of the delta, whose sum is in the place of the mean."""
    if row[DELTA] == 0:
        return
    mean = row[DELTA + MEAN] / row[DELTA]
    m2, m3, m4 = 0.0, 0.0, 0.0
    for i in range(start, end):
        e, count = difference(keys[i], old_values, new_values) - mean, np.float64(counts[i])
        if np.isfinite(e):
            square = e * e
            m2 += count * square
            m3 += count * square * e
            m4 += count * square * square
    row[DELTA + MEAN], row[DELTA + M2], row[DELTA + M3], row[DELTA + M4] = mean, m2, m3, m4


@part
def emit_dense(dense, order, keys, counts, at):
    """Append the non-zero counts in `order`, and zero them; returns the new end."""
    for i in range(order.size):
        key = order[i]
        if dense[key]:
            keys[at], counts[at] = key, dense[key]
            at += 1
            dense[key] = 0
    return at


@part
def finish_pairs(ends, keys, counts, old_values, new_values, tolerances, rows, dense, orders, out, out_ends):
    """Rows and the runs of old, new and delta, of every segment whose pairs are all there.

    Values are float64, `tolerances` (absolute, relative); `dense`, `orders` and `out` hold three tables of int64, three
    orders of keys, and three times (keys, counts).
    """
    absolute, relative = tolerances
    dense_old, dense_new, dense_delta = dense
    at_old, at_new, at_delta = 0, 0, 0
    for s in range(rows.shape[0]):
        start, end, row = ends[s - 1, 3] if s else 0, ends[s, 3], rows[s]
        for i in range(start, end):
            old, new, count = u16(keys[i] & LOW_BYTE), u16(keys[i] >> EIGHT), counts[i]
            dense_old[old] += count
            dense_new[new] += count
            x, y = old_values[old], new_values[new]
            d = y - x
            if np.isfinite(d):
                take_finite(row, x, y, d, np.float64(count), absolute, relative)
                dense_delta[key_of(d)] += count
            else:
                take_odd(row, x, y, d, np.float64(count))
        central_delta(keys, counts, start, end, old_values, new_values, row)
        at_old = emit_dense(dense_old, orders[0], out[0], out[1], at_old)
        at_new = emit_dense(dense_new, orders[1], out[2], out[3], at_new)
        at_delta = emit_dense(dense_delta, orders[2], out[4], out[5], at_delta)
        out_ends[s, 0], out_ends[s, 1], out_ends[s, 2] = at_old, at_new, at_delta
