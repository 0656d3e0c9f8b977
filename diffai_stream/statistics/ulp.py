"""How far apart two floats of one encoding are, in units in the last place: how many values lie between them, plus one.

Signs and magnitudes are mapped to ordered integers, in which neighbouring floats differ by one and ±0 by nothing (Bruce
Dawson, "Comparing floating point numbers"). Infinity counts as the value after the largest finite one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Encoding
from diffai_stream.native import Entry
from diffai_stream.statistics.base import Keyed, Statistic, Tile
from diffai_stream.statistics.layout import ULP_FIRST_KEY, View

_MODULE = "diffai_stream.statistics.kernels.ulp"
count_distances = {
    2: Entry(_MODULE, "count_distances16"),
    4: Entry(_MODULE, "count_distances32"),
    8: Entry(_MODULE, "count_distances64"),
}  # by the bytes of a code

ULP_KEYS = 0x5F80 - ULP_FIRST_KEY + 2  # up to a distance of 2^64; 0 has a place of its own before that of 1
Codes = NDArray[np.unsignedinteger]
_CODES = {64: np.uint64, 32: np.uint32, 16: np.uint16}


class UlpCounts(NamedTuple):
    """Counts by key of distance (trailing zeros cut off), the largest distance, whether both sides have one float encoding."""

    counts: NDArray[np.int64]
    largest: int
    applies: bool


@lru_cache(maxsize=16)
def _ordered_codes(encoding: Encoding) -> NDArray[np.uint16]:
    """uint16[256]: the codes of a small float with the sign in bit 15 and NaN above every magnitude."""
    half = 1 << (encoding.exponent_bits + encoding.mantissa_bits)  # 256 for E8M0, which has no sign
    codes = np.arange(256) & (2 * half - 1)
    ordered = np.where(codes >= half, 0x8000 | (codes - half), codes)
    return np.where(np.isnan(encoding.table()), 0x7FFF, ordered).astype(np.uint16)


def _codes(raw: NDArray[np.uint8], encoding: Encoding) -> tuple[Codes, int, int]:
    """Sign-magnitude codes of raw bytes, their bits, and the largest magnitude that is not NaN."""
    if encoding.kind == DecodeKind.CODE8:
        return _ordered_codes(encoding)[raw], 16, 0x7FFE
    bits = encoding.itemsize * 8
    infinity = ((1 << encoding.exponent_bits) - 1) << encoding.mantissa_bits
    codes = raw if raw.ctypes.data % encoding.itemsize == 0 else raw.copy()
    return codes.view(_CODES[bits]), bits, infinity


def _distance_at(key: int) -> int:
    """The distance that a key stands for: itself up to 256, then the middle of the key's range."""
    if key == 0:
        return 0
    edge = int(np.array((key - 1 + ULP_FIRST_KEY) << 16, np.uint32).view(np.float32))
    return edge if edge < 256 else edge + edge // 256


@dataclass(frozen=True)
class UlpDistance(Statistic[UlpCounts]):
    """Median, 99th percentile and maximum of the distance in units in the last place; pairs with NaN are left out."""

    view: View = View.PAIR

    def empty(self) -> UlpCounts:
        """No pair."""
        return UlpCounts(np.zeros(0, np.int64), 0, True)

    def update(self, state: UlpCounts, tile: Tile) -> UlpCounts:
        """Count the pairs of a tile."""
        encoding = tile.encoding_old
        if encoding.name != tile.encoding_new.name or encoding.family != "float":
            return UlpCounts(state.counts, state.largest, False)
        counts = np.zeros(ULP_KEYS, np.int64)
        old, bits, infinity = _codes(tile.raw_old, encoding)
        new, largest = _codes(tile.raw_new, encoding)[0], np.empty(1, np.uint64)
        count_distances[old.itemsize](old, new, bits, infinity, counts, largest)
        return self.merge(state, UlpCounts(np.trim_zeros(counts, "b"), int(largest[0]), True))

    def of_pairs(self, pairs: Keyed, encodings: tuple[Encoding, Encoding]) -> UlpCounts:
        """Count every pair of codes once, by how often it occurs."""
        if encodings[0].name != encodings[1].name or encodings[0].family != "float":
            return UlpCounts(np.zeros(0, np.int64), 0, False)
        sides = [_ordered_codes(encodings[0])[codes].astype(np.int32) for codes in (pairs.keys & 255, pairs.keys >> 8)]
        numbers = (sides[0] & 0x7FFF < 0x7FFF) & (sides[1] & 0x7FFF < 0x7FFF)
        signed = [np.where(side & 0x8000, 0x8000 - side, side)[numbers] for side in sides]
        distances = abs(signed[1] - signed[0])
        places = np.maximum((distances.astype(np.float32).view(np.uint32) >> 16).astype(np.int64) - (ULP_FIRST_KEY - 1), 0)
        counts = np.zeros(int(places.max(initial=-1)) + 1, np.int64)
        np.add.at(counts, places, pairs.counts[numbers])
        return UlpCounts(counts, int(distances.max(initial=0)), True)

    def merge(self, left: UlpCounts, right: UlpCounts) -> UlpCounts:
        """Counts add up."""
        counts = np.zeros(max(left.counts.size, right.counts.size), np.int64)
        counts[: left.counts.size] += left.counts
        counts[: right.counts.size] += right.counts
        return UlpCounts(counts, max(left.largest, right.largest), left.applies and right.applies)

    def finalize(self, state: UlpCounts) -> dict[str, int | None]:
        """`ulp_p50`, `ulp_p99` (inverted CDF, exact below 256, then within 2^-7) and `ulp_max` (exact).

        None where the encodings differ or are not floats, and where no pair of numbers was seen.
        """
        seen = np.cumsum(state.counts)
        if not state.applies or seen.size == 0:
            return {"ulp_p50": None, "ulp_p99": None, "ulp_max": None}
        ranks = [-(-int(seen[-1]) * percent // 100) for percent in (50, 99)]
        p50, p99 = (min(_distance_at(int(np.searchsorted(seen, rank))), state.largest) for rank in ranks)
        return {"ulp_p50": p50, "ulp_p99": p99, "ulp_max": state.largest}
