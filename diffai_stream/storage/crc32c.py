"""CRC-32C, the Castagnoli checksum of LevelDB tables and TensorFlow checkpoints."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diffai_stream.native import Entry

crc32c_of = Entry("diffai_stream.storage.crc_kernel", "crc32c_of")
_POLYNOMIAL = 0x82F63B78  # reversed bits of 0x1EDC6F41
_MASK_DELTA = 0xA282EAD8


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    """uint32[256]: the remainder of each byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


def crc32c(raw: bytes) -> int:
    """The checksum of some bytes."""
    out = np.zeros(1, np.uint32)
    crc32c_of(np.frombuffer(raw, np.uint8), _table(), out)
    return int(out[0])


def masked_crc32c(raw: bytes) -> int:
    """The checksum as LevelDB stores it: rotated and shifted, since it may be part of what another one covers."""
    crc = crc32c(raw)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
