"""Where each number of a tensor's state row lies.

All sums, extremes and counts of a pair are one float64 row (counts are exact up to 2^53), so that a batch of tensors is
one matrix and merging, finalizing and travelling are vectorized over it. Three views of eleven columns, then the pair's.
"""

from __future__ import annotations

from enum import IntEnum


class View(IntEnum):
    """What a statistic looks at. DELTA is new - old; PAIR needs both sides at once."""

    OLD = 0
    NEW = 1
    DELTA = 2
    PAIR = 3


MOMENTS = ("n", "mean", "m2", "m3", "m4")
EXTREMA = ("min", "max")
COUNTS = ("zero", "nan", "posinf", "neginf")
AGREEMENT = ("changed", "unequal", "flips", "dot", "old_squares", "new_squares", "abs_sum", "max_abs", "max_index")

VIEW_WIDTH = len(MOMENTS) + len(EXTREMA) + len(COUNTS)
PAIR_START = 3 * VIEW_WIDTH
ROW_WIDTH = PAIR_START + len(AGREEMENT)

KEYS = 65_536  # the top 16 bits of a float32, or the pattern of a 16-bit code
COARSE_SHIFT = 6  # a layer's histogram keeps the top 10 bits: 1,024 keys
COARSE_KEYS = KEYS >> COARSE_SHIFT

LEAF_NUMEL = 32_768
ULP_FIRST_KEY = 0x3F80  # the key of a distance of one unit in the last place
BLOCK = 2048  # elements a kernel works on at a time, so that tiles stay in the first-level cache
LEAF = 19  # columns of a leaf's state: three views of five moments, then dot, old squares, new squares, abs
OUT = 24  # numbers a loop over a block can find
POWERS = 8  # numbers that are stored at once where moments of order 0 to 4 are made
TAIL = 16  # elements of a tail: what is left of a block after whole vectors, filled up with zeros
NONE, PATTERN16, PATTERN8, KEY = range(4)  # how a side is counted: not, by its 16- or 8-bit codes, by float32 keys


def column(view: View, field: str) -> int:
    """Index of a field of a view in the state row."""
    if view == View.PAIR:
        return PAIR_START + AGREEMENT.index(field)
    return int(view) * VIEW_WIDTH + (MOMENTS + EXTREMA + COUNTS).index(field)


def leaf_numel(shape: tuple[int, ...]) -> int:
    """Elements of a leaf: whole rows, about 32 Ki of them; a longer row is split."""
    columns = shape[-1] if shape else 1
    return columns * (LEAF_NUMEL // columns) if 0 < columns <= LEAF_NUMEL else LEAF_NUMEL
