"""Counting patterns and keys: dense tables while scanning, sorted runs of (key, count) when a tensor's part is done.

A table is two interleaved uint32[65536], so that equal neighbours do not wait for each other's store (one increment a
cycle, 0.33 ns). A key is the top half of a float32's bits: sign, exponent and seven fraction bits, 2^-7 wide relatively.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import overload, part, prefetch, types

u8, u16, u32, u64, i64 = np.uint8, np.uint16, np.uint32, np.uint64, np.int64

SIZE = 65_536
MASK, SECOND = u64(0xFFFF), u64(SIZE)
S16, S32, S48 = u64(16), u64(32), u64(48)
ONE = u32(1)
LARGEST_KEY = 0x7F7F  # of finite values


@part
def count_patterns16(raw, table):
    """Count the 16-bit codes in the bytes `raw`, and fetch the next block: it lies in another page, unseen by hardware."""
    words = raw.size // 8
    quads = raw[: words * 8].view(np.uint64)
    for i in range(words):
        if i % 8 == 0:
            prefetch(quads, i + words)
        w = quads[i]
        table[w & MASK] += ONE
        table[SECOND + ((w >> S16) & MASK)] += ONE
        table[(w >> S32) & MASK] += ONE
        table[SECOND + (w >> S48)] += ONE
    rest = raw[words * 8 :].view(np.uint16)
    for i in range(rest.size):
        table[rest[i]] += ONE


@part
def count_patterns8(raw, table):
    """Count the 8-bit codes in the bytes `raw`."""
    whole = raw.size - raw.size % 2
    for i in range(0, whole, 2):
        table[raw[i]] += ONE
        table[SECOND + u64(raw[i + 1])] += ONE
    if whole < raw.size:
        table[raw[whole]] += ONE


@part
def key_of(value):
    """The key of a finite float; what overflows float32 counts as its largest finite key."""
    bits = np.float32(value).view(np.uint32)
    key = u32(bits >> u32(16))
    if u32(key & u32(0x7FFF)) > u32(LARGEST_KEY):
        key = u32(u32(key & u32(0x8000)) | u32(LARGEST_KEY))
    return u64(key)


@part
def count_keys32(bits, n, table):
    """Count the keys of n finite float32 by their bits, a uint32 view."""
    words = n // 2
    pairs = bits[: words * 2].view(np.uint64)
    for i in range(words):
        w = pairs[i]
        table[(w >> S16) & MASK] += ONE
        table[SECOND + (w >> S48)] += ONE
    if n % 2:
        table[bits[n - 1] >> u32(16)] += ONE


@part
def count_keys64(x, n, table):
    """Count the keys of n finite float64."""
    for i in range(n):
        table[key_of(x[i])] += ONE


def count_keys(x, n, table):
    """Count the keys of the finite floats x[:n]: for use inside kernels."""
    raise TypeError("count_keys is for compiled kernels")


@overload(count_keys)
def _count_keys(x, n, table):
    if x.dtype == types.float32:
        return lambda x, n, table: count_keys32(x.view(np.uint32), n, table)
    return lambda x, n, table: count_keys64(x, n, table)


@part
def mark_keys(x, n, groups):
    """Mark the groups of 64 keys that x[:n] falls in, so that a small tensor need not search the whole table."""
    for i in range(n):
        groups[key_of(x[i]) >> u64(6)] = u8(1)


@part
def mark_patterns16(raw, groups):
    """Mark the groups of 64 patterns that occur in the bytes `raw`."""
    codes = raw.view(np.uint16)
    for i in range(codes.size):
        groups[codes[i] >> u16(6)] = u8(1)


@part
def mark_patterns8(groups):
    """Mark the four groups of 8-bit codes."""
    for group in range(4):
        groups[group] = u8(1)


@part
def is_occupied(table, group):
    """Whether any of a group's 64 keys was counted."""
    first, seen = i64(group) * 64, u32(0)
    for k in range(first, first + 64):
        seen = u32(seen | u32(table[k] | table[SIZE + k]))
    return seen != u32(0)


@part
def emit(table, shared, use_shared, order, everywhere, groups, keys, counts, at):
    """Append the non-zero counts of table (+ shared) in `order` to keys, counts from `at` on; returns the new end.

    `order` begins with the groups of 64 keys by ascending value, then lists the keys, 64 of a group after the other.
    """
    number = order.size // 65
    for g in range(number):
        group = order[g]
        if not (everywhere or groups[group]):
            continue
        if everywhere and not (is_occupied(table, group) or (use_shared and is_occupied(shared, group))):
            continue
        for i in range(number + 64 * g, number + 64 * g + 64):
            k = i64(order[i])
            count = i64(table[k]) + i64(table[SIZE + k])
            if use_shared:
                count += i64(shared[k]) + i64(shared[SIZE + k])
            keys[at], counts[at] = order[i], count  # always, into one entry more than can be used: no branch to mispredict
            at += i64(count > 0)
    return at


@part
def clear(table, order, everywhere, groups):
    """Zero a table again, as far as it was counted into."""
    for g in range(order.size // 65):
        group = order[g]
        if is_occupied(table, group) if everywhere else groups[group]:
            first = i64(group) * 64
            for k in range(first, first + 64):
                table[k] = 0
                table[SIZE + k] = 0
