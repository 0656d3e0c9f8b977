"""Zero points packed into 32-bit words: along the rows of the matrix (GPTQ, AWQ, compressed-tensors) or along its groups.

Metadata: `zeros_axis` (`rows` or `columns`), `zeros_codes` (`bits` dense, `words` padded), `zeros_order` (`awq`: eight columns
interleaved in a word), `zero_offset` (what is added to a stored code, modulo 2^bits). The component is [groups, words] for
`rows`, [rows, words] for `columns`.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from diffai_stream.encodings.base import Quantized, Read
from diffai_stream.encodings.decoding import Bytes, Floats, Plane, integer
from diffai_stream.encodings.packed import Codes, codes_of, unpacked

AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # the nibble of a word that holds column k of its eight


def packed_zeros(entry: Quantized, read: Read, first: int, last: int, groups: int) -> Floats:
    """float32[last - first, groups]: the zero points of rows [first, last)."""
    codes = codes_of(entry.metadata.get("zeros_codes", "bits"), integer(entry, "bits"))
    plane = Plane("zeros", entry.components["zeros"], read)
    if entry.metadata.get("zeros_axis") == "columns":
        zeros = _numbers(plane.take(first, last).view(np.uint8), codes, groups)
    else:
        zeros = _along_rows(entry, plane, codes, first, last)
    offset = integer(entry, "zero_offset", 0)
    if offset:
        zeros = zeros + np.float32(offset)
        zeros[zeros >= 1 << codes.bits] = 0  # stored as -1, which wrapped
    return np.ascontiguousarray(zeros)


def _along_rows(entry: Quantized, plane: Plane, codes: Codes, first: int, last: int) -> Floats:
    each, words = period(codes)
    start, stop = first // each, -(-last // each)
    taken = plane.take(0, plane.rows)[:, start * words : stop * words]
    count = (taken.shape[1] // words) * each + (taken.shape[1] % words) * 32 // codes.bits  # the last period may be cut
    numbers = _numbers(np.ascontiguousarray(taken).view(np.uint8), codes, count)
    if entry.metadata.get("zeros_order") == "awq":
        numbers = numbers.reshape(len(numbers), -1, 8)[:, :, AWQ_PLACES].reshape(len(numbers), -1)
    return numbers[:, first - start * each : last - start * each].T


def period(codes: Codes) -> tuple[int, int]:
    """(codes, words) after which a packed row stands at a word again."""
    if codes.packing.name == "WORDS":
        return 32 // codes.bits, 1
    common = gcd(codes.bits, 32)
    return 32 // common, codes.bits // common


def _numbers(rows: Bytes, codes: Codes, columns: int) -> Floats:
    rows = np.ascontiguousarray(rows)
    return unpacked(rows.reshape(-1), codes, rows.shape[1], columns)
