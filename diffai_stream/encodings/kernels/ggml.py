"""Blocks of ggml to float32: one loop a type.

`raw` is uint8[blocks, bytes of a block], `out` float32[blocks, elements of a block], `values` what codes and scales stand for
where no formula says it. Products and sums are in the order of the reference (`ggml-quants.c` of ggml-org/ggml), so that the
bits are the same. Widths come from `out.shape`: a loop whose length the compiler knows is unrolled into scalar code instead
of vectors, which is three times slower.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.encodings.kernels.plain import half
from diffai_stream.jit import part

f4, i1, i4, u4 = np.float32, np.int8, np.int32, np.uint32


@part
def half_at(raw, b, at):
    """The IEEE half at a byte of block b."""
    return half(u4(u4(raw[b, at]) | u4(u4(raw[b, at + 1]) << u4(8))))


@part
def nibble(raw, b, at, high):
    """The low (high = 0) or high (1) four bits of a byte."""
    return i4(i4(i4(raw[b, at]) >> i4(4 * high)) & i4(15))


@part
def bit(raw, b, at, number):
    """Bit `number` of a byte."""
    return i4(i4(i4(raw[b, at]) >> i4(number)) & i4(1))


@part
def pair_of_bits(raw, b, at, number):
    """Bits 2 * number and 2 * number + 1 of a byte."""
    return i4(i4(i4(raw[b, at]) >> i4(2 * number)) & i4(3))


@part
def q1_0(raw, out):
    """f16 d, 16 bytes of bits, the lowest first: w = d where the bit is set, else -d."""
    width = out.shape[1]
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 0)
        for i in range(width):
            out[b, i] = d * f4(i4(bit(raw, b, 2 + (i >> 3), i & 7) << i4(1)) - i4(1))


@part
def q4_0(raw, out):
    """f16 d, 16 bytes: low nibbles are the first half; w = d (q - 8)."""
    width = out.shape[1] >> 1
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 0)
        for high in range(2):
            for i in range(width):
                out[b, high * width + i] = d * f4(nibble(raw, b, 2 + i, high) - i4(8))


@part
def q4_1(raw, out):
    """f16 d, f16 m, 16 bytes: w = d q + m."""
    width = out.shape[1] >> 1
    for b in range(raw.shape[0]):
        d, m = half_at(raw, b, 0), half_at(raw, b, 2)
        for high in range(2):
            for i in range(width):
                out[b, high * width + i] = d * f4(nibble(raw, b, 4 + i, high)) + m


@part
def word(raw, b, at):
    """The u32 at a byte of block b."""
    low = u4(u4(raw[b, at]) | u4(u4(raw[b, at + 1]) << u4(8)))
    return u4(low | u4(u4(u4(raw[b, at + 2]) << u4(16)) | u4(u4(raw[b, at + 3]) << u4(24))))


@part
def fifth(bits, i):
    """16 where bit i is set."""
    return i4(u4(u4(bits >> u4(i)) & u4(1)) << u4(4))


@part
def q5_0(raw, out):
    """f16 d, u32 of fifth bits, 16 bytes: w = d (q - 16)."""
    width = out.shape[1] >> 1
    for b in range(raw.shape[0]):
        d, bits = half_at(raw, b, 0), word(raw, b, 2)
        for high in range(2):
            for i in range(width):
                q = i4(nibble(raw, b, 6 + i, high) | fifth(bits, high * width + i))
                out[b, high * width + i] = d * f4(q - i4(16))


@part
def q5_1(raw, out):
    """f16 d, f16 m, u32 of fifth bits, 16 bytes: w = d q + m."""
    width = out.shape[1] >> 1
    for b in range(raw.shape[0]):
        d, m, bits = half_at(raw, b, 0), half_at(raw, b, 2), word(raw, b, 4)
        for high in range(2):
            for i in range(width):
                q = i4(nibble(raw, b, 8 + i, high) | fifth(bits, high * width + i))
                out[b, high * width + i] = d * f4(q) + m


@part
def q8_0(raw, out):
    """f16 d, 32 signed bytes: w = d q."""
    width = out.shape[1]
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 0)
        for i in range(width):
            out[b, i] = f4(i1(raw[b, 2 + i])) * d


@part
def q2_k(raw, out):
    """16 bytes of 4-bit scale and minimum, 64 bytes of 2-bit codes, f16 d, f16 dmin: w = d s q - dmin m, by 16."""
    width = out.shape[1] >> 4
    for b in range(raw.shape[0]):
        d, dmin = half_at(raw, b, 80), half_at(raw, b, 82)
        for s in range(16):
            scale, low = d * f4(nibble(raw, b, s, 0)), dmin * f4(nibble(raw, b, s, 1))
            at, number = 16 + 32 * (s >> 3) + 16 * (s & 1), (s >> 1) & 3
            for i in range(width):
                out[b, 16 * s + i] = scale * f4(pair_of_bits(raw, b, at + i, number)) - low


@part
def q3_k(raw, out):
    """32 bytes of third bits, 64 of 2-bit codes, 12 of 6-bit scales, f16 d: w = d (s - 32) (q - 4), by 16."""
    width = out.shape[1] >> 4
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 108)
        for s in range(16):
            low = nibble(raw, b, 96 + (s & 7), s >> 3)
            six = i4(low | i4(pair_of_bits(raw, b, 104 + (s & 3), s >> 2) << i4(4)))
            scale = d * f4(six - i4(32))
            at, number, third = 32 + 32 * (s >> 3) + 16 * (s & 1), (s >> 1) & 3, 16 * (s & 1)
            for i in range(width):
                q = i4(pair_of_bits(raw, b, at + i, number) | i4(bit(raw, b, third + i, s >> 1) << i4(2)))
                out[b, 16 * s + i] = scale * f4(q - i4(4))


@part
def scale_and_minimum(raw, b, s):
    """The 6-bit scale and minimum of sub-block s in the 12 bytes from byte 4 on."""
    if s < 4:
        return i4(raw[b, 4 + s]) & i4(63), i4(raw[b, 8 + s]) & i4(63)
    scale = i4(nibble(raw, b, 8 + s, 0) | i4(pair_of_bits(raw, b, s, 3) << i4(4)))
    return scale, i4(nibble(raw, b, 8 + s, 1) | i4(pair_of_bits(raw, b, 4 + s, 3) << i4(4)))


@part
def q4_k(raw, out):
    """f16 d, f16 dmin, 12 bytes of scales, 128 of nibbles: w = d s q - dmin m, by 32."""
    width = out.shape[1] >> 3
    for b in range(raw.shape[0]):
        d, dmin = half_at(raw, b, 0), half_at(raw, b, 2)
        for s in range(8):
            six, minimum = scale_and_minimum(raw, b, s)
            scale, low = d * f4(six), dmin * f4(minimum)
            for i in range(width):
                out[b, 32 * s + i] = scale * f4(nibble(raw, b, 16 + 32 * (s >> 1) + i, s & 1)) - low


@part
def q5_k(raw, out):
    """As Q4_K with 32 bytes of fifth bits before the nibbles."""
    width = out.shape[1] >> 3
    for b in range(raw.shape[0]):
        d, dmin = half_at(raw, b, 0), half_at(raw, b, 2)
        for s in range(8):
            six, minimum = scale_and_minimum(raw, b, s)
            scale, low = d * f4(six), dmin * f4(minimum)
            for i in range(width):
                q = i4(nibble(raw, b, 48 + 32 * (s >> 1) + i, s & 1) | i4(bit(raw, b, 16 + i, s) << i4(4)))
                out[b, 32 * s + i] = scale * f4(q) - low


@part
def q6_k(raw, out):
    """128 bytes of nibbles, 64 of 2-bit tops, 16 signed scales, f16 d: w = d s (q - 32), by 16."""
    width = out.shape[1] >> 4
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 208)
        for s in range(16):
            scale = d * f4(i1(raw[b, 192 + s]))
            group = (s >> 1) & 3
            at, top = 64 * (s >> 3) + 32 * (group & 1) + 16 * (s & 1), 128 + 32 * (s >> 3) + 16 * (s & 1)
            for i in range(width):
                q = i4(nibble(raw, b, at + i, group >> 1) | i4(pair_of_bits(raw, b, top + i, group) << i4(4)))
                out[b, 16 * s + i] = scale * f4(q - i4(32))


@part
def trit(raw, b, at, power):
    """The base-3 digit that a product by 3^k brings to the top of a byte, minus 1."""
    return i4(i4(i4(i4(i4(raw[b, at]) * i4(power)) & i4(255)) * i4(3)) >> i4(8)) - i4(1)


@part
def tq1_0(raw, out):
    """48 bytes of five trits and 4 of four, f16 d: w = d t."""
    width = out.shape[1] >> 3
    for b in range(raw.shape[0]):
        d, power = half_at(raw, b, 52), 1
        for n in range(5):
            for i in range(width):
                out[b, width * n + i] = d * f4(trit(raw, b, i, power))
            for i in range(width >> 1):
                out[b, 160 + (width >> 1) * n + i] = d * f4(trit(raw, b, 32 + i, power))
            if n < 4:
                for i in range(4):
                    out[b, 240 + 4 * n + i] = d * f4(trit(raw, b, 48 + i, power))
            power *= 3


@part
def tq2_0(raw, out):
    """64 bytes of 2-bit codes, f16 d: w = d (q - 1)."""
    width = out.shape[1] >> 3
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 64)
        for s in range(8):
            for i in range(width):
                out[b, width * s + i] = d * f4(pair_of_bits(raw, b, 32 * (s >> 2) + i, s & 3) - i4(1))


@part
def iq4_nl(raw, out, values):
    """f16 d, 16 bytes: w = d values[q]."""
    width = out.shape[1] >> 1
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 0)
        for high in range(2):
            for i in range(width):
                out[b, high * width + i] = d * values[nibble(raw, b, 2 + i, high)]


@part
def iq4_xs(raw, out, values):
    """f16 d, u16 of scale tops, 4 bytes of scale nibbles, 128 of nibbles: w = d (s - 32) values[q], by 32."""
    width = out.shape[1] >> 4
    for b in range(raw.shape[0]):
        d = half_at(raw, b, 0)
        for s in range(8):
            top = pair_of_bits(raw, b, 2 + (s >> 2), s & 3)
            scale = d * f4(i4(nibble(raw, b, 4 + (s >> 1), s & 1) | i4(top << i4(4))) - i4(32))
            for high in range(2):
                for i in range(width):
                    out[b, 32 * s + 16 * high + i] = scale * values[nibble(raw, b, 8 + 16 * s + i, high)]


@part
def scaled_fp4(raw, out, values, groups):
    """`groups` scale bytes, then a run of nibbles for each, low ones first: w = values[16 + e] values[q]."""
    width = out.shape[1] // (2 * groups)
    for b in range(raw.shape[0]):
        for g in range(groups):
            scale = values[16 + i4(raw[b, g])]
            for high in range(2):
                for i in range(width):
                    place = (2 * g + high) * width + i
                    out[b, place] = scale * values[nibble(raw, b, groups + g * width + i, high)]


@part
def mxfp4(raw, out, values):
    """A power-of-two scale for 32 elements."""
    scaled_fp4(raw, out, values, 1)


@part
def nvfp4(raw, out, values):
    """Four E4M3 scales, each for 16 elements."""
    scaled_fp4(raw, out, values, 4)
