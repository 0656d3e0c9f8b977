"""The scan: one pass over the bytes of two sides that fills the state rows and histograms of many segments.

A segment is a run of whole leaves of one tensor. Its blocks of 2,048 elements are compared as bytes, decoded, subtracted,
summed and counted while they are in the first-level cache; leaves merge along the complete binary tree over their
numbers, so the result does not depend on how a tensor was cut into segments.
"""

from __future__ import annotations

from diffai_stream.encodings.kernels.plain import itemsize
from diffai_stream.jit import part
from diffai_stream.statistics.kernels.blocks import block
from diffai_stream.statistics.kernels.rows import empty_row, merge_leaf, settle
from diffai_stream.statistics.kernels.tables import clear, emit
from diffai_stream.statistics.layout import BLOCK, LEAF

SMALL = 65_536  # tensors below this mark the groups of keys they touch, instead of having whole tables searched
OLD_BYTE, NEW_BYTE, NUMEL, LEAF_NUMEL, FIRST = range(5)  # columns of `segments`


@part
def scan_leaf(segment, start, end, row, old, new, rules, w):
    """Scan the elements [start, end) of a segment, block by block, into row and leaf; whether any block had equal bytes."""
    size_old, size_new, mark = itemsize(old.kind), itemsize(new.kind), segment[NUMEL] < SMALL
    for i in range(LEAF):
        w.leaf[i] = 0.0
    shared = False
    for at in range(start, end, BLOCK):
        n = min(BLOCK, end - at)
        first_old, first_new = segment[OLD_BYTE] + at * size_old, segment[NEW_BYTE] + at * size_new
        a, b = old.raw[first_old : first_old + n * size_old], new.raw[first_new : first_new + n * size_new]
        shared |= block(a, b, n, row, segment[FIRST] + at, mark, old, new, rules, w)
    return shared


@part
def segment_rows(segment, row, old, new, rules, w):
    """Scan one segment, leaf by leaf; leaves merge as soon as they are siblings. Returns whether any block had equal bytes."""
    numel, leaf_numel, top, shared = segment[NUMEL], segment[LEAF_NUMEL], 0, False
    empty_row(row)
    for i in range(LEAF):
        w.stack[0, i] = 0.0
    for number in range((numel + leaf_numel - 1) // leaf_numel):
        shared |= scan_leaf(segment, number * leaf_numel, min((number + 1) * leaf_numel, numel), row, old, new, rules, w)
        for i in range(LEAF):
            w.stack[top, i] = w.leaf[i]
        top += 1
        t = number
        while t & 1:
            merge_leaf(w.stack[top - 2], w.stack[top - 1])
            top -= 1
            t >>= 1
    settle(w.stack, top, row)
    return shared


@part
def segment_histograms(s, numel, shared, old, new, rules, w, h):
    """Move the tables of a finished segment into runs and clear them; `shared`: some blocks were counted for both sides."""
    everywhere, last = numel >= SMALL, max(s - 1, 0)
    for view in range(3):
        h.ends[s, view] = h.ends[last, view] if s else 0
    if shared and not everywhere:
        for g in range(w.groups_old.size):
            w.groups_new[g] |= w.groups_old[g]
    if old.counted:
        order, keys, counts = old.order, h.keys_old, h.counts_old
        h.ends[s, 0] = emit(w.table_old, w.table_shared, shared, order, everywhere, w.groups_old, keys, counts, h.ends[s, 0])
    if new.counted:
        order, keys, counts = new.order, h.keys_new, h.counts_new
        h.ends[s, 1] = emit(w.table_new, w.table_shared, shared, order, everywhere, w.groups_new, keys, counts, h.ends[s, 1])
    if rules.count_delta:
        order, keys, counts = w.key_order, h.keys_delta, h.counts_delta
        h.ends[s, 2] = emit(w.table_delta, w.table_shared, False, order, everywhere, w.groups_delta, keys, counts, h.ends[s, 2])
    if shared:
        clear(w.table_shared, everywhere, w.groups_old)
    for groups in (w.groups_old, w.groups_new, w.groups_delta):
        for g in range(groups.size):
            groups[g] = 0


@part
def scan_pair(segments, rows, old, new, rules, w, h):
    """Scan every segment: rows[s] is its state row, its histograms are appended to `h`."""
    for s in range(segments.shape[0]):
        shared = segment_rows(segments[s], rows[s], old, new, rules, w)
        segment_histograms(s, segments[s, NUMEL], shared, old, new, rules, w, h)
