"""State rows and leaves in kernels: where their columns lie (see `layout.py`), and how they begin, grow and merge."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, part
from diffai_stream.statistics.kernels.moments import merge_moments
from diffai_stream.statistics.layout import AGREEMENT, LEAF, PAIR_START, VIEW_WIDTH

OLD, NEW, DELTA = 0, VIEW_WIDTH, 2 * VIEW_WIDTH
MIN, MAX, ZERO, NAN, POSINF, NEGINF = 5, 6, 7, 8, 9, 10  # within a view's columns
CHANGED, UNEQUAL, FLIPS, DOT, OLD2, NEW2, ABS, MAX_ABS, INDEX = range(PAIR_START, PAIR_START + len(AGREEMENT))
LEAF_OLD, LEAF_NEW, LEAF_DELTA = 0, 5, 10  # moments within a leaf
LEAF_DOT, LEAF_OLD2, LEAF_NEW2, LEAF_ABS = 15, 16, 17, 18


@inlined
def clear_view(row, at):
    """The neutral state of a view: zeros and an empty range."""
    for c in range(at, at + VIEW_WIDTH):
        row[c] = 0.0
    row[at + MIN], row[at + MAX] = np.inf, -np.inf


@part
def empty_row(row):
    """The neutral state: zeros, empty ranges, no largest change."""
    for at in (OLD, NEW, DELTA):
        clear_view(row, at)
    for c in range(PAIR_START, row.size):
        row[c] = 0.0
    row[MAX_ABS], row[INDEX] = -1.0, -1.0


@inlined
def take_range(row, at, low, high):
    """Take a range into a view's extremes."""
    row[at + MIN], row[at + MAX] = min(row[at + MIN], low), max(row[at + MAX], high)


@part
def merge_rows(into, other):
    """Merge the state rows of two neighbouring parts of a tensor, `into` being the earlier one."""
    for at in (OLD, NEW, DELTA):
        merge_moments(into, at, other, at)
        take_range(into, at, other[at + MIN], other[at + MAX])
        for c in range(at + ZERO, at + VIEW_WIDTH):
            into[c] += other[c]
    for c in range(PAIR_START, MAX_ABS):
        into[c] += other[c]
    if other[MAX_ABS] > into[MAX_ABS]:
        into[MAX_ABS], into[INDEX] = other[MAX_ABS], other[INDEX]


@part
def merge_leaf(into, other):
    """Merge one leaf state into another."""
    for slot in (LEAF_OLD, LEAF_NEW, LEAF_DELTA):
        merge_moments(into, slot, other, slot)
    for i in range(LEAF_DOT, LEAF):
        into[i] += other[i]


@part
def settle(stack, top, row):
    """Merge the leaves that are left on the stack, right to left, into the row."""
    while top > 1:
        merge_leaf(stack[top - 2], stack[top - 1])
        top -= 1
    for view in range(3):
        for i in range(5):
            row[view * VIEW_WIDTH + i] = stack[0, view * 5 + i]
    row[DOT], row[OLD2] = stack[0, LEAF_DOT], stack[0, LEAF_OLD2]
    row[NEW2], row[ABS] = stack[0, LEAF_NEW2], stack[0, LEAF_ABS]
