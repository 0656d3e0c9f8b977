"""The entry points of the loops over packed codes: each takes its arguments out of the block and calls one loop."""

from __future__ import annotations

import numpy as np

from diffai_stream.encodings.kernels.grid import decode_rows, decode_turned, turn_nibbles, turn_words
from diffai_stream.jit import matrix, number, real, vector

u1, u4, i4, i8, f4 = np.uint8, np.uint32, np.int32, np.int64, np.float32


def decode_grid(b):
    """decode_rows: raw; packing, bits, row bits, columns, first, form; shift; width; table, scales, zeros, groups, out."""
    what = number(b, 1), number(b, 2), number(b, 3), number(b, 4), number(b, 5), number(b, 6)
    packing, bits, row_bits, columns, first, form = what
    planes = vector(b, 9, f4), matrix(b, 10, f4), matrix(b, 11, f4), vector(b, 12, i4)
    table, scales, zeros, groups = planes
    shift, width, out = f4(real(b, 7)), number(b, 8), vector(b, 13, f4)
    raw = vector(b, 0, u1)
    decode_rows(raw, packing, bits, row_bits, columns, first, form, shift, width, table, scales, zeros, groups, out)


def decode_grid_turned(b):
    """decode_turned: the arguments of decode_grid with a tile before out."""
    what = number(b, 1), number(b, 2), number(b, 3), number(b, 4), number(b, 5), number(b, 6)
    packing, bits, row_bits, _, first, form = what
    table, scales, zeros = vector(b, 9, f4), matrix(b, 10, f4), matrix(b, 11, f4)
    shift, width, tile, out = f4(real(b, 7)), number(b, 8), vector(b, 13, f4), vector(b, 14, f4)
    decode_turned(vector(b, 0, u1), packing, bits, row_bits, first, form, shift, width, table, scales, zeros, tile, out)


def turn_word_columns(b):
    """turn_words: words, first column, out."""
    turn_words(matrix(b, 0, u4), number(b, 1), matrix(b, 2, u4))


def turn_nibble_columns(b):
    """turn_nibbles: words, first column, rows of the eight places, out."""
    turn_nibbles(matrix(b, 0, u4), number(b, 1), vector(b, 2, i8), matrix(b, 3, u4))
