"""Numbers stored as their negatives or conjugates: the codec `flip:<step>:<codec below>`, the last part empty for plain bytes.

The top byte of every `step` bytes holds the sign to turn: of each real number for a negative, of each imaginary part for a
conjugate (then a step is a whole complex number).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window

SIGN = 0x80


def flipped(extent: Extent, step: int) -> Extent:
    """The extent with the sign turned in the last of each `step` bytes; its numbers are little-endian."""
    return extent._replace(codec=f"flip:{step}:{extent.codec}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) with the signs turned. Raises what reading the extent below raises."""
    _, step, codec = extent.codec.split(":", 2)
    found = np.array(read_window(extent._replace(codec=codec), start, stop, None))
    found[(int(step) - 1 - start) % int(step) :: int(step)] ^= SIGN
    return found
