"""Codes at one place of consecutive items, under a scale and zero a row or a column (`parts.py`); bytes counted."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import matrix, number, part, vector

u1, u4, i4, i8, f4 = np.uint8, np.uint32, np.int32, np.int64, np.float32


@part
def unpack(items, shift, mask, out):
    """out[i] is the code of items[i] that begins at a bit."""
    for i in range(out.size):
        out[i] = f4(i4(u4(u4(items[i]) >> u4(shift)) & u4(mask)))


@part
def scale(out, columns, column, by_row, scales, zeros):
    """(q - zero) * scale in place; scales are one a row of `columns`, or one a column."""
    k = row = 0
    while k < out.size:
        m = min(columns - column, out.size - k)
        into = out[k : k + m]
        if by_row:
            s, z = scales[row], zeros[row]
            for i in range(m):
                into[i] = (into[i] - z) * s
        else:
            s, z = scales[column : column + m], zeros[column : column + m]
            for i in range(m):
                into[i] = (into[i] - z[i]) * s[i]
        k, column, row = k + m, 0, row + 1


def decode_part(b):
    """items, their bytes, shift, mask, columns, column of the first, by row, scales, zeros, out."""
    shift, mask, out = number(b, 2), number(b, 3), vector(b, 9, f4)
    if number(b, 1) == 1:
        unpack(vector(b, 0, u1), shift, mask, out)
    else:
        unpack(vector(b, 0, u1).view(u4), shift, mask, out)
    scale(out, number(b, 4), number(b, 5), number(b, 6) != 0, vector(b, 7, f4), vector(b, 8, f4))


def count_bytes(b):
    """raw, tables[4, 256]: how often each byte occurs; four tables, so that equal neighbours do not wait for each other."""
    raw, tables = vector(b, 0, u1), matrix(b, 1, i8)
    whole = raw.size & ~3
    for i in range(0, whole, 4):
        tables[0, raw[i]] += 1
        tables[1, raw[i + 1]] += 1
        tables[2, raw[i + 2]] += 1
        tables[3, raw[i + 3]] += 1
    for i in range(whole, raw.size):
        tables[0, raw[i]] += 1
