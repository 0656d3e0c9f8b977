"""The last bytes of each of equal records: the codec `records:<record_nbytes>:<item_nbytes>`.

This is how protobuf stores numbers of fixed size that are not packed: a key before each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffai_stream.storage.extent import Extent
from diffai_stream.storage.windows import read_window


def of_records(path: str, offset: int, count: int, record_nbytes: int, item_nbytes: int) -> Extent:
    """The extent of the items of `count` records from `offset` on."""
    return Extent(path, offset, count * item_nbytes, f"records:{record_nbytes}:{item_nbytes}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the items laid end to end. Raises TensorError when the file is too short."""
    record, item = map(int, extent.codec.split(":")[1:])
    first, last = start // item, -(-stop // item)
    stored = extent._replace(nbytes=extent.nbytes // item * record, codec="")
    rows = read_window(stored, first * record, last * record, None).reshape(-1, record)
    return rows[:, record - item :].reshape(-1)[start - first * item :][: stop - start]
