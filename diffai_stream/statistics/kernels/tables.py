"""Counting patterns and keys: dense tables while scanning, sorted runs of (key, count) when a tensor's part is done.

A table has two neighbouring uint32 for each of 65,536 keys, for elements at even and odd places, so that equal neighbours
do not wait for each other's store. A key is the top half of a float32's bits: sign, exponent and seven fraction bits, 2^-7
wide relatively.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, part, prefetch
from diffai_stream.vectors import any_set, bump, load, word

u8, u16, u32, u64, i64 = np.uint8, np.uint16, np.uint32, np.uint64, np.int64

MASK = u64(0xFFFF)
S16, S32, S48 = u64(16), u64(32), u64(48)
ONE = u64(1)
LARGEST_KEY = 0x7F7F  # of finite values
CELLS = 128  # of a group of 64 keys


@inlined
def count_codes(raw, at, table):
    """Count the sixteen 16-bit codes in the 32 bytes from `at` on."""
    for k in range(at, at + 32, 8):
        w = word(raw, k)
        bump(table, (w & MASK) << ONE)
        bump(table, (((w >> S16) & MASK) << ONE) | ONE)
        bump(table, ((w >> S32) & MASK) << ONE)
        bump(table, ((w >> S48) << ONE) | ONE)


@inlined
def count_tops(tile, at, table):
    """Count the keys of the sixteen float32 of a tile from its byte `at` on."""
    for k in range(at, at + 64, 8):
        w = word(tile, k)
        bump(table, ((w >> S16) & MASK) << ONE)
        bump(table, ((w >> S48) << ONE) | ONE)


@part
def count_patterns16(raw, start, table):
    """Count the 16-bit codes in the bytes `raw` from byte `start` on, and fetch the next block: it lies in another page."""
    whole = start + (raw.size - start) // 32 * 32
    for at in range(start, whole, 32):
        prefetch(raw, at + raw.size)
        count_codes(raw, at, table)
    codes = raw[whole:].view(np.uint16)
    for i in range(codes.size):
        bump(table, u64(codes[i]) << ONE)


@part
def count_patterns8(raw, table):
    """Count the 8-bit codes in the bytes `raw`."""
    for i in range(raw.size):
        bump(table, (u64(raw[i]) << ONE) | u64(i & 1))


@part
def count_keys32(x, start, n, table):
    """Count the keys of the float32 x[start:n]."""
    bits = x.view(np.uint32)
    for i in range(start, n):
        bump(table, (u64(bits[i]) >> S16) << ONE)


@part
def uncount_keys32(x, n, table):
    """Take back what was counted of x[:n]; a cell may wrap around, the sum of the two does not."""
    bits = x.view(np.uint32)
    for i in range(n):
        table[(u64(bits[i]) >> S16) << ONE] -= u32(1)


@part
def key_of(value):
    """The key of a finite float; what overflows float32 counts as its largest finite key."""
    bits = np.float32(value).view(np.uint32)
    key = u32(bits >> u32(16))
    if u32(key & u32(0x7FFF)) > u32(LARGEST_KEY):
        key = u32(u32(key & u32(0x8000)) | u32(LARGEST_KEY))
    return u64(key)


@part
def count_keys(x, n, table):
    """Count the keys of the n finite floats x[:n]."""
    for i in range(n):
        bump(table, (key_of(x[i]) << ONE) | u64(i & 1))


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


@inlined
def is_occupied(table, group):
    """Whether any of a group's 64 keys was counted."""
    first = i64(group) * CELLS
    seen = load(table, first, 16)
    for k in range(first + 16, first + CELLS, 16):
        seen = seen | load(table, k, 16)
    return any_set(seen)


@inlined
def take(table, k):
    """The count of the key whose cells lie at k, which are cleared; it may have been taken back in the other cell."""
    count = u32(table[k] + table[k + 1])
    table[k], table[k + 1] = 0, 0
    return count


@part
def emit(table, shared, use_shared, order, everywhere, groups, keys, counts, at):
    """Append the non-zero counts of table (+ shared) in `order` to keys, counts from `at` on; returns the new end.

    `order` begins with the groups of 64 keys by ascending value, then lists the keys, 64 of a group after the other. The
    table is cleared, `shared` is not. Without `everywhere`, only the groups marked in `groups` are looked at.
    """
    number = order.size // 65
    for g in range(number):
        group = order[g]
        if not (everywhere or groups[group]):
            continue
        if everywhere and not (is_occupied(table, group) or (use_shared and is_occupied(shared, group))):
            continue
        for i in range(number + 64 * g, number + 64 * g + 64):
            k = 2 * i64(order[i])
            count = take(table, k)
            if use_shared:
                count = u32(count + u32(shared[k] + shared[k + 1]))
            keys[at], counts[at] = order[i], i64(count)  # always, into one entry more than can be used: no branch to mispredict
            at += i64(count > 0)
    return at


@part
def clear(table, everywhere, groups):
    """Zero a table again, as far as it was counted into."""
    for group in range(table.size // CELLS):
        if is_occupied(table, group) if everywhere else groups[group]:
            for k in range(group * CELLS, (group + 1) * CELLS):
                table[k] = 0
