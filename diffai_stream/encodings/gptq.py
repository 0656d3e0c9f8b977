"""GPTQ and AWQ: integer codes packed into the words of a matrix [in, out], read as rows of [out, in].

GPTQ packs along `in`: `qweight` [in * bits / 32, out], word (k, o) continues the stream of codes of output o, the lowest bit
first, so turning the words gives rows. AWQ packs eight outputs into a word of `qweight` [in, out / 8], in an order of its own,
so squares of nibbles are turned. Scales are [groups, out], zero points packed along `out` (`zeros.py`).
"""

from __future__ import annotations

import numpy as np

from diffai_stream.encodings import grid
from diffai_stream.encodings.base import Decoder, Quantized, Read
from diffai_stream.encodings.decoding import Bytes, Plane
from diffai_stream.encodings.grid import GridDecoder, GridPlanes, group_index, layout_of
from diffai_stream.encodings.packed import turn_nibble_columns, turn_word_columns
from diffai_stream.encodings.zeros import AWQ_PLACES

PADDING = 16  # words after each turned row: rows a power of two apart would share few cache lines
ROWS_OF_PLACES = np.argsort(AWQ_PLACES).astype(np.int64)


def open_decoder(entry: Quantized, read: Read) -> Decoder:
    """The decoder of a tensor [out, in] whose component `data` holds words as GPTQ or AWQ stores them."""
    if entry.metadata.get("version") == "gemv":
        return grid.open_decoder(entry, read)
    plane = Plane("data", entry.components["data"], read)
    turned = _awq_rows if entry.metadata.get("zeros_order") == "awq" else _gptq_rows

    def rows_of(first: int, last: int) -> tuple[Bytes, int]:
        return turned(plane, first, last)

    planes = GridPlanes(entry, read, entry.stored_shape[0])
    return GridDecoder(layout_of(entry, entry.stored_shape[1]), rows_of, planes.of, group_index(entry, read))


def _words(plane: Plane) -> np.ndarray:
    """All words as a matrix; only the pages of the columns that are turned are ever touched."""
    words = plane.take(0, plane.rows).view(np.uint32)
    return words if words.ctypes.data % 4 == 0 else words.copy()


def _gptq_rows(plane: Plane, first: int, last: int) -> tuple[Bytes, int]:
    words = _words(plane)
    out = np.empty((last - first, words.shape[0] + PADDING), np.uint32)
    turn_word_columns(words, first, out)
    return out.reshape(-1).view(np.uint8), 32 * out.shape[1]


def _awq_rows(plane: Plane, first: int, last: int) -> tuple[Bytes, int]:
    words = _words(plane)
    start, stop = first // 8, -(-last // 8)
    out = np.empty((8 * (stop - start), words.shape[0] // 8 + PADDING), np.uint32)
    turn_nibble_columns(words, start, ROWS_OF_PLACES, out)
    return out[first - 8 * start :].reshape(-1).view(np.uint8), 32 * out.shape[1]
