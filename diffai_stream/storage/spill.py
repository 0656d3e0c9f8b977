"""Data that is read out of order but decoded in order: decoded once into a temporary file, then read anywhere.

Codec `spill:<codec below>`, such as `spill:deflate:<skip>:<compressed_nbytes>`. Used where the order of the numbers (columns
first, big-endian) is not the order they are read in. What bounds it: memory by pieces of 4 MiB; disk by the tensors in work, of
which the last `KEPT_FILES` stay (`scratch.py` looks at the space).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import TensorError
from diffai_stream.storage.codecs import is_sequential
from diffai_stream.storage.extent import Extent, FileStamp, stamp_of
from diffai_stream.storage.inflate import inflated
from diffai_stream.storage.scratch import scratch_error, scratch_file
from diffai_stream.storage.windows import read_window

KEPT_FILES = 8
PIECE_NBYTES = 4 << 20


class _Spilled:
    """The temporary file of one extent, filled by whoever needs it first."""

    def __init__(self, extent: Extent) -> None:
        self._extent, self._lock = extent, threading.Lock()
        self._file: BinaryIO | None = None

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        with self._lock:
            self._file = self._file or _filled(self._extent)
            descriptor = os.dup(self._file.fileno())  # the file may be forgotten while this thread reads
        try:
            buffer = np.empty(stop - start, np.uint8)
            done = 0
            while done < buffer.size:
                count = os.preadv(descriptor, [buffer[done:].data], start + done)
                if not count:
                    raise TensorError("the temporary file is too short", path=self._extent.path, offset=self._extent.offset)
                done += count
            return buffer
        finally:
            os.close(descriptor)


_lock = threading.Lock()
_files: OrderedDict[tuple[Extent, FileStamp], _Spilled] = OrderedDict()


def spilled(extent: Extent) -> Extent:
    """The extent as one that is decoded to disk first and can be read anywhere."""
    return extent._replace(codec=f"spill:{extent.codec}")


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the decoded data. Raises TensorError for damaged data or when the disk is too full."""
    key = extent, stamp_of(extent)
    with _lock:
        entry = _files.setdefault(key, _Spilled(extent))
        _files.move_to_end(key)
        while len(_files) > KEPT_FILES:
            _files.popitem(last=False)  # closed, and so deleted, when its last reader lets go of it
    return entry.read(start, stop)


def _filled(extent: Extent) -> BinaryIO:
    file = scratch_file(extent.nbytes, extent)
    try:
        for piece in _decoded(extent._replace(codec=extent.codec.removeprefix("spill:"))):
            view = piece.data
            while view:
                view = view[file.write(view) :]
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise scratch_error(error, extent) from error
        raise
    return file


def _decoded(extent: Extent) -> Iterator[NDArray[np.uint8]]:
    """The decoded bytes in pieces."""
    cuts = range(0, extent.nbytes, PIECE_NBYTES)
    sizes = (min(PIECE_NBYTES, extent.nbytes - start) for start in cuts)
    if is_sequential(extent.codec):
        yield from inflated(extent, sizes, None)
    else:
        for start, size in zip(cuts, sizes, strict=True):
            yield read_window(extent, start, start + size, None)


def within(extent: Extent, skip: int, inflated_nbytes: int, compressed_nbytes: int) -> Extent:
    """Bytes from `skip` on of one deflate stream that holds many arrays: it is spilled once, as a whole."""
    return extent._replace(codec=f"within:{skip}:{inflated_nbytes}:{compressed_nbytes}")


def read_within(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of an extent that is a part of a spilled stream. Raises what `read_extent` raises."""
    _, skip, inflated_nbytes, compressed_nbytes = extent.codec.split(":")
    whole = Extent(extent.path, extent.offset, int(inflated_nbytes), f"spill:deflate:0:{compressed_nbytes}")
    return read_extent(whole, int(skip) + start, int(skip) + stop)
