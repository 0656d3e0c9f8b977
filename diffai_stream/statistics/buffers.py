"""What the scan kernel is given, as plain tuples of arrays: known to Python and compiled code alike, in this order."""

from __future__ import annotations

from typing import Any, NamedTuple


class Side(NamedTuple):
    """One side of a scan: its bytes, how to decode and count them, whether moments are summed, and up to which order."""

    raw: Any  # uint8[:]
    kind: int
    values: Any  # float32[:], values of 8-bit codes
    counted: int  # NONE, PATTERN16, PATTERN8 or KEY
    moments: bool
    fourth: bool  # third and fourth moments too
    order: Any  # uint16[:], groups of keys and keys by ascending value


class Rules(NamedTuple):
    """What the pair asks for: the delta histogram, and the tolerance below which an element counts as unchanged."""

    same_encoding: bool
    count_delta: bool
    fourth: bool
    tolerant: bool
    absolute: float
    relative: float


class Work(NamedTuple):
    """Buffers and tables of one thread, allocated once. Tiles and tails have the tile dtype, `wide_*` are float64."""

    x: Any
    y: Any
    d: Any
    tails: Any
    wide_x: Any
    wide_y: Any
    wide_d: Any
    wide_tails: Any
    out: Any  # what a loop over a block found
    five: Any
    leaf: Any
    stack: Any
    table_old: Any
    table_new: Any
    table_shared: Any
    table_delta: Any
    groups_old: Any
    groups_new: Any
    groups_delta: Any
    key_order: Any
    bytes: Any  # stands for the bytes of tiles that have none


class Histograms(NamedTuple):
    """Where emitted (key, count) runs go, for the three views; `ends[s, v]` is the end of segment s in view v."""

    keys_old: Any
    counts_old: Any
    keys_new: Any
    counts_new: Any
    keys_delta: Any
    counts_delta: Any
    ends: Any
