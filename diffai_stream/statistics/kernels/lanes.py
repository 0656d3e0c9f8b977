"""Elements of a side for kernels, decoded on the way: from the bytes of 16-bit floats, else from a tile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffai_stream.encodings.kernels.plain import BF16, F16, half
from diffai_stream.jit import inlined, overload, types
from diffai_stream.vectors import converted, load, load_bytes, splat, viewed, where

f32, u16, u32 = np.float32, np.uint16, np.uint32


@inlined
def bfloats(codes):
    """bfloat16 as float32: the same bits, shifted."""
    return viewed(converted(codes, u32) << 16, f32)


def _halves(lanes: int) -> Callable:
    @inlined
    def halves(codes):
        """IEEE halves as float32: the exponent is rebased by a product with 2^112, Inf and NaN are put right after."""
        bits = converted(codes, u32)
        magnitude = bits & 0x7FFF
        value = viewed(viewed(magnitude << 13, f32) * 2.0**112, u32)
        value = value | where(magnitude > 0x7BFF, splat(u32(0x7F800000), lanes), splat(u32(0), lanes))
        return viewed(value | ((bits & 0x8000) << 16), f32)

    return halves


halves8, halves16 = _halves(8), _halves(16)


@inlined
def side32(raw, tile, k, kind):
    """Sixteen float32 from element k on: of the tile, or decoded from the bytes of 16-bit floats."""
    if kind == BF16:
        return bfloats(load_bytes(raw, 2 * k, 16, u16))
    if kind == F16:
        return halves16(load_bytes(raw, 2 * k, 16, u16))
    return load(tile, k, 16)


@inlined
def side64(raw, tile, k, kind):
    """Eight float64 of a tile."""
    return load(tile, k, 8)


@inlined
def _eight32(raw, tile, k, kind):
    if kind == BF16:
        return bfloats(load_bytes(raw, 2 * k, 8, u16))
    if kind == F16:
        return halves8(load_bytes(raw, 2 * k, 8, u16))
    return load(tile, k, 8)


@inlined
def _one32(raw, tile, k, kind):
    if kind == BF16:
        return np.uint32(u32(raw.view(u16)[k]) << u32(16)).view(f32)
    if kind == F16:
        return half(raw.view(u16)[k])
    return tile[k]


def eight(raw, tile, k, kind):
    """Eight elements from element k on, in the type of the tile: for use inside kernels."""
    raise TypeError("eight is for compiled kernels")


@overload(eight, inline="always")
def _eight(raw, tile, k, kind):
    if tile.dtype == types.float32:
        return lambda raw, tile, k, kind: _eight32(raw, tile, k, kind)
    return lambda raw, tile, k, kind: side64(raw, tile, k, kind)


def one(raw, tile, k, kind):
    """Element k, in the type of the tile: for use inside kernels."""
    raise TypeError("one is for compiled kernels")


@overload(one, inline="always")
def _one(raw, tile, k, kind):
    if tile.dtype == types.float32:
        return lambda raw, tile, k, kind: _one32(raw, tile, k, kind)
    return lambda raw, tile, k, kind: tile[k]
