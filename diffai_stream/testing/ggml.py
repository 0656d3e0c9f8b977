"""Round to nearest into the block types of ggml that no Python package writes: for tests, baselines and benchmarks.

The plainest rounding there is: scales from the extremes of each group, codes to the nearest. llama.cpp searches for better
scales, so its files come out a little ahead of the figures that these give.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
_IQ4 = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.float32)
_E2M1 = np.array((0, 0.5, 1, 1.5, 2, 3, 4, 6), np.float32)


def _divided(values: Floats, by: Floats) -> Floats:
    """Quotients, 0 where the divisor is 0."""
    return np.divide(values, by, out=np.zeros(np.broadcast_shapes(values.shape, by.shape), np.float32), where=by != 0)


def _halves(values: Floats) -> tuple[Bytes, Floats]:
    """Bytes of IEEE halves of [blocks, 1], and the values they hold."""
    halves = values.astype(np.float16)
    return halves.view(np.uint8), halves.astype(np.float32)


def _nearest(values: Floats, low: int, high: int) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = np.rint(np.clip(values, low, high)).astype(np.int32)
    return codes


def _bits(codes: NDArray[np.int32], first: int, count: int) -> NDArray[np.int32]:
    return codes >> first & ((1 << count) - 1)


def _packed(codes: NDArray[np.int32], run: int, bits: int) -> Bytes:
    """Codes of `bits` bits: `8 / bits` runs of `run` codes share `run` bytes, the first run in the lowest bits."""
    parts = 8 // bits
    groups = codes.reshape(codes.shape[0], -1, parts, run) << (bits * np.arange(parts))[:, None]
    packed: Bytes = np.bitwise_or.reduce(groups, axis=2).reshape(codes.shape[0], -1).astype(np.uint8)
    return packed


def _with_minimum(values: Floats, group: int, top: int, scale_top: int) -> tuple[list[Bytes], list[NDArray[np.int32]]]:
    """(bytes of d and dmin), (scales, minima, codes) of groups that have a minimum of their own."""
    parts = values.reshape(values.shape[0], -1, group)
    low = np.minimum(parts.min(2), 0)
    scale, depth = (parts.max(2) - low) / top, -low
    d_bytes, d = _halves(scale.max(1, keepdims=True) / scale_top)
    m_bytes, m = _halves(depth.max(1, keepdims=True) / scale_top)
    scales, minima = _nearest(_divided(scale, d), 0, scale_top), _nearest(_divided(depth, m), 0, scale_top)
    codes = _nearest(
        _divided(parts + (m * minima.astype(np.float32))[:, :, None], (d * scales.astype(np.float32))[:, :, None]), 0, top
    )
    return [d_bytes, m_bytes], [scales, minima, codes.reshape(values.shape)]


def _signed(values: Floats, group: int, low: int, scale_low: int) -> tuple[Bytes, NDArray[np.int32], NDArray[np.int32]]:
    """(bytes of d), scales, codes of groups around zero: the extreme of a group takes the code `low`."""
    parts = values.reshape(values.shape[0], -1, group)
    extreme = np.take_along_axis(parts, np.abs(parts).argmax(2)[:, :, None], 2)[:, :, 0]
    scale: Floats = (extreme / low).astype(np.float32)
    widest: Floats = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], 1)
    d_bytes, d = _halves((widest / scale_low).astype(np.float32))
    scales = _nearest(_divided(scale, d), scale_low, -scale_low - 1)
    codes = _nearest(_divided(parts, (d * scales.astype(np.float32))[:, :, None]), low, -low - 1)
    return d_bytes, scales, codes.reshape(values.shape)


def q2_k(values: Floats) -> Bytes:
    """uint8[blocks, 84] of float32[blocks, 256]."""
    halves, (scales, minima, codes) = _with_minimum(values, 16, 3, 15)
    return np.concatenate([(scales | minima << 4).astype(np.uint8), _packed(codes, 32, 2), *halves], axis=1)


def q3_k(values: Floats) -> Bytes:
    """uint8[blocks, 110] of float32[blocks, 256]."""
    half, scales, codes = _signed(values, 16, -4, -32)
    codes, six = codes + 4, scales + 32
    third = np.bitwise_or.reduce(_bits(codes, 2, 1).reshape(-1, 8, 32) << np.arange(8)[:, None], axis=1).astype(np.uint8)
    low = _packed(_bits(six, 0, 4), 8, 4)
    return np.concatenate([third, _packed(_bits(codes, 0, 2), 32, 2), low, _packed(_bits(six, 4, 2), 4, 2), half], axis=1)


def _sixes(scales: NDArray[np.int32], minima: NDArray[np.int32]) -> Bytes:
    """Twelve bytes of eight 6-bit scales and minima."""
    first = scales[:, :4] | _bits(scales[:, 4:], 4, 2) << 6
    second = minima[:, :4] | _bits(minima[:, 4:], 4, 2) << 6
    third = _bits(scales[:, 4:], 0, 4) | _bits(minima[:, 4:], 0, 4) << 4
    return np.concatenate([first, second, third], axis=1).astype(np.uint8)


def q4_k(values: Floats) -> Bytes:
    """uint8[blocks, 144] of float32[blocks, 256]."""
    halves, (scales, minima, codes) = _with_minimum(values, 32, 15, 63)
    return np.concatenate([*halves, _sixes(scales, minima), _packed(codes, 32, 4)], axis=1)


def q5_k(values: Floats) -> Bytes:
    """uint8[blocks, 176] of float32[blocks, 256]."""
    halves, (scales, minima, codes) = _with_minimum(values, 32, 31, 63)
    fifth = np.bitwise_or.reduce(_bits(codes, 4, 1).reshape(-1, 8, 32) << np.arange(8)[:, None], axis=1).astype(np.uint8)
    return np.concatenate([*halves, _sixes(scales, minima), fifth, _packed(_bits(codes, 0, 4), 32, 4)], axis=1)


def q6_k(values: Floats) -> Bytes:
    """uint8[blocks, 210] of float32[blocks, 256]."""
    half, scales, codes = _signed(values, 16, -32, -128)
    codes = codes + 32
    return np.concatenate(
        [
            _packed(_bits(codes, 0, 4), 64, 4),
            _packed(_bits(codes, 4, 2), 32, 2),
            scales.astype(np.int8).view(np.uint8),
            half,
        ],
        axis=1,
    )


def _closest(values: Floats, table: Floats) -> NDArray[np.int32]:
    """Index of the nearest entry of an ascending table."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values).astype(np.int32)


