"""Windows into files: a range of bytes as a read-only array, mapped or read, gone when the array is.

A window is mapped for one task and unmapped after it, so resident memory is the windows in flight, whatever the size of
the files. Only what fstat says is there is ever mapped.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import ChangedFileError, TensorError
from diffai_stream.storage import guard
from diffai_stream.storage.codecs import read_decoded
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.files import FILES

Bytes = NDArray[np.uint8]
IO_MODES = ("auto", "mmap", "pread")


def read_window(extent: Extent, start: int, stop: int, stamp: FileStamp | None, io: str = "auto") -> Bytes:
    """Bytes [start, stop) of an extent as a read-only uint8 array, decoded where its codec can be read anywhere.

    Raises ChangedFileError when the file is not the stamped one, TensorError when it cannot be read or is too short.
    """
    if stop <= start:
        return np.empty(0, np.uint8)
    if "://" in extent.path and not extent.codec:
        from diffai_stream.storage.remote.ahead import remote_window

        return np.frombuffer(remote_window(extent, start, stop, stamp), np.uint8)
    if extent.codec:
        raw = read_decoded(extent, start, stop)
        raw.setflags(write=False)
        return raw
    try:
        descriptor, remote = FILES.duplicate(extent.path)
    except OSError as error:
        raise TensorError(f"cannot open: {error.strerror}", path=extent.path, offset=extent.offset + start) from error
    try:
        check_unchanged(descriptor, extent, stop, stamp, not remote)
        is_guarded = io != "pread" and guard.install()
        mapped = io == "mmap" or (is_guarded and not remote)
        return (_map if mapped else _pread)(descriptor, extent, start, stop)
    except OSError as error:
        raise TensorError(f"cannot read: {error.strerror}", path=extent.path, offset=extent.offset + start) from error
    except ValueError as error:  # mmap, of a file that became shorter since fstat
        raise ChangedFileError("the file shrank while it was read", path=extent.path, offset=extent.offset + start) from error
    finally:
        os.close(descriptor)


def check_unchanged(descriptor: int, extent: Extent, stop: int, stamp: FileStamp | None, is_local: bool = True) -> None:
    """Raise unless the open file is the stamped one and holds the extent up to `stop`."""
    if stamp is not None:
        stamp.check(descriptor, is_local)
    size = os.fstat(descriptor).st_size
    if extent.offset + stop > size:
        if stamp is not None:
            stamp.check(descriptor, is_local)  # it may have shrunk since
        raise TensorError(f"the file ends at byte {size}, before the tensor does", path=extent.path, offset=size)


def recheck(stamps: Iterable[FileStamp]) -> None:
    """Raise ChangedFileError when a file is no longer the stamped one: called after its bytes were used.

    Each answer about a remote object was for the version that is stamped.
    """
    for stamp in stamps:
        if "://" in stamp.path:
            continue
        try:
            descriptor, remote = FILES.duplicate(stamp.path)
        except OSError as error:
            raise ChangedFileError(f"cannot open any more: {error.strerror}", path=stamp.path) from error
        try:
            stamp.check(descriptor, not remote)
        finally:
            os.close(descriptor)


def _map(descriptor: int, extent: Extent, start: int, stop: int) -> Bytes:
    first = extent.offset + start
    lead = first % mmap.ALLOCATIONGRANULARITY
    mapping = mmap.mmap(descriptor, stop - start + lead, access=mmap.ACCESS_READ, offset=first - lead)
    return np.frombuffer(mapping, np.uint8)[lead:]


def _pread(descriptor: int, extent: Extent, start: int, stop: int) -> Bytes:
    buffer = np.empty(stop - start, np.uint8)
    done = 0
    while done < buffer.size:
        count = os.preadv(descriptor, [buffer[done:].data], extent.offset + start + done)
        if count == 0:
            raise ChangedFileError("the file shrank while it was read", path=extent.path, offset=extent.offset + start + done)
        done += count
    buffer.setflags(write=False)
    return buffer
