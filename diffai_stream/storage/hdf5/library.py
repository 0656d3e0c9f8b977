"""Chunks that only the library can unpack (LZF, szip, plug-in filters, extensible arrays): read through h5py."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import MissingExtraError
from diffai_stream.storage.bands import Ranges
from diffai_stream.storage.extent import Extent
from diffai_stream.storage.files import FILES
from diffai_stream.storage.hdf5.source import Damaged

MISSING = "needs h5py: pip install 'diffai-stream[formats]'"


class _Window(io.RawIOBase):
    """An HDF5 file within another one (a stored zip member), as a file of its own."""

    def __init__(self, descriptor: int, start: int, nbytes: int) -> None:
        self._descriptor, self._start, self._nbytes, self._place = descriptor, start, nbytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._nbytes)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._nbytes - self._place)]
        count = os.preadv(self._descriptor, [view], self._start + self._place) if view else 0
        self._place += count
        return count


def read_box(extent: Extent, nbytes: int, path: str, ranges: Ranges, itemsize: int) -> NDArray:
    """A box of the dataset `path`, its elements as they are stored. Raises Damaged, MissingExtraError."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(f"its compression {MISSING}", path=extent.path) from error
    descriptor, _ = FILES.duplicate(extent.path)
    starts, counts = tuple(first for first, _ in ranges), tuple(last - first for first, last in ranges)
    out = np.empty(counts, f"V{itemsize}")
    try:
        with h5py.File(_Window(descriptor, extent.offset, nbytes), "r") as file:
            dataset = file[path].id
            space = dataset.get_space()
            space.select_hyperslab(starts, counts)
            dataset.read(h5py.h5s.create_simple(counts), space, out, mtype=dataset.get_type())
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise Damaged(f"the HDF5 library cannot read it: {' '.join(str(error).split())[:200]}") from error
    finally:
        os.close(descriptor)
    return out
