"""Complex numbers whose parts lie apart: codec `planar:<bytes of a part>:<distance>:<bytes below>:<codec below>`.

The real parts begin the decoded bytes below, the imaginary ones lie `distance` bytes further; both come out side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window


def planar(below: Extent, part_nbytes: int, distance: int, nbytes: int) -> Extent:
    """The extent of `nbytes` bytes of complex numbers, from one that holds first all real, then all imaginary parts."""
    return below._replace(nbytes=nbytes, codec=f"planar:{part_nbytes}:{distance}:{below.nbytes}:{below.codec}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the complex numbers. Raises what reading the extent below raises."""
    _, size, away, below_nbytes, codec = extent.codec.split(":", 4)
    part, distance = int(size), int(away)
    below = extent._replace(nbytes=int(below_nbytes), codec=codec)
    first, last = start // (2 * part), -(-stop // (2 * part))
    both = np.empty((last - first, 2), f"V{part}")
    for column, offset in enumerate((0, distance)):
        both[:, column] = read_window(below, offset + first * part, offset + last * part, None).view(both.dtype)
    lead = start - first * 2 * part
    return both.reshape(-1).view(np.uint8)[lead : lead + stop - start]
