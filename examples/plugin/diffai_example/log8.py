"""The encoding: a byte is a sign and a logarithm, ±2^((code - 64) / 8), and code 0 of either sign is zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import DecodeKind, Encoding


def values() -> NDArray[np.float32]:
    """float32[256]: the value of every code."""
    codes = np.arange(128)
    magnitudes = np.where(codes == 0, 0.0, 2.0 ** ((codes - 64) / 8)).astype(np.float32)
    return np.concatenate([magnitudes, -magnitudes])


LARGEST = float(np.float32(2.0 ** (63 / 8)))
ENCODING = Encoding(
    "LOG8",
    8,
    DecodeKind.CODE8,
    "logarithm",
    pattern_bits=8,
    min_finite=-LARGEST,
    max_finite=LARGEST,
    values=values,
    title="sign and logarithm in a byte",
)
