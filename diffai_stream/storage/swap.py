"""Big-endian numbers as little-endian ones: the codec `swap:<itemsize>:<codec below>`, the last part empty for plain bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window


def swapped(extent: Extent, itemsize: int) -> Extent:
    """The extent with the bytes of each `itemsize` (of a complex number: its parts) reversed; as it is for single bytes."""
    return extent if itemsize == 1 else extent._replace(codec=f"swap:{itemsize}:{extent.codec}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the little-endian numbers. Raises what reading the extent below raises."""
    _, size, codec = extent.codec.split(":", 2)
    itemsize = int(size)
    first, last = start - start % itemsize, stop + -stop % itemsize
    raw = read_window(extent._replace(codec=codec), first, last, None)
    turned = raw.view(f"u{itemsize}").byteswap().view(np.uint8)
    return turned[start - first : stop - first]
