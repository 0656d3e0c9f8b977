"""Keys of TensorFlow checkpoints that name a slice of a partitioned tensor.

Such a key is (0, name, rank, start and length of each axis) in an encoding whose bytes sort as the values do
(ordered_code.cc, saved_tensor_slice_util.cc of TensorFlow).
"""

from __future__ import annotations

from collections.abc import Sequence

_SEPARATOR = b"\0\1"
_ESCAPES = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}


def slice_key(name: bytes, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key of a slice; an axis that is taken whole has start 0 and length -1."""
    escaped = b"".join(_ESCAPES.get(byte, bytes((byte,))) for byte in name)
    places = b"".join(_signed(start) + _signed(length) for start, length in extents)
    return _unsigned(0) + escaped + _SEPARATOR + _unsigned(len(extents)) + places


def _unsigned(value: int) -> bytes:
    """Its length in bytes, then its bytes, the highest first; 0 has none."""
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes((len(raw),)) + raw


def _signed(value: int) -> bytes:
    """Two's complement, the highest byte first, in which as many leading bits are flipped as there are bytes."""
    magnitude = ~value if value < 0 else value
    length = magnitude.bit_length() // 7 + 1
    header = ((1 << length) - 1) << (8 * length - length)
    return ((value & ((1 << 8 * length) - 1)) ^ header).to_bytes(length, "big")
