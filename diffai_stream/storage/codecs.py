"""How the bytes of an extent are stored, by the first word of its codec.

`""` is bytes as they are. `deflate:<skip>:<compressed_nbytes>` is a stream that is read once from front to back where it can
be (`inflate.py`), else spilled to disk. Every other word names a reader below that gives any range of the decoded bytes:
`read_extent(extent, start, stop) -> uint8[stop - start]`, safe to call from several threads, bounded in memory, raising
TensorError with path and offset for damaged data. Modules are imported when the first such extent is read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import cast

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import MissingExtraError, TensorError
from diffai_stream.storage.extent import Extent

Reader = Callable[[Extent, int, int], NDArray[np.uint8]]
SEQUENTIAL = "deflate"
CODECS = {
    "boxes": "diffai_stream.storage.boxes:read_extent",
    "constant": "diffai_stream.storage.fill:read_constant",
    "deflate": "diffai_stream.storage.spill:read_extent",
    "fill": "diffai_stream.storage.fill:read_extent",
    "flip": "diffai_stream.storage.flip:read_extent",
    "hdf5": "diffai_stream.storage.hdf5.reader:read_extent",
    "ocdbt": "diffai_stream.storage.zarr.reader:read_extent",
    "planar": "diffai_stream.storage.planar:read_extent",
    "records": "diffai_stream.storage.records:read_extent",
    "spill": "diffai_stream.storage.spill:read_extent",
    "swap": "diffai_stream.storage.swap:read_extent",
    "within": "diffai_stream.storage.spill:read_within",
    "varint": "diffai_stream.storage.varints:read_extent",
    "zarr": "diffai_stream.storage.zarr.reader:read_extent",
}


def is_sequential(codec: str) -> bool:
    """Whether an extent of this codec is best read from front to back."""
    return codec.startswith(f"{SEQUENTIAL}:")


def read_decoded(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Decoded bytes [start, stop) of an extent with a codec of the table. Raises TensorError, MissingExtraError."""
    raw = reader(extent.codec.partition(":")[0])(extent, start, stop)
    if raw.size != stop - start:
        raise TensorError(f"decodes to {raw.size} bytes where {stop - start} are due", path=extent.path, offset=extent.offset)
    return raw


@lru_cache(maxsize=64)
def reader(word: str) -> Reader:
    """The reader of a codec. Raises TensorError for an unknown one, MissingExtraError when its library is not installed."""
    if word not in CODECS:
        raise TensorError(f"the codec {word!r} is not known (known are {', '.join(CODECS)})")
    module, _, name = CODECS[word].partition(":")
    try:
        return cast(Reader, getattr(import_module(module), name))
    except ImportError as error:
        raise MissingExtraError(f"reading {word} data needs {error.name or error}: pip install 'diffai-stream[all]'") from error