def iq4_nl(values: Floats) -> Bytes:
    """uint8[blocks, 18] of float32[blocks, 32]."""
    extreme = np.take_along_axis(values, np.abs(values).argmax(1)[:, None], 1)
    half, d = _halves(extreme / _IQ4[0])
    return np.concatenate([half, _packed(_closest(_divided(values, d), _IQ4), 16, 4)], axis=1)


def iq4_xs(values: Floats) -> Bytes:
    """uint8[blocks, 136] of float32[blocks, 256]."""
    half, scales, _ = _signed(values, 32, -127, -32)
    d = half.view(np.float16).astype(np.float32)
    parts = values.reshape(values.shape[0], 8, 32)
    codes = _closest(_divided(parts, (d * scales.astype(np.float32))[:, :, None]), _IQ4).reshape(values.shape)
    six = scales + 32
    tops = np.bitwise_or.reduce(_bits(six, 4, 2) << 2 * np.arange(8), axis=1).astype(np.uint16)[:, None].view(np.uint8)
    return np.concatenate([half, tops, _packed(_bits(six, 0, 4), 1, 4), _packed(codes, 16, 4)], axis=1)


def nvfp4(values: Floats) -> Bytes:
    """uint8[blocks, 36] of float32[blocks, 64]."""
    from diffai_stream.encodings.plain import minifloat

    scales = minifloat(4, 3, 7, ())[:127]
    parts = values.reshape(values.shape[0], 4, 16)
    chosen = _closest(np.abs(parts).max(2) / _E2M1[-1], scales)
    size = _closest(np.abs(_divided(parts, scales[chosen][:, :, None])), _E2M1)
    codes = size | np.signbit(parts).astype(np.int32) << 3
    return np.concatenate([chosen.astype(np.uint8), _packed(codes.reshape(values.shape), 8, 4)], axis=1)


ROUND: dict[str, Callable[[Floats], Bytes]] = {
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "NVFP4": nvfp4,
}
