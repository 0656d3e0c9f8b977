"""One number over and over: the codec `fill:<itemsize>:<codec below>`, of zeros when `itemsize` is 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window


def filled(item: Extent, nbytes: int) -> Extent:
    """The extent of `nbytes` bytes that repeats the bytes of `item`; zeros when that is empty."""
    return item._replace(nbytes=nbytes, codec=f"fill:{item.nbytes}:{item.codec}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the repeated item. Raises what reading the item raises."""
    _, size, codec = extent.codec.split(":", 2)
    itemsize = int(size)
    if itemsize == 0:
        return np.zeros(stop - start, np.uint8)
    item = read_window(extent._replace(nbytes=itemsize, codec=codec), 0, itemsize, None)
    lead = start % itemsize
    return np.tile(item, -(-(stop - start + lead) // itemsize))[lead : lead + stop - start]
