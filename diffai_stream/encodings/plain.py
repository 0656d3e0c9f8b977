"""Plain element types: IEEE floats, bfloat16, the 8-, 6- and 4-bit floats of OCP and FNUZ, integers, complex numbers.

Layouts: IEEE 754; OCP 8-bit floating point specification 1.0 (E4M3 without infinity, E5M2) and microscaling
specification 1.0 (E8M0, E2M1, E2M3, E3M2); FNUZ variants (one NaN at 0x80, no negative zero, bias one higher).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Encoding


def minifloat(
    exponent_bits: int, mantissa_bits: int, bias: int, nan_codes: tuple[int, ...], inf_code: int = -1
) -> NDArray[np.float32]:
    """float32[256]: the value of every code of a small float; codes above its width repeat.

    `nan_codes` and `inf_code` are magnitudes (sign bit clear), except the lone FNUZ NaN, which is the sign bit itself.
    """
    width = 1 + exponent_bits + mantissa_bits
    sign_bit = 1 << (width - 1)
    codes = np.arange(256) & ((1 << width) - 1)
    magnitude = codes & (sign_bit - 1)
    exponent, fraction = magnitude >> mantissa_bits, (magnitude & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    value = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    if inf_code >= 0:
        value[magnitude == inf_code] = np.inf
    value = np.where(codes & sign_bit, -value, value)
    for code in nan_codes:
        value[(codes == code) if code == sign_bit else (magnitude == code)] = np.nan
    return np.asarray(value, np.float32)


def scale_exponents() -> NDArray[np.float32]:
    """float32[256] of E8M0: 2^(code - 127), 255 is NaN."""
    with np.errstate(over="ignore"):
        value: NDArray[np.float32] = np.exp2(np.arange(256) - 127.0).astype(np.float32)
    value[255] = np.nan
    return value


def bytes_as(dtype: str) -> NDArray[np.float32]:
    """float32[256] of one-byte integers; BOOL counts every non-zero byte as 1."""
    codes = np.arange(256, dtype=np.uint8)
    return (codes != 0).astype(np.float32) if dtype == "?" else codes.view(dtype).astype(np.float32)


def narrow(bits: int, is_signed: bool) -> NDArray[np.float32]:
    """float32[256] of integers of a few bits; codes above their width repeat."""
    codes = np.arange(256) & ((1 << bits) - 1)
    sign_bit = 1 << (bits - 1)
    return ((codes ^ sign_bit) - sign_bit if is_signed else codes).astype(np.float32)


def unpack_crumbs(raw: NDArray[np.uint8], numel: int) -> NDArray[np.uint8]:
    """uint8[numel] of 2-bit codes, the lowest bits first."""
    return np.stack([raw & 3, raw >> 2 & 3, raw >> 4 & 3, raw >> 6], axis=1).reshape(-1)[:numel]


def unpack_nibbles(raw: NDArray[np.uint8], numel: int) -> NDArray[np.uint8]:
    """uint8[numel] of 4-bit codes, the low nibble first."""
    return np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:numel]


def unpack_sixes(raw: NDArray[np.uint8], numel: int) -> NDArray[np.uint8]:
    """uint8[numel] of 6-bit codes, packed from the lowest bit up (four codes in three bytes)."""
    bits = np.unpackbits(raw, bitorder="little")[: numel * 6].reshape(numel, 6)
    return np.packbits(bits, axis=1, bitorder="little").reshape(-1)


def _float(
    name: str, bits: int, kind: DecodeKind, exponent: int, mantissa: int, limit: float, pattern: int = 0, **more: Any
) -> Encoding:
    return Encoding(name, bits, kind, "float", pattern, exponent, mantissa, -limit, limit, **more)


def _integer(name: str, bits: int, kind: DecodeKind, low: int, high: int, pattern: int = 0, **more: Any) -> Encoding:
    return Encoding(name, bits, kind, "integer", pattern, 0, 0, float(low), float(high), **more)


def _small(
    name: str,
    bits: int,
    exponent: int,
    mantissa: int,
    bias: int,
    limit: float,
    nan: tuple[int, ...],
    inf: int = -1,
    **more: Any,
) -> Encoding:
    values = partial(minifloat, exponent, mantissa, bias, nan, inf)
    return _float(name, bits, DecodeKind.CODE8, exponent, mantissa, limit, 8, values=values, **more)


_F32_MAX = float(np.finfo(np.float32).max)
_F64_MAX = float(np.finfo(np.float64).max)
_BF16_MAX = 3.3895313892515355e38

PLAIN: tuple[Encoding, ...] = (
    _float("F64", 64, DecodeKind.F64, 11, 52, _F64_MAX, title="IEEE double"),
    _float("F32", 32, DecodeKind.F32, 8, 23, _F32_MAX, title="IEEE single"),
    _float("F16", 16, DecodeKind.F16, 5, 10, 65504.0, 16, title="IEEE half"),
    _float("BF16", 16, DecodeKind.BF16, 8, 7, _BF16_MAX, 16, title="bfloat16"),
    _small("F8_E4M3", 8, 4, 3, 7, 448.0, (0x7F,), title="OCP E4M3, no infinity"),
    _small("F8_E5M2", 8, 5, 2, 15, 57344.0, (0x7D, 0x7E, 0x7F), inf=0x7C, title="OCP E5M2"),
    _small("F8_E4M3FNUZ", 8, 4, 3, 8, 240.0, (0x80,), title="E4M3, one NaN, no negative zero"),
    _small("F8_E5M2FNUZ", 8, 5, 2, 16, 57344.0, (0x80,), title="E5M2, one NaN, no negative zero"),
    _float("F8_E8M0", 8, DecodeKind.CODE8, 8, 0, 2.0**127, 8, values=scale_exponents, title="power-of-two scale"),
    _small("F6_E2M3", 6, 2, 3, 1, 7.5, (), unpack=unpack_sixes, title="OCP E2M3"),
    _small("F6_E3M2", 6, 3, 2, 3, 28.0, (), unpack=unpack_sixes, title="OCP E3M2"),
    _small("F4", 4, 2, 1, 1, 6.0, (), unpack=unpack_nibbles, title="OCP E2M1, two a byte"),
    _integer("I64", 64, DecodeKind.I64, -(2**63), 2**63 - 1),
    _integer("U64", 64, DecodeKind.U64, 0, 2**64 - 1),
    _integer("I32", 32, DecodeKind.I32, -(2**31), 2**31 - 1),
    _integer("U32", 32, DecodeKind.U32, 0, 2**32 - 1),
    _integer("I16", 16, DecodeKind.I16, -(2**15), 2**15 - 1, 16),
    _integer("U16", 16, DecodeKind.U16, 0, 2**16 - 1, 16),
    _integer("I8", 8, DecodeKind.CODE8, -128, 127, 8, values=partial(bytes_as, "i1")),
    _integer("U8", 8, DecodeKind.CODE8, 0, 255, 8, values=partial(bytes_as, "u1")),
    _integer("I4", 4, DecodeKind.CODE8, -8, 7, 8, values=partial(narrow, 4, True), unpack=unpack_nibbles, title="two a byte"),
    _integer("U4", 4, DecodeKind.CODE8, 0, 15, 8, values=partial(narrow, 4, False), unpack=unpack_nibbles, title="two a byte"),
    _integer("I2", 2, DecodeKind.CODE8, -2, 1, 8, values=partial(narrow, 2, True), unpack=unpack_crumbs, title="four a byte"),
    _integer("U2", 2, DecodeKind.CODE8, 0, 3, 8, values=partial(narrow, 2, False), unpack=unpack_crumbs, title="four a byte"),
    Encoding("BOOL", 8, DecodeKind.CODE8, "bool", 8, max_finite=1.0, values=partial(bytes_as, "?"), title="0 or 1"),
    _float("C64", 64, DecodeKind.F32, 8, 23, _F32_MAX, components=2, title="complex, two singles"),
    _float("C128", 128, DecodeKind.F64, 11, 52, _F64_MAX, components=2, title="complex, two doubles"),
)
