"""What the codes and scales of a quantized tensor look like by themselves: how often each code occurs, which scales are broken.

Codes are counted byte by byte, whatever their order, so nothing is decoded; scales are read as the decoder reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Quantized, Read
from diffai_stream.encodings.decoding import Floats, Plane, integer
from diffai_stream.encodings.packed import codes_of, unpacked
from diffai_stream.encodings.quantized import QUANTIZED
from diffai_stream.native import Entry

count_bytes = Entry("diffai_stream.encodings.kernels.parts_entries", "count_bytes")

PIECE = 1 << 22  # bytes looked at at a time
BYTES = np.arange(256)
_NAMES = frozenset(row.name for row in QUANTIZED)


class Inspection(NamedTuple):
    """Counts of the codes by their bits (None where they cannot be counted), which of them are at the limit, and the scales.

    `nonfinite_scales` (biases too) and `zero_scales` are counts; `smallest_scale` and `largest_scale` the finite magnitudes,
    None when there is none.
    """

    codes: NDArray[np.int64] | None
    limits: tuple[int, ...]
    scale_count: int
    nonfinite_scales: int
    zero_scales: int
    smallest_scale: float | None
    largest_scale: float | None


def inspect(entry: Quantized, read: Read) -> Inspection | None:
    """Look at all codes and scales of a tensor, in pieces; None for encodings of another catalogue. Raises CheckpointError."""
    if entry.encoding not in _NAMES or "bits" not in entry.metadata:
        return None
    codes = _code_counts(entry, read)
    return Inspection(codes, _limits(entry, read, codes), *_scales(entry, read))


def _code_counts(entry: Quantized, read: Read) -> NDArray[np.int64] | None:
    """int64[2^bits] by code; None for layouts with unused bits that are not told apart."""
    bits, kind = integer(entry, "bits"), entry.metadata.get("codes", "bits")
    numel = prod(entry.stored_shape)
    nbytes = sum(extent.nbytes for extent in entry.components["data"].extents)
    if 8 % bits == 0 and kind != "words" and 0 <= nbytes * 8 - numel * bits < 8:
        counts = _fold(_byte_counts(read, nbytes), bits)
        counts[0] -= nbytes * 8 // bits - numel  # codes beyond the last element are zero
        return counts if counts[0] >= 0 else None
    if kind not in ("bits", "words") or entry.encoding.startswith("HQQ") or "version" in entry.metadata:
        return None
    return _unpacked_counts(entry, read, bits, kind, nbytes)


def _byte_counts(read: Read, nbytes: int) -> NDArray[np.int64]:
    tables = np.zeros((4, 256), np.int64)
    for start in range(0, nbytes, PIECE):
        count_bytes(np.ascontiguousarray(read("data", start, min(start + PIECE, nbytes))), tables)
    total: NDArray[np.int64] = tables.sum(0)
    return total


def _fold(counts: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Counts of codes of a width that divides 8, from those of bytes."""
    parts = [np.bincount((BYTES >> shift) & ((1 << bits) - 1), counts, 1 << bits) for shift in range(0, 8, bits)]
    return np.asarray(sum(parts), np.float64).astype(np.int64)


def _unpacked_counts(entry: Quantized, read: Read, bits: int, kind: str, nbytes: int) -> NDArray[np.int64] | None:
    """Counts of codes in whole rows of words; GPTQ's columns of words are rows for this purpose."""
    shape = entry.stored_shape
    words = entry.components["data"].shape
    if entry.encoding.startswith("GPTQ"):  # three words down a column hold 32 codes: turn a few columns at a time
        return _turned_counts(Plane("data", entry.components["data"], read), shape, bits)
    rows = prod(shape[:-1])
    row_nbytes = nbytes // rows if rows else 0
    counts = np.zeros(1 << bits, np.int64)
    step = max(1, PIECE // max(words[-1] * 4, 1))
    for first in range(0, rows, step):
        last = min(first + step, rows)
        numbers = unpacked(read("data", first * row_nbytes, last * row_nbytes), codes_of(kind, bits), row_nbytes, shape[-1])
        counts += np.bincount(numbers.reshape(-1).astype(np.uint8), minlength=1 << bits)
    return counts


def _turned_counts(plane: Plane, shape: tuple[int, ...], bits: int) -> NDArray[np.int64]:
    counts = np.zeros(1 << bits, np.int64)
    step = 3 * max(1, PIECE // 4 // max(3 * plane.columns, 1))
    for first in range(0, plane.rows, step):
        lines = np.ascontiguousarray(plane.take(first, min(first + step, plane.rows)).T).view(np.uint8)
        columns = lines.shape[1] * 8 // bits
        numbers = unpacked(lines.reshape(-1), codes_of("bits", bits), lines.shape[1], columns)
        counts += np.bincount(numbers.reshape(-1).astype(np.uint8), minlength=1 << bits)
    return counts


def _limits(entry: Quantized, read: Read, counts: NDArray[np.int64] | None) -> tuple[int, ...]:
    """The codes of the largest magnitude, as they are stored."""
    if counts is None:
        return ()
    kind = entry.metadata.get("codes", "bits")
    if "quant_map" in entry.components:
        values = np.abs(Plane("quant_map", entry.components["quant_map"], read).vector(0))
        return tuple(np.flatnonzero(values == np.nanmax(values)).tolist()) if np.isfinite(values).any() else ()
    if kind == "signed":
        return (0x7F, 0x80, 0x81)
    if kind == "signed_nibbles":
        return (7, 8)
    if kind == "F4":
        return (7, 15)
    if kind.startswith("F8"):
        values = np.abs(codes_table(kind))
        return tuple(np.flatnonzero(values == np.max(values[np.isfinite(values)])).tolist())
    return (0, len(counts) - 1)


def codes_table(kind: str) -> Floats:
    """float32[256]: the values of an 8-bit float of the catalogue."""
    from diffai_stream.encodings.plain import PLAIN

    return next(row for row in PLAIN if row.name == kind).table()


def _scales(entry: Quantized, read: Read) -> tuple[int, int, int, float | None, float | None]:
    """(count, not finite, zero, smallest, largest)."""
    count = nonfinite = zeros = 0
    limits: list[float] = []
    for name, piece in _scale_pieces(entry, read):
        finite = np.isfinite(piece)
        nonfinite += int(piece.size - np.count_nonzero(finite))
        if name == "biases":
            continue
        count += piece.size
        magnitudes = np.abs(piece[finite])
        zeros += int(np.count_nonzero(magnitudes == 0))
        limits += [float(magnitudes.min()), float(magnitudes.max())] if magnitudes.size else []
    return count, nonfinite, zeros, min(limits, default=None), max(limits, default=None)


def _scale_pieces(entry: Quantized, read: Read) -> Iterator[tuple[str, Floats]]:
    """All numbers that scale or shift codes, with the name of their component; for scales that are codes, what scales those."""
    for name in ("scales", "global_scale", "nested_scales", "biases"):
        component = entry.components.get(name)
        is_codes = name == "scales" and "nested_scales" in entry.components
        if component is None or is_codes:
            continue
        plane, numel = Plane(name, component, read), prod(component.shape)
        for start in range(0, numel, PIECE):
            yield name, plane.vector(start, min(start + PIECE, numel))
