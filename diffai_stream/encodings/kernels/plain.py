"""Raw bytes to float tiles: one loop a plain element type.

Bits stay in 32-bit integers at every step: numba widens mixed arithmetic to 64 bits, which is four times slower.
"""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import number, overload, part, types, vector

u16, u32, f32 = np.uint16, np.uint32, np.float32

F32, BF16, F16, CODE8, I16, U16, F64, I32, U32, I64, U64 = range(11)  # DecodeKind, as plain constants for the compiler


@part
def itemsize(kind):
    """Bytes of one element of a decode kind."""
    if kind == CODE8:
        return 1
    if kind == BF16 or kind == F16 or kind == I16 or kind == U16:
        return 2
    if kind == F32 or kind == I32 or kind == U32:
        return 4
    return 8


@part
def decode_bf16(bits, out):
    """float32 bits are bfloat16 bits, shifted."""
    for i in range(bits.size):
        out[i] = u32(u32(bits[i]) << u32(16))


@part
def half(bits):
    """float32 of an IEEE half: the exponent is rebased by a product with 2^112, Inf and NaN are put right after."""
    magnitude = u32(u32(bits) & u32(0x7FFF))
    value = np.uint32(magnitude << u32(13)).view(np.float32) * f32(2.0**112)
    encoded = np.float32(value).view(np.uint32)
    if magnitude >= u32(0x7C00):
        encoded = u32(encoded | u32(0x7F800000))
    return np.uint32(encoded | u32(u32(u32(bits) & u32(0x8000)) << u32(16))).view(np.float32)


@part
def decode_f16(bits, out):
    """float32 out[i] of IEEE halves."""
    for i in range(bits.size):
        out[i] = half(bits[i])


@part
def widen(values, out):
    """out[i] = values[i]; a plain loop compiles in a tenth of the time of a slice assignment."""
    for i in range(values.size):
        out[i] = values[i]


@part
def decode32(kind, raw, table, out):
    """float32 out[n] of the n elements in the bytes `raw`; `table` holds the values of 8-bit codes."""
    n = raw.size // itemsize(kind)
    if kind == F32:
        widen(raw.view(np.float32), out)
    elif kind == BF16:
        decode_bf16(raw.view(np.uint16), out.view(np.uint32))
    elif kind == F16:
        decode_f16(raw.view(np.uint16), out)
    elif kind == CODE8:
        for i in range(n):
            out[i] = table[raw[i]]
    elif kind == I16:
        widen(raw.view(np.int16), out)
    else:
        widen(raw.view(np.uint16), out)
    return n


@part
def decode64(kind, raw, table, out):
    """float64 out[n] of the n elements in the bytes `raw`, for every kind."""
    n = raw.size // itemsize(kind)
    if kind == F64:
        widen(raw.view(np.float64), out)
    elif kind == I32:
        widen(raw.view(np.int32), out)
    elif kind == U32:
        widen(raw.view(np.uint32), out)
    elif kind == I64:
        widen(raw.view(np.int64), out)
    elif kind == U64:
        widen(raw.view(np.uint64), out)
    elif kind == F32:
        widen(raw.view(np.float32), out)
    elif kind == BF16:
        bits = raw.view(np.uint16)
        for i in range(n):
            out[i] = np.uint32(u32(bits[i]) << u32(16)).view(np.float32)
    elif kind == F16:
        bits = raw.view(np.uint16)
        for i in range(n):
            out[i] = half(bits[i])
    elif kind == CODE8:
        for i in range(n):
            out[i] = table[raw[i]]
    elif kind == I16:
        widen(raw.view(np.int16), out)
    else:
        widen(raw.view(np.uint16), out)
    return n


def decode(kind, raw, table, out):
    """decode32 or decode64, by the element type of `out`: for use inside kernels, resolved when they are compiled."""
    raise TypeError("decode is for compiled kernels; see encodings/decode.py")


@overload(decode)
def _decode(kind, raw, table, out):
    if out.dtype == types.float32:
        return lambda kind, raw, table, out: decode32(kind, raw, table, out)
    return lambda kind, raw, table, out: decode64(kind, raw, table, out)


def decode_plain32(b):
    """decode_plain32: kind, raw, table, out of float32."""
    decode32(number(b, 0), vector(b, 1, np.uint8), vector(b, 2, np.float32), vector(b, 3, np.float32))


def decode_plain64(b):
    """decode_plain64: kind, raw, table, out of float64."""
    decode64(number(b, 0), vector(b, 1, np.uint8), vector(b, 2, np.float32), vector(b, 3, np.float64))
