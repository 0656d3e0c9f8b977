"""The fused statistics: moments, extrema, counts, agreement and key histograms of segments, filled by one loop.

`Scanner` owns one thread's buffers; `Runs` and `Part` are what leaves a task: a matrix of state rows and the sparse
histograms behind it. Merging parts, and completing rows from exact histograms, are at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Encoding
from diffai_stream.native import Packed, pack
from diffai_stream.statistics.buffers import Histograms, Rules, Side, Work
from diffai_stream.statistics.entries import merge_rows, moments_of_runs, scan_pair32, scan_pair64
from diffai_stream.statistics.layout import (
    BLOCK,
    KEY,
    KEYS,
    LEAF,
    NONE,
    OUT,
    PATTERN8,
    PATTERN16,
    POWERS,
    ROW_WIDTH,
    TAIL,
    View,
)

Bytes = NDArray[np.uint8]
CACHE_LINE = 64
STACK = 48  # levels of the tree over leaves: 2^48 leaves are enough


class Ask(NamedTuple):
    """What a scan computes beyond moments to order 2, extrema, counts and agreement."""

    histograms: bool = True
    fourth: bool = True
    absolute: float = 0.0
    relative: float = 0.0


class Run(NamedTuple):
    """A sparse histogram of one tensor and view: keys by ascending value, and their counts."""

    keys: NDArray[np.uint16]
    counts: NDArray[np.int64]


class Runs(NamedTuple):
    """Sparse histograms of one view of many segments, end to end; segment s ends at `ends[s]`."""

    keys: NDArray[np.uint16]
    counts: NDArray[np.int64]

    @classmethod
    def none(cls) -> Runs:
        """No histogram."""
        return cls(np.empty(0, np.uint16), np.empty(0, np.int64))


class Part(NamedTuple):
    """State of S segments: float64 rows[S, ROW_WIDTH], runs of the three views and of pairs of 8-bit codes, int64 ends[S, 4].

    Segments that are counted by pairs (`joint.py`) have no other runs until they are whole.
    """

    rows: NDArray[np.float64]
    runs: tuple[Runs, Runs, Runs, Runs]
    ends: NDArray[np.int64]

    def compact(self) -> Part:
        """The same in memory of its own, without the room that the scan needed."""
        runs = [Runs(run.keys.copy(), run.counts.copy()) for run in self.runs]
        return Part(self.rows, (runs[0], runs[1], runs[2], runs[3]), self.ends)

    def run(self, segment: int, view: int) -> Run:
        """The histogram of one segment and view."""
        start = int(self.ends[segment - 1, view]) if segment else 0
        piece = slice(start, int(self.ends[segment, view]))
        return Run(self.runs[view].keys[piece], self.runs[view].counts[piece])


class Domain(NamedTuple):
    """The keys of a counted side: the order to walk them in, their `values`, and whether these are exact patterns.

    `walk` begins with the groups of 64 keys by ascending value, then lists the keys, 64 of a group after the other.
    """

    counted: int
    walk: NDArray[np.uint16]
    values: NDArray[np.float64]
    exact: bool
    name: str
    limits: tuple[float, float] = (-np.inf, np.inf)

    @property
    def size(self) -> int:
        """How many keys there are."""
        return self.values.size

    @property
    def order(self) -> NDArray[np.uint16]:
        """The keys by ascending value."""
        return self.walk[self.size // 64 :]


def _domain(
    counted: int, order: NDArray[np.uint16], values: NDArray[np.float64], exact: bool, name: str, *limits: float
) -> Domain:
    walk = np.concatenate([order[::64] >> 6, order]).astype(np.uint16)
    return Domain(counted, walk, values, exact, name, (limits[0], limits[1]) if limits else (-np.inf, np.inf))


def _signed_order(size: int) -> NDArray[np.uint16]:
    """Sign-magnitude codes by ascending value: negative ones from the largest magnitude, then positive ones."""
    half = size // 2
    return np.concatenate([np.arange(size - 1, half - 1, -1), np.arange(half)]).astype(np.uint16)


@lru_cache(maxsize=1)
def key_domain() -> Domain:
    """Top halves of float32: the domain of deltas and of encodings with more than 16 bits. Values are lower edges."""
    with np.errstate(invalid="ignore"):  # signalling NaN patterns
        values = (np.arange(KEYS, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
    return _domain(KEY, _signed_order(KEYS), values, False, "key")


@lru_cache(maxsize=1)
def joint_domain() -> Domain:
    """Pairs of 8-bit codes, new in the high byte: they have no values of their own and are walked as they are numbered."""
    return _domain(PATTERN16, np.arange(KEYS, dtype=np.uint16), np.zeros(KEYS), True, "pair")


@lru_cache(maxsize=64)
def domain_of(encoding: Encoding) -> Domain:
    """How a side of this encoding is counted: by its exact patterns where it has at most 16 bits, else by keys."""
    if encoding.pattern_bits == 0:
        return key_domain()
    size = 1 << encoding.pattern_bits
    counted = PATTERN8 if size == 256 else PATTERN16
    values = encoding.pattern_values()
    return _domain(
        counted, _value_order(values, encoding), values, True, encoding.name, encoding.min_finite, encoding.max_finite
    )


def _value_order(values: NDArray[np.float64], encoding: Encoding) -> NDArray[np.uint16]:
    """Codes by ascending value, such that aligned runs of 64 codes stay together; impossible codes come last."""
    if encoding.bits < 8:
        possible = 1 << encoding.bits
        return np.concatenate([np.argsort(values[:possible], kind="stable"), np.arange(possible, 256)]).astype(np.uint16)
    if encoding.family == "float" and encoding.name != "F8_E8M0":
        return _signed_order(values.size)
    return np.argsort(values, kind="stable").astype(np.uint16)


def aligned(size: int, dtype: type) -> NDArray[Any]:
    """Zeros that begin at a cache line, so that no vector lies across two."""
    nbytes = size * np.dtype(dtype).itemsize
    room = np.zeros(nbytes + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + nbytes].view(dtype)


class Scanner:
    """One thread's buffers and tables for the scan kernel."""

    def __init__(self) -> None:
        self._work: dict[type, tuple[Work, Packed]] = {}
        self._shared: list[NDArray[Any]] = [
            *(aligned(size, np.float64) for size in (BLOCK, BLOCK, BLOCK, 2 * TAIL)),
            *(aligned(size, np.float64) for size in (OUT, POWERS, LEAF, STACK * LEAF)),
            *(aligned(2 * KEYS, np.uint32) for _ in range(4)),
            *(aligned(KEYS // 64, np.uint8) for _ in range(3)),
            key_domain().walk,
            aligned(1, np.uint8),
        ]
        self._shared[7] = self._shared[7].reshape(STACK, LEAF)

    def work(self, dtype: type) -> Packed:
        """The buffers for tiles of float32 or float64; tables are shared by both."""
        if dtype not in self._work:
            tiles = (aligned(size, dtype) for size in (BLOCK, BLOCK, BLOCK, 2 * TAIL))
            work = Work(*tiles, *self._shared)
            self._work[dtype] = work, Packed(pack(work))
        return self._work[dtype][1]

    def scan(self, old: Bytes, new: Bytes, encodings: tuple[Encoding, Encoding], segments: NDArray[np.int64], ask: Ask) -> Part:
        """The state of every segment.

        `segments` is int64[S, 5]: byte offset in old and in new, number of elements, elements a leaf, flat index of the
        first element. `old` and `new` are read-only and hold native little-endian elements.
        """
        first, second = encodings
        wide = max(first.kind, second.kind) >= DecodeKind.F64
        domains = (domain_of(first), domain_of(second), key_domain())
        histograms = self._histograms(segments, domains, ask)
        rows = np.empty((len(segments), ROW_WIDTH))
        sides = [
            Side(raw, int(e.kind), e.table(), d.counted if ask.histograms else NONE, needs_moments(d, ask), ask.fourth, d.walk)
            for raw, e, d in zip((old, new), encodings, domains, strict=False)
        ]
        tolerances = float(ask.absolute), float(ask.relative)
        rules = Rules(first is second, ask.histograms, ask.fourth, any(tolerances), *tolerances)
        entry, dtype = (scan_pair64, np.float64) if wide else (scan_pair32, np.float32)
        entry(segments, rows, *sides, rules, self.work(dtype), histograms)
        return self._part(rows, histograms)

    @staticmethod
    def _histograms(segments: NDArray[np.int64], domains: Sequence[Domain], ask: Ask) -> Histograms:
        """Room for the runs: as many entries as a segment has elements, at most one a key, and one that is never used."""
        arrays: list[NDArray[Any]] = []
        for domain in domains:
            room = int(np.minimum(segments[:, 2], domain.size).sum()) + 1 if ask.histograms else 0
            arrays += [np.empty(room, np.uint16), np.empty(room, np.int64)]
        ends = np.zeros((len(segments), 4), np.int64)
        return Histograms(*arrays, ends)  # type: ignore[call-arg]

    @staticmethod
    def _part(rows: NDArray[np.float64], h: Histograms) -> Part:
        """The state, its runs cut to their length in the room they were given."""
        pairs = ((h.keys_old, h.counts_old), (h.keys_new, h.counts_new), (h.keys_delta, h.counts_delta))
        used = h.ends[-1, :3] if len(h.ends) else (0, 0, 0)
        runs = [Runs(keys[:n], counts[:n]) for (keys, counts), n in zip(pairs, used, strict=True)]
        return Part(rows, (runs[0], runs[1], runs[2], Runs.none()), h.ends)


def needs_moments(domain: Domain, ask: Ask) -> bool:
    """Whether a side's moments are summed while scanning; else they follow from its exact histogram."""
    return not (ask.histograms and domain.exact)


def merge_parts(parts: Sequence[Part], domains: tuple[Domain, Domain]) -> Part:
    """One segment's parts, in order and aligned as siblings of the tree over leaves, as one."""
    rows = merge_tree([part.rows[0] for part in parts])
    all_domains = (*domains, key_domain(), joint_domain())
    runs = [_merge_runs([part.runs[view] for part in parts], domain) for view, domain in enumerate(all_domains)]
    return Part(rows[None, :], (runs[0], runs[1], runs[2], runs[3]), np.array([[run.keys.size for run in runs]], np.int64))


def merge_tree(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Merge state rows of neighbouring equal parts (the last may be shorter) along the complete binary tree."""
    stack: list[NDArray[np.float64]] = []
    for number, row in enumerate(rows):
        stack.append(row.copy())
        while number & 1:
            last = stack.pop()
            merge_rows(stack[-1], last)
            number >>= 1
    while len(stack) > 1:
        last = stack.pop()
        merge_rows(stack[-1], last)
    return stack[0]


def _merge_runs(runs: Sequence[Runs], domain: Domain) -> Runs:
    if len(runs) == 1 or not any(run.keys.size for run in runs):
        return runs[0]
    dense = np.zeros(domain.size, np.int64)
    for run in runs:
        dense[run.keys] += run.counts
    keys = domain.order[dense[domain.order] > 0]
    return Runs(keys, dense[keys])


def complete_rows(part: Part, domains: tuple[Domain, Domain], ask: Ask) -> None:
    """Fill the columns of sides whose moments follow from exact histograms; in place."""
    for view, domain in zip((View.OLD, View.NEW), domains, strict=True):
        if not needs_moments(domain, ask):
            runs = part.runs[view]
            moments_of_runs(part.ends, int(view), runs.keys, runs.counts, domain.values, part.rows)
