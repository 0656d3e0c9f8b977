"""Raw bytes of a plain encoding to an array of numbers, for those who need the numbers themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.encodings.base import Encoding
from diffai_stream.native import Entry

decode_plain32 = Entry("diffai_stream.encodings.kernels.plain", "decode_plain32")
decode_plain64 = Entry("diffai_stream.encodings.kernels.plain", "decode_plain64")


def decoded(raw: NDArray[np.uint8], encoding: Encoding, numel: int) -> NDArray[Any]:
    """Values of raw bytes as an array of `numel` real numbers in the encoding's tile dtype."""
    out = np.empty(numel, encoding.tile_dtype)
    decode = decode_plain32 if encoding.tile_dtype is np.float32 else decode_plain64
    if raw.ctypes.data % encoding.itemsize:
        raw = raw.copy()
    decode(int(encoding.kind), raw, encoding.table(), out)
    return out
