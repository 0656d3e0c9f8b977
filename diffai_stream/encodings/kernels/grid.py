"""Rows of packed codes under a grid of scales to float32: the loops behind `grid.py`, `gptq.py`, `awq.py`.

A tile of codes is unpacked into the output and scaled there while it is in the first-level cache. Integers stay in 32 bits
as in `plain.py`; loops over 2, 4 or 8 codes a step are what the compiler turns into vectors.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import inlined, part, prefetch

u1, u4, u8, i4, i8, f4 = np.uint8, np.uint32, np.uint64, np.int32, np.int64, np.float32
TILE = 4096  # codes unpacked at a time; a multiple of every step
STRIDE = 65  # of a square of 64 by 64 that is turned: at 64 a column would share two sets of the cache
AHEAD = 32  # rows of words that are fetched before they are turned
BITS, PAIRS, TABLE, SIGNED, E4M3, WORDS, E2M1 = range(7)  # grid.Packing
MULTIPLY, SUBTRACT, ADD = range(3)  # grid.Form


@part
def code_at(raw, bit, bits):
    """The code of 1 to 8 bits that begins at a bit of little-endian bytes."""
    at, shift = bit >> 3, u4(bit & 7)
    word = u4(raw[at])
    if (bit & 7) + bits > 8:
        word = u4(word | u4(u4(raw[at + 1]) << u4(8)))
    return u4(u4(word >> shift) & u4((1 << bits) - 1))


@part
def unpack_one(raw, n, out):
    """Eight 1-bit codes a byte, lowest first."""
    for i in range(n >> 3):
        word = u4(raw[i])
        for j in range(8):
            out[8 * i + j] = f4(i4(u4(word >> u4(j)) & u4(1)))


@part
def unpack_two(raw, n, out):
    """Four 2-bit codes a byte, lowest first."""
    for i in range(n >> 2):
        word = u4(raw[i])
        out[4 * i] = f4(i4(word & u4(3)))
        out[4 * i + 1] = f4(i4(u4(word >> u4(2)) & u4(3)))
        out[4 * i + 2] = f4(i4(u4(word >> u4(4)) & u4(3)))
        out[4 * i + 3] = f4(i4(word >> u4(6)))


@part
def unpack_three(raw, n, out):
    """Eight 3-bit codes in three bytes, lowest first."""
    for i in range(n >> 3):
        high = u4(u4(u4(raw[3 * i + 1]) << u4(8)) | u4(u4(raw[3 * i + 2]) << u4(16)))
        word = u4(u4(raw[3 * i]) | high)
        for j in range(8):
            out[8 * i + j] = f4(i4(u4(word >> u4(3 * j)) & u4(7)))


@part
def unpack_four(raw, n, out):
    """Two 4-bit codes a byte, lowest first."""
    for i in range(n >> 1):
        word = u4(raw[i])
        out[2 * i] = f4(i4(word & u4(15)))
        out[2 * i + 1] = f4(i4(word >> u4(4)))


@part
def unpack_wide(raw, bits, n, out):
    """Eight codes of 5, 6 or 7 bits in as many bytes, lowest first."""
    mask = u8((1 << bits) - 1)
    for i in range(n >> 3):
        word = u8(0)
        for j in range(bits):
            word |= u8(raw[bits * i + j]) << u8(8 * j)
        for j in range(8):
            out[8 * i + j] = f4(i4((word >> u8(bits * j)) & mask))


@part
def unpack_bits(raw, bits, bit, n, out):
    """out[0:n] of a dense stream of codes that begins at a bit: one by one up to the next whole byte, then eight by eight."""
    k = 0
    while k < n and (bit + k * bits) & 7:
        out[k] = f4(i4(code_at(raw, bit + k * bits, bits)))
        k += 1
    whole = (n - k) & ~7
    if whole:
        bytes_, into = raw[(bit + k * bits) >> 3 :], out[k : k + whole]
        if bits == 4:
            unpack_four(bytes_, whole, into)
        elif bits == 8:
            for i in range(whole):
                into[i] = f4(i4(bytes_[i]))
        elif bits == 2:
            unpack_two(bytes_, whole, into)
        elif bits == 3:
            unpack_three(bytes_, whole, into)
        elif bits == 1:
            unpack_one(bytes_, whole, into)
        else:
            unpack_wide(bytes_, bits, whole, into)
    for i in range(k + whole, n):
        out[i] = f4(i4(code_at(raw, bit + i * bits, bits)))


@part
def look_up_pairs(raw, bit, n, table, out):
    """out[0:n] of 4-bit codes, two a byte; the values of a byte are table[2 * byte] and table[2 * byte + 1], in that order."""
    k, at = 0, bit >> 3
    if n and bit & 7:
        out[0] = table[2 * i8(raw[at]) + 1]
        k, at = 1, at + 1
    pairs, couples = table.view(np.uint64), (n - k) >> 1
    into = out[k : k + 2 * couples].view(np.uint64)
    for i in range(couples):
        into[i] = pairs[raw[at + i]]
    if k + 2 * couples < n:
        out[n - 1] = table[2 * i8(raw[at + couples])]


@part
def decode_e4m3(raw, out):
    """OCP E4M3: the exponent is moved by 120 in place; subnormal codes count 2^-9, 0x7f is NaN."""
    bits = out.view(np.uint32)
    for i in range(out.size):
        code = u4(raw[i])
        magnitude = u4(code & u4(0x7F))
        normal = u4(u4(magnitude << u4(20)) + u4(120 << 23))
        small = np.float32(f4(i4(magnitude)) * f4(2.0**-9)).view(np.uint32)
        value = small if magnitude < u4(8) else normal
        value = u4(0x7FC00000) if magnitude == u4(0x7F) else value
        bits[i] = u4(value | u4(u4(code & u4(0x80)) << u4(24)))


@part
def e2m1(code):
    """float32 bits of a 4-bit float: the exponent is moved by 126 in place; codes 0 and 1 count halves."""
    magnitude = u4(code & u4(7))
    normal = u4(u4(magnitude << u4(22)) + u4(126 << 23))
    small = np.float32(f4(i4(magnitude)) * f4(0.5)).view(np.uint32)
    value = small if magnitude < u4(2) else normal
    return u4(value | u4(u4(code & u4(8)) << u4(28)))


@part
def decode_e2m1(raw, bit, n, out):
    """out[0:n] of 4-bit floats, two a byte, the low one first."""
    bits, at, k = out.view(np.uint32), bit >> 3, 0
    if n and bit & 7:
        bits[0] = e2m1(u4(raw[at] >> u1(4)))
        at, k = at + 1, 1
    couples = (n - k) >> 1
    codes, into = raw[at : at + couples], bits[k : k + 2 * couples]
    for i in range(couples):
        word = u4(codes[i])
        into[2 * i] = e2m1(u4(word & u4(15)))
        into[2 * i + 1] = e2m1(u4(word >> u4(4)))
    if k + 2 * couples < n:
        bits[n - 1] = e2m1(u4(raw[at + couples] & u1(15)))


@part
def unpack_words(raw, bits, row_bit, column, n, out):
    """out[0:n] of codes that never straddle 32-bit words: 32 // bits of them in each, lowest first, the rest unused."""
    each = 32 // bits
    for i in range(n):
        word, place = (column + i) // each, (column + i) % each
        out[i] = f4(i4(code_at(raw, row_bit + 32 * word + bits * place, bits)))


