"""One number over and over: the codecs `fill:<nbytes>:<itemsize>:<codec below>` and `constant:<bytes of it in hex>`.

`fill` repeats the last `itemsize` bytes of an extent of `nbytes` decoded bytes, zeros where `itemsize` is 0. `constant` reads
nothing: it stands for what was never written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window


def filled(below: Extent, itemsize: int, nbytes: int) -> Extent:
    """The extent of `nbytes` bytes that repeats the last item of another one; zeros when that holds none."""
    size = itemsize if below.nbytes else 0
    return below._replace(nbytes=nbytes, codec=f"fill:{below.nbytes}:{size}:{below.codec}")


def constant(path: str, nbytes: int, item: bytes) -> Extent:
    """The extent of `nbytes` bytes that repeats an item; `path` is the file that says so."""
    return Extent(path, 0, nbytes, f"constant:{item.hex()}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the repeated item. Raises what reading the item raises."""
    _, below_nbytes, size, codec = extent.codec.split(":", 3)
    nbytes, itemsize = int(below_nbytes), int(size)
    if itemsize == 0:
        return np.zeros(stop - start, np.uint8)
    item = read_window(extent._replace(nbytes=nbytes, codec=codec), nbytes - itemsize, nbytes, None)
    return _repeated(item, start, stop)


def read_constant(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the repeated item."""
    return _repeated(np.frombuffer(bytes.fromhex(extent.codec.partition(":")[2]), np.uint8), start, stop)


def _repeated(item: NDArray[np.uint8], start: int, stop: int) -> NDArray[np.uint8]:
    lead = start % item.size
    return np.tile(item, -(-(stop - start + lead) // item.size))[lead : lead + stop - start]
