"""Raw bytes of a plain encoding to an array of numbers, for those who need the numbers themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding


def decoded(raw: NDArray[np.uint8], encoding: Encoding, numel: int) -> NDArray[Any]:
    """Values of raw bytes as an array of `numel` real numbers in the encoding's tile dtype."""
    from diffai_stream.encodings.kernels.plain import decode32, decode64

    out = np.empty(numel, encoding.tile_dtype)
    decode: Any = decode32 if encoding.tile_dtype is np.float32 else decode64
    if raw.ctypes.data % encoding.itemsize:
        raw = raw.copy()
    raw = raw.view()
    raw.setflags(write=False)
    decode(int(encoding.kind), raw, encoding.table(), out)
    return out