@part
def unpack(packing, raw, bits, row_bit, column, n, table, out):
    """out[0:n] of the codes from `column` on of a row that begins at `row_bit`, as numbers before scaling."""
    bit = row_bit + column * bits
    if packing == BITS:
        unpack_bits(raw, bits, bit, n, out)
    elif packing == PAIRS:
        look_up_pairs(raw, bit, n, table, out)
    elif packing == E2M1:
        decode_e2m1(raw, bit, n, out)
    elif packing == E4M3:
        decode_e4m3(raw[bit >> 3 :], out[:n])
    elif packing == WORDS:
        unpack_words(raw, bits, row_bit, column, n, out)
    elif packing == SIGNED:
        signed = raw[bit >> 3 :].view(np.int8)
        for i in range(n):
            out[i] = f4(signed[i])
    else:
        codes = raw[bit >> 3 :]
        for i in range(n):
            out[i] = table[codes[i]]


@inlined
def scale_run(out, form, scale, zero):
    """(q - zero) * scale, or q * scale + zero, in place."""
    if form == ADD:
        for i in range(out.size):
            out[i] = out[i] * scale + zero
    elif zero == f4(0):
        for i in range(out.size):
            out[i] = out[i] * scale
    else:
        for i in range(out.size):
            out[i] = (out[i] - zero) * scale


@part
def scale_named(out, form, shift, scales, zeros, groups):
    """Scale elements in place, each by its own group."""
    if form == MULTIPLY:
        for i in range(out.size):
            out[i] = (out[i] - shift) * scales[groups[i]]
    elif form == SUBTRACT:
        for i in range(out.size):
            g = groups[i]
            out[i] = (out[i] - zeros[g]) * scales[g]
    else:
        for i in range(out.size):
            g = groups[i]
            out[i] = out[i] * scales[g] + zeros[g]


@inlined
def scale_groups(out, column, form, shift, width, scales, zeros, row):
    """Scale the elements from `column` on of one row, in groups of `width` columns."""
    i, g = 0, column // width if column else 0  # a division costs as much as the scaling of a short row
    end = (g + 1) * width - column
    while i < out.size:
        stop = min(end, out.size)
        scale_run(out[i:stop], form, scales[row, g], zeros[row, g] if form != MULTIPLY else shift)
        i, g, end = stop, g + 1, end + width


