"""Compressed data that is read out of order: inflated once into a temporary file without a name, then read anywhere.

Codec `spill:<skip>:<compressed_nbytes>`: raw deflate data from the extent's offset on, of which `skip` decoded bytes are no
part of the tensor. Used where the order of the numbers (columns first, big-endian) is not the order they are read in. What
bounds it: memory by pieces of 4 MiB; disk by the tensors in work, of which the last `KEPT_FILES` stay, and no file is begun
that would leave less than `SPARE_NBYTES` free in the temporary directory (`TMPDIR`). The files vanish with the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from io import FileIO

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import TensorError
from diffai_stream.storage.extent import Extent, FileStamp, stamp_of
from diffai_stream.storage.inflate import inflated

KEPT_FILES = 8
SPARE_NBYTES = 256 << 20
PIECE_NBYTES = 4 << 20


class _Spilled:
    """The temporary file of one extent, filled by whoever needs it first."""

    def __init__(self, extent: Extent) -> None:
        self._extent, self._lock = extent, threading.Lock()
        self._file: FileIO | None = None

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
    """A `deflate` extent as one that is inflated to disk and can be read anywhere."""
    return extent._replace(codec=extent.codec.replace("deflate:", "spill:", 1))


def read_extent(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of the decoded data. Raises TensorError for damaged data or when the disk is too full."""
    key = extent, stamp_of(extent)
    with _lock:
        entry = _files.setdefault(key, _Spilled(extent))
        _files.move_to_end(key)
        while len(_files) > KEPT_FILES:
            _files.popitem(last=False)  # closed, and so deleted, when its last reader lets go of it
    return entry.read(start, stop)


def _filled(extent: Extent) -> FileIO:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if extent.nbytes > free - SPARE_NBYTES:
        message = f"needs {extent.nbytes} bytes of temporary space, {folder} has {free}; set TMPDIR to a larger disk"
        raise TensorError(message, path=extent.path, offset=extent.offset)
    file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - it outlives this function
    try:
        for piece in inflated(_deflate(extent), _sizes(extent.nbytes), None):
            view = piece.data
            while view:
                view = view[file.write(view) :]
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            message = f"cannot write to {folder}: {error.strerror}"
            raise TensorError(message, path=extent.path, offset=extent.offset) from error
        raise
    return file


def _deflate(extent: Extent) -> Extent:
    return extent._replace(codec=extent.codec.replace("spill:", "deflate:", 1))


def _sizes(nbytes: int) -> Iterator[int]:
    for start in range(0, nbytes, PIECE_NBYTES):
        yield min(PIECE_NBYTES, nbytes - start)


def within(extent: Extent, skip: int, inflated_nbytes: int, compressed_nbytes: int) -> Extent:
    """Bytes from `skip` on of one deflate stream that holds many arrays: it is spilled once, as a whole."""
    return extent._replace(codec=f"within:{skip}:{inflated_nbytes}:{compressed_nbytes}")


def read_within(extent: Extent, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes [start, stop) of an extent that is a part of a spilled stream. Raises what `read_extent` raises."""
    _, skip, inflated_nbytes, compressed_nbytes = extent.codec.split(":")
    whole = Extent(extent.path, extent.offset, int(inflated_nbytes), f"spill:0:{compressed_nbytes}")
    return read_extent(whole, int(skip) + start, int(skip) + stop)
