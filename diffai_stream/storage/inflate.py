"""Deflated members of archives, streamed once from front to back in bounded memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import TensorError
from diffai_stream.storage.extent import Extent, FileStamp
from diffai_stream.storage.files import FILES
from diffai_stream.storage.windows import check_unchanged

PIECE = 1 << 18  # compressed bytes read at a time


def inflated(extent: Extent, sizes: Iterator[int], stamp: FileStamp | None) -> Iterator[NDArray[np.uint8]]:
    """Yield arrays of the sizes asked for, in order, from a `deflate:<skip>:<compressed_nbytes>` extent.

    Raises TensorError when the stream is damaged or ends too early, ChangedFileError when the file changed.
    """
    _, skip, compressed = extent.codec.split(":")
    source = _decompressed(extent, int(compressed), stamp)
    pending = bytearray()
    for size, drop in _with_skip(sizes, int(skip)):
        while len(pending) < size:
            piece = next(source, None)
            if piece is None:
                raise TensorError("the compressed data ends before the tensor does", path=extent.path, offset=extent.offset)
            pending += piece
        if not drop:
            yield np.frombuffer(bytes(pending[:size]), np.uint8)
        del pending[:size]


def _with_skip(sizes: Iterator[int], skip: int) -> Iterator[tuple[int, bool]]:
    yield skip, True
    for size in sizes:
        yield size, False


def _decompressed(extent: Extent, compressed: int, stamp: FileStamp | None) -> Iterator[bytes]:
    """Pieces of at most 4 MiB of inflated bytes, so that a bomb cannot fill the memory."""
    try:
        descriptor, _ = FILES.duplicate(extent.path)
    except OSError as error:
        raise TensorError(f"cannot open: {error.strerror}", path=extent.path, offset=extent.offset) from error
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        check_unchanged(descriptor, Extent(extent.path, extent.offset, compressed), compressed, stamp)
        for start in range(0, compressed, PIECE):
            data = os.pread(descriptor, min(PIECE, compressed - start), extent.offset + start)
            while data:
                yield stream.decompress(data, 1 << 22)
                data = stream.unconsumed_tail
    except zlib.error as error:
        raise TensorError(f"damaged compressed data: {error}", path=extent.path, offset=extent.offset) from error
    finally:
        os.close(descriptor)