@part
def decode_rows(raw, packing, bits, row_bits, columns, first, form, shift, width, table, scales, zeros, groups, out):
    """out of the elements that begin `first` after the start of the rows in `raw`; row r of the planes is row r of `raw`."""
    is_dense, k = row_bits == columns * bits, 0
    row, column = first // columns, first % columns
    while k < out.size:
        n = min(TILE, out.size - k)
        if not is_dense:
            n = min(n, columns - column)
        unpack(packing, raw, bits, row * row_bits, column, n, table, out[k : k + n])
        end = k + n
        while k < end:
            m = min(columns - column, end - k)
            if groups.size:
                scale_named(out[k : k + m], form, shift, scales[row], zeros[row], groups[column : column + m])
            else:
                scale_groups(out[k : k + m], column, form, shift, width, scales, zeros, row)
            k, column = k + m, column + m
            if column == columns:
                row, column = row + 1, 0


@part
def decode_turned(raw, packing, bits, row_bits, first, form, shift, width, table, scales, zeros, tile, out):
    """Columns `first` and on of a matrix of rows in `raw`, each as a line of `out`, in squares of 64 by 64."""
    rows = scales.shape[0]
    n = out.size // rows
    for r in range(0, rows, 64):
        high = min(64, rows - r)
        for c in range(0, n, 64):
            m = min(64, n - c)
            for j in range(high):
                into = tile[STRIDE * j : STRIDE * j + m]
                unpack(packing, raw, bits, (r + j) * row_bits, first + c, m, table, into)
                scale_groups(into, first + c, form, shift, width, scales, zeros, r + j)
            for i in range(m):
                line = out[(c + i) * rows + r : (c + i) * rows + r + high]
                for j in range(high):
                    line[j] = tile[STRIDE * j + i]


@part
def turn_words(words, first, out):
    """out[o, k] = words[k, first + o]: a strip of columns as rows, in squares of one cache line a side."""
    count, depth = out.shape[0], words.shape[0]
    width = words.shape[1]
    for k in range(0, depth, 16):
        below = min(k + 16, depth)
        for o in range(0, count, 16):
            for j in range(below, min(below + 16, depth)):  # the rows lie too far apart for the processor to guess
                prefetch(words, j * width + first + o)
            for j in range(k, below):  # line by line: rows of a power of two apart do not fit into the cache together
                for i in range(o, min(o + 16, count)):
                    out[i, j] = words[j, first + i]


@inlined
def swap(a, b, shift, mask):
    """The pieces of a above `shift` and those of b below it change places, where the mask has bits."""
    moved = u4(u4(u4(a >> shift) ^ b) & mask)
    return u4(a ^ u4(moved << shift)), u4(b ^ moved)


@part
def turn_nibbles(words, first, rows, out):
    """out[8 c + rows[p], i // 8] holds the nibbles at place p of words[i .. i + 8, first + c]: squares of eight by eight."""
    count, depth, width = out.shape[0] // 8, words.shape[0] // 8, words.shape[1]
    for start in range(0, count, 16):  # one cache line of words
        for block in range(depth):
            i = 8 * block
            for j in range(i + AHEAD, min(i + AHEAD + 8, words.shape[0])):
                prefetch(words, j * width + first + start)
                prefetch(words, j * width + first + start + 15)
            for c in range(start, min(start + 16, count)):
                at, to = first + c, 8 * c
                a0, a1, a2, a3 = words[i, at], words[i + 1, at], words[i + 2, at], words[i + 3, at]
                a4, a5, a6, a7 = words[i + 4, at], words[i + 5, at], words[i + 6, at], words[i + 7, at]
                a0, a4 = swap(a0, a4, u4(16), u4(0x0000FFFF))
                a1, a5 = swap(a1, a5, u4(16), u4(0x0000FFFF))
                a2, a6 = swap(a2, a6, u4(16), u4(0x0000FFFF))
                a3, a7 = swap(a3, a7, u4(16), u4(0x0000FFFF))
                a0, a2 = swap(a0, a2, u4(8), u4(0x00FF00FF))
                a1, a3 = swap(a1, a3, u4(8), u4(0x00FF00FF))
                a4, a6 = swap(a4, a6, u4(8), u4(0x00FF00FF))
                a5, a7 = swap(a5, a7, u4(8), u4(0x00FF00FF))
                a0, a1 = swap(a0, a1, u4(4), u4(0x0F0F0F0F))
                a2, a3 = swap(a2, a3, u4(4), u4(0x0F0F0F0F))
                a4, a5 = swap(a4, a5, u4(4), u4(0x0F0F0F0F))
                a6, a7 = swap(a6, a7, u4(4), u4(0x0F0F0F0F))
                out[to + rows[0], block], out[to + rows[1], block] = a0, a1
                out[to + rows[2], block], out[to + rows[3], block] = a2, a3
                out[to + rows[4], block], out[to + rows[5], block] = a4, a5
                out[to + rows[6], block], out[to + rows[7], block] = a6, a7
