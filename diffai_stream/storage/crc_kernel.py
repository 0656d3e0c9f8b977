"""The loop of `crc32c.py`, compiled."""

from __future__ import annotations

import numpy as np

from diffai_stream.jit import vector


def crc32c_of(block):
    """Arguments: bytes, uint32[256] table, uint32[1] result."""
    raw, table, out = vector(block, 0, np.uint8), vector(block, 1, np.uint32), vector(block, 2, np.uint32)
    crc = np.uint32(0xFFFFFFFF)
    for i in range(raw.size):
        crc = np.uint32(table[np.uint32(np.uint32(crc ^ np.uint32(raw[i])) & np.uint32(255))] ^ np.uint32(crc >> np.uint32(8)))
    out[0] = np.uint32(~crc)
