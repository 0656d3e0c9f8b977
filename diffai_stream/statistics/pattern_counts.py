"""How often each pattern occurs on a side: the whole distribution of a large tensor in some kilobytes, for a profile.

Encodings of up to 16 bits are counted by their patterns, others by the top half of their float32: the scan counts them anyway,
so they cost nothing more. Tensors below 2^22 elements have their 1,024 coarse keys, which are in the finished figures.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding
from diffai_stream.statistics.base import Keyed, OneSided, Tile
from diffai_stream.statistics.entries import distances_of_runs
from diffai_stream.statistics.layout import KEYS, View
from diffai_stream.statistics.scanner import Ask, Domain, Scanner, domain_of

MIN_NUMEL = 1 << 22  # of bfloat16 these are 8 MB, of which a sparse histogram of 10 KB is an eighth of a percent
_threads = threading.local()


class Counted(NamedTuple):
    """Patterns that occur, uint16 ascending, and how often, int64."""

    keys: NDArray[np.uint16]
    counts: NDArray[np.int64]


NOTHING = Counted(np.empty(0, np.uint16), np.empty(0, np.int64))


@dataclass(frozen=True)
class PatternCounts(OneSided[Counted]):
    """Counts of the patterns of one side, of tensors of at least 2^22 elements."""

    view: View = View.OLD

    def result_nbytes(self, shape: tuple[int, ...], numel: int) -> int:
        """Of every pattern."""
        return 10 * min(KEYS, numel)

    def empty(self) -> Counted:
        """Nothing counted."""
        return NOTHING

    def update(self, state: Counted, tile: Tile) -> Counted:
        """Count a tile by itself, where the scan that counts is not at hand."""
        new = self.view == View.NEW
        raw, encoding = (tile.raw_new, tile.encoding_new) if new else (tile.raw_old, tile.encoding_old)
        if not hasattr(_threads, "scanner"):
            _threads.scanner = Scanner()
        segment = np.array([[0, 0, tile.numel, max(tile.numel, 1), 0]], np.int64)
        part = _threads.scanner.scan(raw, raw, (encoding, encoding), segment, Ask(fourth=False))
        return self.merge(state, _sorted(part.runs[0]))

    def of_runs(self, runs: tuple[Keyed, Keyed], encodings: tuple[Encoding, Encoding], shape: tuple[int, ...]) -> Counted:
        """What the scan counted on the side."""
        return _sorted(runs[self.view])

    def of_pairs(self, pairs: Keyed, encodings: tuple[Encoding, Encoding]) -> Counted:
        """The side's half of pairs of 8-bit codes."""
        codes = pairs.keys >> 8 if self.view == View.NEW else pairs.keys & 0xFF
        return _sparse(np.bincount(codes, pairs.counts, 256).astype(np.int64))

    def merge(self, left: Counted, right: Counted) -> Counted:
        """Counts add up."""
        if not (left.keys.size and right.keys.size):
            return left if left.keys.size else right
        dense = np.zeros(KEYS, np.int64)
        dense[left.keys] = left.counts
        dense[right.keys] += right.counts
        return _sparse(dense)

    def finalize(self, state: Counted) -> dict[str, Any]:
        """`keys` uint16[k] ascending and their `counts`, in the smallest unsigned type; both empty below 2^22 elements."""
        keys, counts = state if state.counts.sum() >= MIN_NUMEL else NOTHING
        return {"keys": keys, "counts": counts.astype(np.min_scalar_type(int(counts.max(initial=0))))}


def pattern_distances(sides: Sequence[dict[str, Any]], encodings: Sequence[Encoding]) -> tuple[float, float, float]:
    """(KS, JS, W1) of the finalized counts of two sides, W1 in units of the values."""
    domains, out = [domain_of(encoding) for encoding in encodings], np.empty((1, 3))
    runs = [_by_value(side, domain) for side, domain in zip(sides, domains, strict=True)]
    ends = np.array([[run.keys.size for run in runs]], np.int64)
    same = domains[0].name == domains[1].name
    distances_of_runs(ends, *runs[0], domains[0].values, *runs[1], domains[1].values, same, out)
    ks, js, w1 = out[0].tolist()
    return ks, js, w1


def _by_value(side: dict[str, Any], domain: Domain) -> Counted:
    dense = np.zeros(domain.size, np.int64)
    dense[side["keys"]] = side["counts"]
    keys = domain.order[dense[domain.order] > 0]
    return Counted(keys, dense[keys])


def _sorted(run: Keyed) -> Counted:
    order = np.argsort(run.keys)
    return Counted(run.keys[order], run.counts[order])


def _sparse(dense: NDArray[np.int64]) -> Counted:
    keys = np.flatnonzero(dense)
    return Counted(keys.astype(np.uint16), dense[keys])
