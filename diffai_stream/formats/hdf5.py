"""HDF5 files (`.h5`, `.hdf5`): Keras weights, MATLAB 7.3 and what else is written so.

The layout is read by `storage/hdf5`, without the library; `hdf5_walk.py` makes the entries.
"""

from __future__ import annotations

from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.hdf5_walk import Found, Place, checkpoint_of, read_file
from diffai_stream.formats.inert import collection_paused, open_regular
from diffai_stream.formats.matlab_hdf5 import MATLAB_HEAD
from diffai_stream.storage.hdf5.source import SIGNATURE


def probe(path: str, head: bytes) -> bool:
    """Whether an HDF5 signature stands at the start, or behind a user block within the first bytes."""
    return any(head[at : at + 8] == SIGNATURE for at in (0, 512, 1024, 2048)) or head.startswith(MATLAB_HEAD)


def index(path: str) -> Checkpoint:
    """The datasets of numbers in file order.

    Raises FormatError when the root group cannot be read; what lies below and cannot is an error by name.
    """
    found = Found(path)
    with open_regular(path) as (file, stamp), collection_paused():
        read_file(file, Place(stamp, 0, stamp.nbytes), found)
    return checkpoint_of(found, "hdf5", {stamp.path: stamp})
